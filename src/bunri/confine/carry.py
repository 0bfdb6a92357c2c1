"""Runs in: the template and the worker, step by step losing its rights. The one place where confinement is done.

Each step is one short function. A step that the kernel refuses, or that did not have the effect it should have, raises
StepFailed, and the process ends: nothing is skipped, nothing is tried in another way that keeps less.
The order is the plan's. What is needed of /proc is opened before the first step, because the steps take /proc away.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from bunri.confine import _root
from bunri.confine.context import Context, StepFailed, refused
from bunri.kernel import (
    capability,
    clone,
    descriptors,
    heap,
    ids,
    keyring,
    label,
    landlock,
    mount,
    prctl,
    procfs,
    rlimit,
    seccomp,
    system,
)
from bunri.plan import steps as s

# NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock; KEEP_CAPS off, and locked.
SECUREBITS = 0b1110_1111


class _Work(msgspec.Struct):
    """What the steps of one run share."""

    context: Context
    owner: tuple[int, int]  # of what is made for the worker
    image: int | None = None
    oom_score: int = -1  # /proc/self/oom_score_adj, opened for writing
    label: int = -1  # /proc/self/attr/..., opened for writing

    def close(self) -> None:
        for number in (self.oom_score, self.label):
            if number >= 0:
                with suppress(OSError):  # CloseDescriptors may have closed it
                    os.close(number)
        self.oom_score = self.label = -1


def carry_out(steps: Sequence[s.AnyStep], context: Context) -> None:
    """Do each step to this process, in order. StepFailed at the first that does not take effect; then end the process.

    For a process with one thread: most steps bind the calling thread only.
    """
    work = _prepare(steps, context)
    try:
        for step in steps:
            _carry_out_one(step, work)
    finally:
        work.close()


def _carry_out_one(step: s.AnyStep, work: _Work) -> None:
    try:
        _DO[type(step)](step, work)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StepFailed(step, error.errno or errno.EINVAL, f"{error.strerror}{where}") from error
    except (KeyError, ValueError) as error:  # a name that no table of ours has
        raise StepFailed(step, errno.EINVAL, f"{error!r}") from error


def _prepare(steps: Sequence[s.AnyStep], context: Context) -> _Work:
    work = _Work(context, _owner(steps, context), context.image)
    for step in steps:
        try:
            if isinstance(step, s.Limits) and step.above_image is not None and work.image is None:
                work.image = _image()
            if isinstance(step, s.OomScore) and work.oom_score < 0:
                work.oom_score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            if isinstance(step, s.Label) and work.label < 0:
                work.label = label.open_own(step.module, context.proc)
        except OSError as error:
            raise StepFailed(step, error.errno or errno.EINVAL, f"{error.strerror} ({error.filename})") from error
    return work


def _owner(steps: Sequence[s.AnyStep], context: Context) -> tuple[int, int]:
    """The ids that the worker will have: those of SetIds, else of the request, else the present ones."""
    uid, gid = context.uid, context.gid
    for step in steps:
        if isinstance(step, s.SetIds):
            uid = uid if step.uid is None else step.uid
            gid = gid if step.gid is None else step.gid
    return os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid


def _image() -> int:
    directory = procfs.open_process("self")
    try:
        return procfs.image_size(directory)
    finally:
        os.close(directory)


def _expect(fact: bool, message: str) -> None:
    """The system call succeeded; this is whether it had its effect."""
    if not fact:
        raise refused(errno.EPERM, message)


def _unshare(step: s.Unshare, work: _Work) -> None:
    uid, gid = os.geteuid(), os.getegid()
    clone.unshare(clone.flags_of(step.namespaces))
    if "user" in step.namespaces:
        _map_to_itself(uid, gid)
    if "mnt" in step.namespaces:
        mount.mount(None, "/", None, mount.REC | mount.PRIVATE)  # or our mounts would appear in the parent's tree


def _map_to_itself(uid: int, gid: int) -> None:
    """The new user namespace knows one user, by his own number; setgroups is given up for it (user_namespaces(7))."""
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        number = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(number, line.encode())
        finally:
            os.close(number)
    _expect(os.geteuid() == uid and os.getegid() == gid, "the ids are others")


def _new_root(step: s.NewRoot, work: _Work) -> None:
    _root.enter_new_root(step.mounts, work.context.mounts, work.owner)


def _mount_in_root(step: s.MountInRoot, work: _Work) -> None:
    _root.mount_in_root(step.mounts, work.context.mounts, work.owner)


def _chroot(step: s.Chroot, work: _Work) -> None:
    if step.path == s.EMPTY_DIRECTORY:
        _make_empty_directory(step.path)
    os.chroot(step.path)
    os.chdir("/")
    if step.path == s.EMPTY_DIRECTORY:
        info = os.stat("/")
        writable = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        _expect(info.st_uid == 0 and not writable, f"others can write to {step.path}")
        _expect(not os.listdir("/"), f"{step.path} is not empty")


def _make_empty_directory(path: str) -> None:
    before = os.umask(0)
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o555)
    finally:
        os.umask(before)


def _drop_bounding(step: s.DropBounding, work: _Work) -> None:
    numbers = range(capability.last() + 1)
    for number in numbers:
        if number not in step.keep and prctl.in_bounding_set(number):
            prctl.drop_from_bounding_set(number)
    prctl.clear_ambient()
    _expect(not capability.bounding() & ~capability.mask_of(step.keep), "the bounding set kept more")


def _securebits(step: s.Securebits, work: _Work) -> None:
    prctl.set_securebits(SECUREBITS)


def _set_ids(step: s.SetIds, work: _Work) -> None:
    uid = work.context.uid if step.uid is None else step.uid
    gid = work.context.gid if step.gid is None else step.gid
    if uid is None or gid is None:
        raise refused(errno.EINVAL, "the plan leaves the ids to the request, and the request has none")
    groups = work.context.groups if step.groups_of_request else step.groups
    if groups is not None and set(os.getgroups()) != set(groups):
        ids.set_groups(groups)
    ids.set_gids(gid, gid, gid)
    ids.set_uids(uid, uid, uid)
    _expect(os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3, "the ids are others")
    _expect(groups is None or set(os.getgroups()) == set(groups), "the groups are others")


def _set_capabilities(step: s.SetCapabilities, work: _Work) -> None:
    mask = capability.mask_of(step.keep)
    wanted = capability.Sets(mask, mask, mask)
    capability.set_(wanted)
    _expect(capability.get() == wanted, "the capability sets are others")


def _no_new_privs(step: s.NoNewPrivs, work: _Work) -> None:
    prctl.set_no_new_privs()


def _mdwe(step: s.Mdwe, work: _Work) -> None:
    prctl.set_mdwe()


def _limits(step: s.Limits, work: _Work) -> None:
    values = dict(step.values)
    if step.above_image is not None:
        if work.image is None:
            raise refused(errno.EINVAL, "the size of the image is not known")
        values["AS"] = work.image + step.above_image
    if "CPU" in values:
        values["CPU"] = _from_now(values["CPU"])
    for name, value in values.items():
        rlimit.set_(name, value, value)


def _from_now(seconds: int) -> int:
    """RLIMIT_CPU counts from the start of the process: a program that confines itself late may have used it up."""
    hard = rlimit.get("CPU")[1]
    wanted = int(time.process_time()) + seconds
    return wanted if hard == rlimit.INFINITY else min(wanted, hard)


def _oom_score(step: s.OomScore, work: _Work) -> None:
    os.write(work.oom_score, str(step.score).encode())
    os.close(work.oom_score)
    work.oom_score = -1


def _landlock(step: s.Landlock, work: _Work) -> None:
    ruleset = ruleset_of(step)
    try:
        landlock.restrict_self(ruleset)
    finally:
        os.close(ruleset)


def ruleset_of(step: s.Landlock) -> int:
    """A descriptor of the step's ruleset, its paths taken from where this process stands."""
    check_landlock(step)
    ruleset = landlock.create_ruleset(fs=step.handled_fs, net=step.handled_net, scoped=step.scoped)
    try:
        for path, access in step.paths:
            if path not in step.optional or os.path.exists(path):
                _allow_path(ruleset, path, access)
        for port, access in step.ports:
            landlock.allow_port(ruleset, port, access)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def check_landlock(step: s.Landlock) -> None:
    """A right that the kernel does not know would be granted, not refused: so it must not stand in the plan."""
    found = landlock.abi()
    if found < step.abi:
        raise refused(errno.EOPNOTSUPP, f"the plan is made for Landlock ABI {step.abi}, this kernel has {found}")
    handled = (
        (step.handled_fs, landlock.FS_SINCE),
        (step.handled_net, landlock.NET_SINCE),
        (step.scoped, landlock.SCOPES_SINCE),
    )
    for mask, since in handled:
        if mask & ~landlock.known(since, step.abi):
            raise refused(errno.EINVAL, f"mask {mask:#x} has rights that Landlock ABI {step.abi} does not have")


