"""Runs in: monitor and worker. Exceptions that no `raises` declares, on the wire.

Towards the worker goes only "refused" and a reference (API decision 11). Towards the monitor goes text: type name,
message, traceback, errno and file name, each bounded; the monitor builds a RemoteError or a Violation of its own from
it and believes none of it.
"""

from __future__ import annotations

import errno as _errno
import os
import sys
import traceback
from types import TracebackType

import msgspec

from bunri.errors import Denial, Observer, ProtocolError, RemoteError, Violation
from bunri.text import printable

_LONGEST_TEXT = 4096  # characters
_LONGEST_TRACE = 32768
_BUNRI = os.path.dirname(os.path.dirname(__file__))
_ON_THE_WAY = tuple(os.path.join(_BUNRI, folder, "") for folder in ("channel", "wire"))  # to a user's method
_DENIED = frozenset({_errno.EPERM, _errno.EACCES, _errno.EROFS})


class Fault(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An exception as the other side tells it."""

    type_name: str
    text: str
    trace: str | None = None
    errno: int | None = None
    path: str | None = None
    cancelled: bool = False
    reference: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Fault).decode


def refused(reference: str) -> bytes:
    """What a worker is told when a service failed."""
    return _encode(Fault("", "refused", reference=reference))


def cancelled() -> bytes:
    return _encode(Fault("", "cancelled", cancelled=True))


def describe(fault: BaseException) -> bytes:
    """What the monitor is told when a worker's method failed. Runs in the worker, where it may not touch any file."""
    number = fault.errno if isinstance(fault, OSError) else None
    path = fault.filename if isinstance(fault, OSError) else None
    if isinstance(fault, ImportError) and path is None:
        path = fault.name
    told = Fault(
        _clean(type(fault).__name__)[:200],
        _clean(str(fault))[:_LONGEST_TEXT],
        _clean(_trace(fault))[-_LONGEST_TRACE:],
        number,
        _clean(os.fsdecode(path))[:_LONGEST_TEXT] if isinstance(path, str | bytes) else None,
    )
    return _encode(told)


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _trace(fault: BaseException) -> str:
    """A traceback without source lines, since looking them up would open files; and from where the user's code begins."""
    frames = traceback.StackSummary()
    walk: TracebackType | None = fault.__traceback__
    while walk is not None and walk.tb_next is not None and walk.tb_frame.f_code.co_filename.startswith(_ON_THE_WAY):
        walk = walk.tb_next
    while walk is not None:
        code = walk.tb_frame.f_code
        frames.append(
            traceback.FrameSummary(code.co_filename, walk.tb_lineno, code.co_name, lookup_line=False, line="")
        )
        walk = walk.tb_next
    return "".join(frames.format())


def understand(body: bytes | memoryview) -> Fault:
    """The other side's Fault. ProtocolError for anything else."""
    try:
        fault = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as reason:
        raise ProtocolError(f"an error message that is none: {printable(str(reason))}") from None
    if (
        len(fault.text) > _LONGEST_TEXT
        or len(fault.trace or "") > _LONGEST_TRACE
        or len(fault.path or "") > _LONGEST_TEXT
    ):
        raise ProtocolError("an error message that is too long")
    return fault


def to_exception(fault: Fault, who: str) -> RemoteError | Violation:
    """The exception to raise here. `who` names the other side from this side's own state."""
    if fault.reference is not None:
        return RemoteError("refused", printable(fault.reference, limit=64))
    if fault.errno in _DENIED:
        named = _errno.errorcode.get(fault.errno or 0, "")
        path = printable(fault.path) if fault.path else None
        denial = Denial(path=path, where=_last_line(fault.trace), observed_by=Observer.WORKER)
        told = RemoteError(fault.text, type_name=fault.type_name, trace=fault.trace)
        says = str(told).rstrip()
        violation = Violation(
            f"{who} was refused {path or 'an action'} ({named})\n  Its policy grants no such thing; {_advice(fault)}\nit says: {says}",
            denial,
        )
        violation.__cause__ = told
        return violation
    return RemoteError(fault.text, type_name=fault.type_name, trace=fault.trace, hint=_hint(fault))


def _last_line(trace: str | None) -> str | None:
    lines = [line.strip() for line in (trace or "").splitlines() if line.strip().startswith("File ")]
    return printable(lines[-1]) if lines else None


def _advice(fault: Fault) -> str:
    return (
        "grant a file with Policy(files=[fs.read(...)])"
        if fault.path
        else "grant it in the compartment's policy if it is meant to be"
    )


def _hint(fault: Fault) -> str | None:
    """What would cure the usual surprises of a process without files. The program's author decides; the worker's word
    is no proof."""
    if fault.type_name in ("ModuleNotFoundError", "ImportError"):
        name = printable(fault.path or "its name")
        return f"A worker has no files to import from. If the module is meant: preload = ({name!r},), or import it at the top of the module"
    if fault.errno in (_errno.ENOENT, _errno.ENOSYS) and fault.path:
        return "A worker sees only the files its policy grants. If this one is meant: files=[fs.read(...)], or read it in warm_up()"
    if fault.type_name == "LookupError" and "encoding" in fault.text:
        return (
            "A codec is imported at its first use, and a worker has no files to import from. Use it once in warm_up()"
        )
    if fault.type_name == "RuntimeError" and "start new thread" in fault.text:
        return (
            "A worker has no threads but those that its policy grants: threads=..., of which each has its memory, too"
        )
    if fault.type_name == "MemoryError":
        return "The policy's memory= bounds what a worker may have"
    return None


def is_cancelled(fault: BaseException) -> bool:
    """Whether it is asyncio's CancelledError, which exists where asyncio was loaded."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(fault, asyncio.CancelledError)
