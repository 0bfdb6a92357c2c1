"""Runs in: a process that gives up its own rights once it has what it needs, as tcpdump does (THREATS 16).

Irrevocable, and for one thread only: Landlock, the capabilities and the uid bind the calling thread, so that a second
one would keep everything. Whatever is open stays usable: so what is to stay open is named, and all else is closed.
"""

from __future__ import annotations

import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec.structs import replace

from bunri.confine import _hooks, _inside
from bunri.confine.carry import carry_out
from bunri.confine.context import Context, StepFailed
from bunri.confine.detection import detect
from bunri.confine.words import HasDescriptor, Zygotes
from bunri.errors import HostError, Observer, Promise, UsageError
from bunri.kernel import descriptors, prctl, procfs
from bunri.plan import Account, Host, Layer, Needs, Plan, Report, Shape, State, python_paths
from bunri.plan import steps as s
from bunri.policy import Policy, Settled, User, UserKind
from bunri.policy.words import Profile

_STANDARD = (0, 1, 2)


class Kept(msgspec.Struct, frozen=True):
    """One descriptor that stays open."""

    number: int
    kind: str
    access: str

    def __str__(self) -> str:
        return f"{self.number} ({self.kind}, {self.access})"


def confine(
    policy: Policy, /, *, keep: Iterable[HasDescriptor | int] = _STANDARD, zygotes: Zygotes = Zygotes.END
) -> Report:
    """As `bunri.confine` says."""
    if not isinstance(cast(object, policy), Policy):
        raise UsageError(f"confine takes a Policy first, got {policy!r}. Write bunri.Policy(...)")
    if not isinstance(cast(object, zygotes), Zygotes):
        raise UsageError(f"confine(zygotes={zygotes!r}): write Zygotes.END, or Zygotes.DANGEROUS_KEEP")
    _refuse_again()
    host = detect()
    _refuse_hidden(host)
    kept = _kept(keep)
    _refuse_loop(kept)
    if zygotes is Zygotes.END:
        _hooks.end_zygotes()
    _refuse_threads()
    settled = policy.settled()
    account, reserved = _account(settled.user, host)
    made = _plan(policy, settled, host, _needs(kept), account)
    _refuse_ways_out(kept, settled, made)
    steps, left_out = in_place(made)
    if reserved is not None:
        kept = (*kept, _describe(reserved))
    _note_confined()
    _do(steps, account, kept)
    if zygotes is Zygotes.END:
        _hooks.note_confined()
    return _report(made, kept, left_out, zygotes)


def _plan(policy: Policy, settled: Settled, host: Host, needs: Needs, account: Account | None) -> Plan:
    """The plan for this process; where an ordinary user can make a user namespace, with that as its first step."""
    from bunri.plan import plan  # zygotes have no use for it

    if not _inside.helps(settled, host):
        return plan(policy, host, needs, account=account, python=python_paths())
    made = plan(*_inside.as_inside(policy, host), needs, account=account, python=python_paths())
    return msgspec.structs.replace(
        made, template=(_inside.STEP, *made.template), layers=_inside.as_outside(made.layers, host)
    )


def in_place(made: Plan) -> tuple[tuple[s.AnyStep, ...], tuple[str, ...]]:
    """The plan's steps for one process that is not cloned, and in words what cannot be done so."""
    steps = (*made.template, *made.worker)
    left_out = [_LEFT_OUT[type(step)] for step in steps if type(step) in _LEFT_OUT]
    if made.clone.namespaces:
        left_out.append(f"namespaces that take a clone: {', '.join(made.clone.namespaces)}")
    return tuple(step for step in steps if type(step) not in _LEFT_OUT), tuple(left_out)


_LEAVING = 0.5  # seconds that a thread which has ended may still be seen
_LEFT_OUT: dict[type, str] = {
    s.ParentDeath: "the program does not die with the process that started it",
    s.Checkpoint: "nobody looks from outside",
    s.NewSession: "the session and its terminal stay the caller's",
}


_confined = False


def _note_confined() -> None:
    global _confined
    _confined = True


def _refuse_again() -> None:
    """What a second time needs, the first one took."""
    if _confined:
        raise UsageError(
            "this process has confined itself already, or has tried to, and it does so once. "
            "Write the narrower policy the first time"
        )


def _refuse_loop(kept: tuple[Kept, ...]) -> None:
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has it
    runs = asyncio is not None and asyncio._get_running_loop() is not None
    if runs and not any(each.kind == "eventpoll" for each in kept):
        raise UsageError(
            "an event loop runs on this thread, and confine closes what it waits with. Call confine where none runs, "
            "or do this work in a compartment"
        )


def _refuse_threads() -> None:
    # A thread that was joined is a moment longer in the kernel than in Python: bunri's own, ended just before, too.
    until = time.monotonic() + _LEAVING
    while others := _other_threads():
        if time.monotonic() >= until or any(name for _, name in others):
            break
        time.sleep(0.001)
    if not others:
        return
    names = ", ".join(f"{name or 'a thread of a C library'} ({number})" for number, name in others)
    raise UsageError(
        f"confine binds one thread only, and {len(others)} more would keep all rights: {names}. "
        f"Call it before they are started (asyncio.to_thread and numpy start some)"
    )


def _other_threads() -> list[tuple[int, str]]:
    """Number and name of each; those that Python does not know have none."""
    directory = procfs.open_process("self")
    try:
        numbers = procfs.threads(directory)
    finally:
        os.close(directory)
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    here = threading.get_native_id()
    return [(number, names.get(number, "")) for number in numbers if number != here]


