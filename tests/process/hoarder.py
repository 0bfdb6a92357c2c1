"""The compartments of the tests of memory."""

from __future__ import annotations

import os

import bunri


class Hoarder(bunri.Compartment):
    """Takes memory."""

    policy = bunri.Policy(memory="64M")

    def take(self, size: int) -> int:
        return len(b"\xff" * size)


class Family(bunri.Compartment):
    """Takes memory in several processes."""

    policy = bunri.Policy(memory="64M", processes=3)

    def take_each(self, count: int, size: int) -> int:
        """Bytes that so many children held at the same time."""
        ready, tell = os.pipe()
        wait, go = os.pipe()
        children: list[int] = []
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                held = b"\xff" * size
                os.write(tell, b"r")
                os.close(go)
                os.read(wait, 1)
                os._exit(0 if len(held) == size else 1)
            children.append(pid)
        for _ in children:
            os.read(ready, 1)
        os.close(go)
        ended = [os.waitpid(pid, 0)[1] for pid in children]
        return sum(size for status in ended if status == 0)


class Uncounted(Family):
    """The same, where each process has its bound and the sum has none."""

    policy = Family.policy.with_(may_miss=[bunri.Promise.MEMORY])
