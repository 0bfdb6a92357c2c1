"""Runs in: every process. The exceptions of bunri.

    BunriError
    ├── UsageError            the program misuses bunri: change the program
    ├── HostError             this machine cannot keep a promise: change the host, or the policy's may_miss
    ├── InternalError         bunri is wrong: please report it
    ├── Misbehaved            raised BY a service, to end the worker that called it
    └── PeerError             another process did something
        ├── RemoteError       its code raised an exception that no `raises` declares
        ├── Violation         the kernel, or a limit, refused it something
        ├── ProtocolError     it sent bytes that are not in the protocol; it has been ended
        ├── WorkerDied        it is gone, with the cause
        └── DeadlineExceeded  it did not answer in time (also a TimeoutError)

Each message says what was asked, what happened, and what to change.
Text that came from a worker has passed `bunri.text.printable` before it stands in a message.
"""

from __future__ import annotations

import errno as _errno
import signal as _signal
from enum import Enum

import msgspec as _msgspec

from bunri.text import printable


class Promise(Enum):
    """What a policy promises of a worker. Each is kept by one or more layers of the kernel."""

    FILES = "files"
    NETWORK = "network"
    IDENTITY = "identity"
    PROCESSES = "processes"
    SYSCALLS = "syscalls"
    MEMORY = "memory"
    TIME = "time"
    LABEL = "label"


class Observer(Enum):
    """By whom a fact was seen. Only what the kernel or the monitor saw is proof."""

    KERNEL = "kernel"
    MONITOR = "monitor"
    WORKER = "worker"


class BunriError(Exception):
    """The root of all exceptions of bunri."""


class UsageError(BunriError):
    """The program asked for something that bunri does not do. The message shows what to write instead."""


class InternalError(BunriError):
    """A fault of bunri itself. Please report it, with the traceback."""


class HostError(BunriError):
    """This host cannot keep a promise of the policy.

    `promise` and `layer` say what is missing, `errno` what the kernel answered (None where it was not asked),
    `remedy` what to change.
    """

    def __init__(
        self,
        message: str,
        *,
        promise: Promise | None = None,
        layer: str | None = None,
        errno: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.promise = promise
        self.layer = layer
        self.errno = errno
        self.remedy = remedy
        where = " / ".join(part for part in (promise.value if promise else "", layer or "") if part)
        text = f"{where}: {message}" if where else message
        if errno:
            text += f" ({_errno.errorcode.get(errno, str(errno))})"
        if remedy:
            text += f". {remedy}"
        super().__init__(text)


class Misbehaved(BunriError):
    """Raise it in a service method to end the worker that made the call, with this text as the cause."""


class PeerError(BunriError):
    """Another process failed, was refused something, broke the protocol, or died."""


class RemoteError(PeerError):
    """The other side's code raised an exception that no `bunri.raises` declares.

    Towards a worker it carries only the word "refused" and a `reference` under which the monitor's log has the rest.
    Towards the monitor `type_name`, `text` and `trace` are what the worker wrote: escaped, and not to be believed.
    """

    def __init__(
        self,
        text: str,
        reference: str | None = None,
        *,
        type_name: str | None = None,
        trace: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.text = printable(text)
        self.reference = reference
        self.type_name = printable(type_name) if type_name is not None else None
        self.trace = printable(trace, keep_newlines=True) if trace is not None else None
        self.hint = hint
        message = f"{self.type_name}: {self.text}" if self.type_name else self.text
        if reference:
            message += f" (reference {reference})"
        if hint:
            message += f"\n  {hint}"
        super().__init__(message)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.trace}" if self.trace else text


class Denial(_msgspec.Struct, frozen=True):
    """One refused action as a value. A field is None where it could not be known: nothing here is guessed.

    `call` is the system call's name, `arguments` are decoded; `path` and `address` are what it was about. `where` is file,
    line and function in the worker, `layer` what refused. `observed_by` is whose word it is (a WORKER's is
    hearsay). `grant` is code to paste, and only there for what the kernel observed.
    """

    call: str | None = None
    arguments: tuple[str, ...] | None = None
    path: str | None = None
    address: str | None = None
    where: str | None = None
    layer: str | None = None
    observed_by: Observer = Observer.WORKER
    grant: str | None = None

    def __str__(self) -> str:
        """A line: the call with its arguments, who refused it, where, and the grant that would allow it."""
        arguments = ", ".join(self.arguments) if self.arguments is not None else "..."
        what = f"{self.call}({arguments})" if self.call else self.path or "an action"
        parts = [f"{what} was refused"]
        if self.layer:
            parts.append(f"by {self.layer}")
        if self.where:
            parts.append(f"({self.where})")
        text = " ".join(parts)
        return printable(f"{text}; what would allow it: {self.grant}" if self.grant else text)

    def to_json(self) -> str:
        """The same as one line of JSON, ASCII only."""
        import json  # of zygotes and workers none needs it, and each would carry it

        values = _msgspec.structs.asdict(self) | {"observed_by": self.observed_by.value}
        return json.dumps(values, ensure_ascii=True)


class Violation(PeerError):
    """A worker tried something that its policy does not grant. `denial` is the action as a value."""

    def __init__(self, message: str, denial: Denial) -> None:
        self.denial = denial
        super().__init__(printable(message, keep_newlines=True))


class ProtocolError(PeerError):
    """The other side sent something that the protocol does not allow. It has been ended; nothing was repaired."""


class Exit(_msgspec.Struct, frozen=True):
    """How a process ended: `code` of a normal exit, or `signal` that killed it; `cause` says why, where it is known."""

    code: int | None = None
    signal: int | None = None
    cause: str | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                how = f"killed by {_signal.Signals(self.signal).name}"
            except ValueError:
                how = f"killed by signal {self.signal}"
        elif self.code is not None:
            how = f"exit code {self.code}"
        else:
            how = "ended"
        return f"{how}: {printable(self.cause)}" if self.cause else how


class WorkerDied(PeerError):
    """The worker is gone; the calls that were in it failed. `exit` says how, and why where that is known."""

    def __init__(self, exit: Exit, *, who: str = "worker") -> None:
        self.exit = exit
        super().__init__(f"{who}: {exit}")


class DeadlineExceeded(PeerError, TimeoutError):
    """The call did not answer in time, and what did the work has been stopped."""