def _refuse_hidden(host: Host) -> None:
    """What is not dumpable does not own its files in /proc, which some steps write; only root passes there anyway."""
    if not host.is_root and not prctl.dumpable():
        raise HostError(
            "this process gave up a uid and is not dumpable since, so it may not write its own files in /proc",
            layer="not dumpable",
            remedy="Leave the change of uid to confine (user=), or execute the program anew as that user",
        )


def _kept(keep: Iterable[HasDescriptor | int]) -> tuple[Kept, ...]:
    if isinstance(keep, int) or not isinstance(cast(object, keep), Iterable):
        raise UsageError(f"keep={keep!r}: a list is needed, as keep=(0, 1, 2, sock)")
    numbers = sorted({_number_of(each) for each in keep})
    opened = set(descriptors.open_numbers())
    closed = [number for number in numbers if number not in opened and number not in _STANDARD]
    if closed:
        raise UsageError(f"keep names descriptors that are not open: {', '.join(map(str, closed))}")
    return tuple(_describe(number) for number in numbers if number in opened)


def _number_of(each: HasDescriptor | int) -> int:
    if isinstance(each, int) and not isinstance(each, bool):
        return each
    if isinstance(each, bool) or not hasattr(each, "fileno"):
        raise UsageError(f"keep names {each!r}, which is neither a descriptor nor anything that has one")
    return each.fileno()


def _describe(number: int) -> Kept:
    return Kept(number, descriptors.kind_of(number), descriptors.access_of(number))


def _refuse_ways_out(kept: tuple[Kept, ...], settled: Settled, made: Plan) -> None:
    """A directory's descriptor leads out of every root; only Landlock denies what lies above it (THREATS 1)."""
    if settled.profile is Profile.DANGEROUS_UNCONFINED or Promise.FILES in settled.may_miss:
        return
    directories = [str(each) for each in kept if each.kind == "directory"]
    if directories and not any(isinstance(step, s.Landlock) for step in (*made.template, *made.worker)):
        raise HostError(
            f"keep names directories, from which every path can be reached: {', '.join(directories)}",
            promise=Promise.FILES,
            layer="Landlock files",
            remedy="Open the files first and keep those, or use a kernel with Landlock",
        )


def _needs(kept: tuple[Kept, ...]) -> Needs:
    """What must stay allowed, so that what stays open is of use."""
    kinds = {each.kind for each in kept}
    sockets = [_socket_kind(each.number) for each in kept if each.kind == "socket"]
    return Needs(
        shape=Shape.SELF,
        files="file" in kinds,
        writable_files=any(each.kind == "file" and "w" in each.access for each in kept),
        stream_sockets="stream" in sockets,
        datagram_sockets="datagram" in sockets,
        listening_sockets="listening" in sockets,
        asynchronous="eventpoll" in kinds,
    )


def _socket_kind(number: int) -> str:
    sock = socket.socket(fileno=number)
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening"
        return "stream" if sock.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET) else "datagram"
    finally:
        sock.detach()


def _account(user: User, host: Host) -> tuple[Account | None, int | None]:
    """The user in numbers, and the descriptor that reserves a dynamic uid. An ordinary user stays who he is."""
    if not host.is_root or user.kind is UserKind.SAME:
        return Account(host.uid, host.gid, host.groups), None
    if user.kind is UserKind.DYNAMIC:
        uid, reserved = _hooks.take_user()
        return Account(uid, uid), reserved
    if user.kind is UserKind.IDS:
        return Account(user.uid, user.gid, user.groups), None
    try:
        entry = pwd.getpwnam(user.name)
    except KeyError:
        raise UsageError(f"there is no user {user.name!r} on this host. Create it, or write User.dynamic()") from None
    return Account(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user.name, entry.pw_gid))), None


def _do(steps: tuple[s.AnyStep, ...], account: Account | None, kept: tuple[Kept, ...]) -> None:
    context = Context(
        uid=account.uid if account else None,
        gid=account.gid if account else None,
        groups=account.groups if account else (),
        keep=tuple(each.number for each in kept),
    )
    try:
        carry_out(_closing(steps), context)
    except StepFailed as failed:
        raise HostError(
            f"{failed.message}; what was given up before stays given up",
            layer=failed.step,
            errno=failed.errno,
            remedy="End this process: it is confined in part only",
        ) from failed


def _closing(steps: tuple[s.AnyStep, ...]) -> tuple[s.AnyStep, ...]:
    """Closing comes first if the plan does not say where: no step here needs what the program has open."""
    if any(isinstance(step, s.CloseDescriptors) for step in steps):
        return steps
    return (s.CloseDescriptors(), *steps)


def _report(made: Plan, kept: tuple[Kept, ...], left_out: tuple[str, ...], zygotes: Zygotes) -> Report:
    """Each step's success is the kernel's own word: it was this process that got it."""
    notes = [*made.notes, *(f"left out: {text}" for text in left_out)]
    notes.append("stayed open: " + (", ".join(map(str, kept)) or "nothing"))
    if zygotes is Zygotes.DANGEROUS_KEEP:
        notes.append("the zygotes were kept: they have the rights that this process gave up")
    return Report(tuple(_seen(layer) for layer in made.layers), tuple(notes))


def _seen(layer: Layer) -> Layer:
    return layer if layer.state is State.MISSING else replace(layer, observed_by=Observer.KERNEL)
