"""Runs in: the monitor, on the supervisor's thread. The processor time of the processes that a worker has made (THREATS 31).

Each process has a clock of its own, which ends with it. What a child has used is added to its parent's books when that
waits for it, and is lost where that does not care (SIGCHLD ignored): so what was seen of it counts, if that is more.
"""

from __future__ import annotations

import contextlib

from bunri.kernel import procfs


class Descendants:
    """Those of one worker."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # process -> ns, when they were last looked at
        self._ended = 0  # ns of those that were seen, and are no more

    def cpu_ns(self, root: int, *known: int) -> int:
        """Of all that descend from `root`, those that have ended among them. `known`: of these, where /proc may not tell of them."""
        waited, live = 0, dict[int, int]()
        todo = [root, *known]
        while todo:
            pid = todo.pop()
            if pid in live:
                continue
            with contextlib.suppress(OSError):  # it has just ended
                if pid != root:
                    live[pid] = procfs.cpu_time_ns(pid)
                waited += procfs.waited_for_ns(pid)
                todo += procfs.children(pid)
        self._ended += sum(used for pid, used in self._seen.items() if live.get(pid, -1) < used)
        self._seen = live
        return sum(live.values()) + max(waited, self._ended)
