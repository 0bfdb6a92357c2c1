"""Runs in: a broker's process, as the subject. Answers the calls of one worker that stand still for it.

The threat: the worker. It changes a path after it was read, interrupts the call, dies in the middle, asks without end,
or points to a page that does not come. So: arguments are copied once and decided upon in the copy; the call is looked
at again before an answer is believed to be wanted; the broker acts itself and the answer is a descriptor or a number,
never "go on"; and there is one broker per worker, so that one that is held up holds up nobody else. Its CPU time counts
as the worker's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Final, NoReturn

from bunri import seccomp
from bunri.broker import beneath
from bunri.broker.beneath import Refused, refused
from bunri.broker.confining import Held
from bunri.broker.denied import DEATH, Denials
from bunri.broker.memory import Memory
from bunri.broker.messages import Charge, Given, Refuser, Want, decode_given, encode
from bunri.broker.places import Found, Places
from bunri.broker.sockets import Sockets, Waiting, longest, parse_address, spelled
from bunri.kernel import notify, paths
from bunri.kernel.notify import Notification

HELD_UP: Final = 10.0  # seconds in one call before the kernel ends this process, and with it the worker
_REARM: Final = 1.0
_AT_FDCWD: Final = -100
_W_OK: Final = 2
_AT_REMOVEDIR: Final = 0x200
_LONGEST_LINK: Final = 4096
_STAT_FLAGS: Final = paths.AT_SYMLINK_NOFOLLOW | paths.AT_NO_AUTOMOUNT | paths.AT_EMPTY_PATH


class _Descriptor(int):
    """An answer that is a descriptor: it is handed over, and ours is closed."""


class _Later(Exception):
    """The answer comes later: the call goes on standing still."""


class Supervisor:
    """One worker's broker at work."""

    def __init__(self, control: socket.socket, charge: Charge, held: Held, listener: int, memory: int) -> None:
        self._asking = control
        self._control = control.fileno()
        self._listener = listener
        self._several = charge.several
        self._memory = Memory(memory)  # of the call that is being answered
        self._forget_memory()
        self._inode = 0  # of the socket that it names
        self._places = Places(charge.trees, held.trees)
        for path, fd in held.texts.items():
            self._places.add_text(path, fd)
        self._sockets = Sockets(charge, held)
        self._denials = Denials(charge.filter) if charge.filter else None
        self._waiting: dict[int, Waiting] = {}  # descriptor -> a connect()
        self._poll = select.poll()
        self._armed = 0.0
        numbers = seccomp.syscalls_of(os.uname().machine)
        self._answers: dict[int, Callable[[Notification], int]] = {
            numbers[name]: answer.__get__(self) for name, answer in _ANSWERS.items() if name in numbers
        }
        with contextlib.suppress(OSError):  # before Linux 6.6 an answer takes a little longer
            notify.wake_on_same_processor(listener)

    def run(self) -> NoReturn:
        """Serve until the worker or the monitor is gone."""
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._control, 0)  # its end is always told
        while True:
            events = self._poll.poll(self._patience())
            for number, what in events:
                if number == self._listener:
                    if not what & select.POLLIN:
                        os._exit(0)  # the last process under the filter is gone
                    self._serve_one()
                elif number == self._control:
                    os._exit(0)
                else:
                    self._end_connect(number)
            if self._waiting:
                self._give_up_late_ones()
            elif not events and self._armed:
                signal.setitimer(signal.ITIMER_REAL, 0)  # before a rest without end
                self._armed = 0.0

    def _patience(self) -> int:
        """Milliseconds."""
        if self._waiting:
            self._arm()
            return 100
        return int(2000 * _REARM) if self._armed else -1

    def _arm(self) -> None:
        """The kernel's alarm ends this process wherever it is held up, without a line of ours being run."""
        now = time.monotonic()
        if now - self._armed > _REARM:
            signal.setitimer(signal.ITIMER_REAL, HELD_UP)
            self._armed = now

    def _serve_one(self) -> None:
        called = notify.receive(self._listener)
        if called is None:
            return
        self._arm()
        try:
            value = self._decide(called)
        except _Later:
            return
        finally:
            self._forget_memory()
        if isinstance(value, _Descriptor):
            self._hand_over(called, value, os.O_CLOEXEC)  # always: a worker executes nothing
        else:
            notify.answer(self._listener, called.id, value)

    def _decide(self, called: Notification) -> int:
        refusal = self._denials.by_filter(called) if self._denials is not None else None
        if refusal is not None:
            return self._refuse(called, refusal, "seccomp filter")
        answer = self._answers.get(called.number)
        if answer is None:
            return -errno.EPERM
        try:
            return answer(called)
        except OSError as fault:
            code = _shown(fault.errno or errno.EIO)
            return self._refuse(called, code, "broker" if isinstance(fault, Refused) else "file permissions")
        except (ValueError, OverflowError):
            return -errno.EINVAL

    def _refuse(self, called: Notification, code: int, layer: Refuser) -> int:
        """The answer of a call that fails. In development mode the monitor is told before the worker is."""
        if self._denials is not None and self._denials.is_one(code, layer):
            denied = self._denials.of(called, code, layer, self._text)
            if denied is not None:
                self._asking.send(encode(denied), socket.MSG_NOSIGNAL)
        if code == DEATH:
            raise _Later
        return -code

    def _text(self, called: Notification, address: int, length: int | None) -> str:
        """What a pointer leads to: a path, or with `length` a socket address. OSError where it cannot be known; the refusal
        is told all the same, be it that the caller was interrupted and has given up (before Linux 5.19)."""
        try:
            self._take_memory(called)
            if length is None:
                found = self._memory.text(address).decode("utf-8", "backslashreplace")
            else:
                found = spelled(parse_address(self._memory.read(address, longest(_signed(length)))))
            self._still_wanted(called)
        except _Later:
            raise InterruptedError from None
        return found

    def _hand_over(self, called: Notification, fd: int, flags: int) -> int | None:
        try:
            return notify.answer_with(self._listener, called.id, fd, flags)
        except OSError as fault:  # it may have no more descriptors
            notify.answer(self._listener, called.id, -(fault.errno or errno.EMFILE))
            return None
        finally:
            os.close(fd)

    def _take_memory(self, called: Notification, fd: int = -1) -> None:
        """The memory of the process that calls, where the worker is not one for its whole life; and which socket it
        names. Asked for after the call, and the call is looked at again after that: so it is the caller's."""
        if self._memory.fd >= 0:
            return
        self._asking.send(encode(Want(called.thread, fd)), socket.MSG_NOSIGNAL)
        data, descriptors, _, _ = socket.recv_fds(self._asking, 256, 1)
        if not data:
            os._exit(0)  # the monitor is gone
        given = decode_given(data)
        if not isinstance(given, Given):
            self._still_wanted(called)
            raise refused(errno.EPERM)  # it lives, and the monitor cannot look into it: it is not to wait for ever
        self._memory, self._inode = Memory(descriptors[0]), given.inode
        self._still_wanted(called)

    def _forget_memory(self) -> None:
        if self._several and self._memory.fd >= 0:
            os.close(self._memory.fd)
            self._memory = Memory(-1)

    def _meant(self, number: int) -> int:
        """Under what the sockets know the one that the call names: several processes have the same numbers."""
        return self._inode if self._several else _signed(number)

    # arguments ---------------------------------------------------------------------------------------------------

    def _path(self, called: Notification, dirfd: int, address: int) -> bytes:
        self._take_memory(called)
        path = self._memory.text(address)
        if not path.startswith(b"/") and _signed(dirfd) != _AT_FDCWD:
            raise refused(errno.ENOTDIR if path else errno.ENOENT)  # no descriptor of a directory is ever in a worker
        self._still_wanted(called)
        return path

    def _still_wanted(self, called: Notification) -> None:
        """What was read may be somebody else's by now, if the call has ended."""
        if not notify.still_waits(self._listener, called.id):
            raise _Later

    def _pin(self, called: Notification, dirfd: int, address: int, flags: int) -> int:
        path = self._path(called, dirfd, address)
        text = self._places.text(path)
        if text is not None:
            return os.dup(text)
        found = self._places.find(path)
        return found.tree.pin(found.name, os.O_NOFOLLOW if flags & paths.AT_SYMLINK_NOFOLLOW else 0)

    def _give(self, called: Notification, address: int, data: bytes) -> int:
        self._still_wanted(called)
        self._memory.write(address, data)
        return 0

    # opening -----------------------------------------------------------------------------------------------------

    def openat(self, called: Notification) -> int:
        dirfd, path, flags, mode = called.args[:4]
        return self._open(self._path(called, dirfd, path), flags, mode)

    def open(self, called: Notification) -> int:
        path, flags, mode = called.args[:3]
        return self._open(self._path(called, _AT_FDCWD, path), flags, mode)

    def creat(self, called: Notification) -> int:
        path, mode = called.args[:2]
        return self._open(self._path(called, _AT_FDCWD, path), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)

    def openat2(self, called: Notification) -> int:
        dirfd, path, how, size = called.args[:4]
        if size < 24:
            raise refused(errno.EINVAL)
        self._take_memory(called)
        data = self._memory.read(how, min(size, 64))
        flags, mode, resolve = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8, 16))
        if any(data[24:]) or size > 64:
            raise refused(errno.E2BIG)
        if resolve & ~(paths.NO_XDEV | paths.NO_MAGICLINKS | paths.NO_SYMLINKS):
            raise refused(errno.EINVAL)  # what is beneath, or in which root, is the broker's to say
        follow = os.O_NOFOLLOW if resolve & paths.NO_SYMLINKS else 0
        return self._open(self._path(called, dirfd, path), flags | follow, mode)

    def _open(self, path: bytes, flags: int, mode: int) -> int:
        text = self._places.text(path)
        if text is not None:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise refused(errno.EACCES)
            return _Descriptor(beneath.open_again(text, os.O_RDONLY))
        found = self._places.find(path)
        if found.above or flags & os.O_DIRECTORY or flags & os.O_PATH:
            raise refused(errno.EACCES)  # THREATS 1: a directory's descriptor, or one that only names
        return _Descriptor(found.tree.open(found.name, flags & 0xFFFFFFFF, mode & 0o777))

    # looking -----------------------------------------------------------------------------------------------------

    def newfstatat(self, called: Notification) -> int:
        dirfd, path, buffer, flags = called.args[:4]
        if flags & ~_STAT_FLAGS:
            raise refused(errno.EINVAL)
        return self._stat(called, dirfd, path, buffer, flags)

    def stat(self, called: Notification) -> int:
        return self._stat(called, _AT_FDCWD, called.args[0], called.args[1], 0)

    def lstat(self, called: Notification) -> int:
        return self._stat(called, _AT_FDCWD, called.args[0], called.args[1], paths.AT_SYMLINK_NOFOLLOW)

    def _stat(self, called: Notification, dirfd: int, path: int, buffer: int, flags: int) -> int:
        pinned = self._pin(called, dirfd, path, flags)
        try:
            data = paths.stat_bytes(pinned)
        finally:
            os.close(pinned)
        return self._give(called, buffer, data)

    def statx(self, called: Notification) -> int:
        dirfd, path, flags, mask, buffer = called.args[:5]
        if flags & ~(_STAT_FLAGS | paths.AT_STATX_SYNC):
            raise refused(errno.EINVAL)
        pinned = self._pin(called, dirfd, path, flags)
        try:
            data = paths.statx_bytes(pinned, flags, mask & 0xFFFFFFFF)
        finally:
            os.close(pinned)
        return self._give(called, buffer, data)

    def access(self, called: Notification) -> int:
        return self._access(called, _AT_FDCWD, called.args[0], called.args[1], 0)

    def faccessat(self, called: Notification) -> int:
        dirfd, path, mode = called.args[:3]
        return self._access(called, dirfd, path, mode, 0)

    def faccessat2(self, called: Notification) -> int:
        return self._access(called, *called.args[:4])

    def _access(self, called: Notification, dirfd: int, address: int, mode: int, flags: int) -> int:
        path = self._path(called, dirfd, address)
        if self._places.text(path) is not None:
            return -errno.EACCES if mode & 3 else 0
        found: Found = self._places.find(path)
        if mode & _W_OK and not found.tree.writable:
            return -errno.EACCES
        pinned = found.tree.pin(found.name, os.O_NOFOLLOW if flags & paths.AT_SYMLINK_NOFOLLOW else 0)
        try:
            paths.may_access(pinned, mode & 7, flags)
        finally:
            os.close(pinned)
        return 0

    def readlink(self, called: Notification) -> int:
        return self._readlink(called, _AT_FDCWD, *called.args[:3])

    def readlinkat(self, called: Notification) -> int:
        return self._readlink(called, *called.args[:4])

    def _readlink(self, called: Notification, dirfd: int, path: int, buffer: int, size: int) -> int:
        if not _signed(size) > 0:
            raise refused(errno.EINVAL)
        pinned = self._pin(called, dirfd, path, paths.AT_SYMLINK_NOFOLLOW)
        try:
            data = paths.read_link(pinned)[: min(size, _LONGEST_LINK)]
        except FileNotFoundError:
            raise refused(errno.EINVAL) from None  # so the kernel says "it is no link" of a descriptor
        finally:
            os.close(pinned)
        self._give(called, buffer, data)
        return len(data)

    # changing ----------------------------------------------------------------------------------------------------

    def mkdir(self, called: Notification) -> int:
        return self._mkdir(called, _AT_FDCWD, *called.args[:2])

    def mkdirat(self, called: Notification) -> int:
        return self._mkdir(called, *called.args[:3])

    def _mkdir(self, called: Notification, dirfd: int, path: int, mode: int) -> int:
        found = self._changed(called, dirfd, path)
        found.tree.make_directory(found.name, mode)
        return 0

    def unlink(self, called: Notification) -> int:
        return self._remove(called, _AT_FDCWD, called.args[0], 0)

    def rmdir(self, called: Notification) -> int:
        return self._remove(called, _AT_FDCWD, called.args[0], _AT_REMOVEDIR)

    def unlinkat(self, called: Notification) -> int:
        return self._remove(called, *called.args[:3])

    def _remove(self, called: Notification, dirfd: int, path: int, flags: int) -> int:
        if flags & ~_AT_REMOVEDIR:
            raise refused(errno.EINVAL)
        found = self._changed(called, dirfd, path)
        found.tree.remove(found.name, directory=bool(flags & _AT_REMOVEDIR))
        return 0

    def rename(self, called: Notification) -> int:
        return self._rename(called, _AT_FDCWD, called.args[0], _AT_FDCWD, called.args[1])

    def renameat(self, called: Notification) -> int:
        return self._rename(called, *called.args[:4])

    def renameat2(self, called: Notification) -> int:
        if called.args[4] & 0xFFFFFFFF:
            raise refused(errno.EINVAL)
        return self._rename(called, *called.args[:4])

    def _rename(self, called: Notification, dirfd: int, path: int, new_dirfd: int, new_path: int) -> int:
        found = self._changed(called, dirfd, path)
        new = self._changed(called, new_dirfd, new_path)
        found.tree.rename(found.name, new.tree, new.name)
        return 0

    def _changed(self, called: Notification, dirfd: int, address: int) -> Found:
        found = self._places.find(self._path(called, dirfd, address))
        if found.above:
            raise refused(errno.EACCES)
        return found

    # connections -------------------------------------------------------------------------------------------------

    def socket(self, called: Notification) -> int:
        family, kind, protocol = (_signed(each) for each in called.args[:3])
        made = self._sockets.make(family, kind, protocol)
        number = self._hand_over(called, os.dup(made.fileno()), os.O_CLOEXEC if kind & socket.SOCK_CLOEXEC else 0)
        if number is None:
            made.close()
        else:
            self._sockets.keep(os.fstat(made.fileno()).st_ino if self._several else number, made)
        raise _Later  # it has its answer

    def connect(self, called: Notification) -> int:
        number, address, size = called.args[:3]
        self._take_memory(called, _signed(number))
        data = self._memory.read(address, longest(_signed(size)))
        self._still_wanted(called)
        ended = self._sockets.connect(called.id, self._meant(number), data)
        if isinstance(ended, Waiting):
            fd = ended.made.fileno()
            self._waiting[fd] = ended
            self._poll.register(fd, select.POLLOUT)
            raise _Later
        return ended

    def bind(self, called: Notification) -> int:
        number, address, size = called.args[:3]
        self._take_memory(called, _signed(number))
        data = self._memory.read(address, longest(_signed(size)))
        self._still_wanted(called)
        return self._sockets.bind(self._meant(number), data)

    def listen(self, called: Notification) -> int:
        self._take_memory(called, _signed(called.args[0]))
        return self._sockets.listen(self._meant(called.args[0]), _signed(called.args[1]))

    def _end_connect(self, fd: int) -> None:
        self._poll.unregister(fd)
        waiting = self._waiting.pop(fd)
        notify.answer(self._listener, waiting.id, self._sockets.end_of(waiting))

    def _give_up_late_ones(self) -> None:
        now = time.monotonic()
        for fd, waiting in list(self._waiting.items()):
            if now > waiting.until or not notify.still_waits(self._listener, waiting.id):
                self._poll.unregister(fd)
                del self._waiting[fd]
                notify.answer(self._listener, waiting.id, self._sockets.give_up(waiting))


def _signed(value: int) -> int:
    """A C int out of a register."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _shown(code: int) -> int:
    """What a worker is told: that a path leads out is not told apart from one that it may not use."""
    return errno.EACCES if code in (errno.EXDEV, errno.EAGAIN) else code


_ANSWERS: Final = {
    name: getattr(Supervisor, name)
    for name in ("openat", "open", "creat", "openat2", "newfstatat", "stat", "lstat", "statx", "access", "faccessat",
                 "faccessat2", "readlink", "readlinkat", "mkdir", "mkdirat", "unlink", "rmdir", "unlinkat", "rename", "renameat",
                 "renameat2", "socket", "connect", "bind", "listen")
}  # fmt: skip