def _allow_path(ruleset: int, path: str, access: int) -> None:
    fd = landlock.open_for_rule(path)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= landlock.FILE_RIGHTS
        landlock.allow_path(ruleset, fd, access)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def _filter(step: s.Filter, work: _Work) -> None:
    if not step.listener:
        seccomp.set_filter(step.program, seccomp.FLAG_TSYNC)
        return
    tell = work.context.on_listener
    if tell is None:
        raise refused(errno.EINVAL, "nobody takes the filter's listener")
    listener = _listen(step.program)
    try:
        tell(listener)
    finally:
        os.close(listener)


def _listen(program: bytes) -> int:
    """A filter with a listener. A call whose answer is on its way is not interrupted, where the kernel has that (5.19):
    it would be made again, and answered twice."""
    try:
        return seccomp.set_filter(program, seccomp.FLAG_NEW_LISTENER | seccomp.FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return seccomp.set_filter(program, seccomp.FLAG_NEW_LISTENER)


def _strict_mode(step: s.StrictMode, work: _Work) -> None:
    seccomp.set_strict()


def _heap(step: s.Heap, work: _Work) -> None:
    heap.grow(step.size)
    if step.arenas:
        heap.take_arenas_from_heap()
    else:
        heap.have_no_arenas()


def _label(step: s.Label, work: _Work) -> None:
    try:
        label.change(step.module, work.label, step.label)
    except OSError as error:
        raise OSError(error.errno, _LABEL_FAULTS.get(error.errno or 0, error.strerror), step.label) from None


_LABEL_FAULTS = {
    errno.EINVAL: "the policy that is loaded has no such domain",
    errno.ENOENT: "no such profile is loaded",
    errno.EACCES: "the loaded policy does not allow the change to it",
    errno.EPERM: "the loaded policy does not allow the change to it",
}


def _new_session(step: s.NewSession, work: _Work) -> None:
    os.setsid()


def _keyring(step: s.Keyring, work: _Work) -> None:
    keyring.join_session()


def _parent_death(step: s.ParentDeath, work: _Work) -> None:
    prctl.set_parent_death_signal(signal.SIGKILL)
    context = work.context
    if context.parent_alive is not None:
        alive = context.parent_alive()
    elif context.parent is not None:
        alive = os.getppid() == context.parent
    else:
        raise refused(errno.EINVAL, "the context does not say how to look at the parent again")
    if not alive:
        raise refused(errno.ESRCH, "the parent died before its death could be noticed")


def _not_dumpable(step: s.NotDumpable, work: _Work) -> None:
    prctl.set_dumpable(0)


def _close_descriptors(step: s.CloseDescriptors, work: _Work) -> None:
    descriptors.close_all_but(work.context.keep)
    work.oom_score = work.label = -1  # closed with the rest


def _hostname(step: s.Hostname, work: _Work) -> None:
    system.set_hostname(step.name)


def _surroundings(step: s.Surroundings, work: _Work) -> None:
    os.umask(0o077)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(step.environment)


def _checkpoint(step: s.Checkpoint, work: _Work) -> None:
    """The change of uid made us not dumpable, so that nobody at that uid could look: be it for the time of the look."""
    if work.context.checkpoint is None:
        raise refused(errno.EINVAL, "nobody looks at the checkpoint")
    prctl.set_dumpable(1)
    work.context.checkpoint()


_DO: dict[type, Callable[[Any, _Work], None]] = {
    s.Unshare: _unshare,
    s.NewRoot: _new_root,
    s.MountInRoot: _mount_in_root,
    s.Chroot: _chroot,
    s.DropBounding: _drop_bounding,
    s.Securebits: _securebits,
    s.SetIds: _set_ids,
    s.SetCapabilities: _set_capabilities,
    s.NoNewPrivs: _no_new_privs,
    s.Mdwe: _mdwe,
    s.Limits: _limits,
    s.OomScore: _oom_score,
    s.Landlock: _landlock,
    s.Filter: _filter,
    s.Heap: _heap,
    s.StrictMode: _strict_mode,
    s.Label: _label,
    s.NewSession: _new_session,
    s.Keyring: _keyring,
    s.ParentDeath: _parent_death,
    s.NotDumpable: _not_dumpable,
    s.CloseDescriptors: _close_descriptors,
    s.Hostname: _hostname,
    s.Surroundings: _surroundings,
    s.Checkpoint: _checkpoint,
}
