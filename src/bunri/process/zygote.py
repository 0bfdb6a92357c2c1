"""Runs in: the base zygote (the monitor's rights, imports bunri only) and, forked from it, one role zygote per module.

The base is a fresh interpreter, so nothing of the monitor's memory is in it (DESIGN 3.4).
A role imports the user's module. As root it has given up root before that: it lives in a user namespace that does not
know uid 0, with the capabilities over that namespace only, which is what it needs to make templates. Where the policy
needs real capabilities, or the host has no user namespaces, it keeps its rights, and the monitor's report says so
(THREATS 7).

A role must have one thread and no new descriptor when the imports are done: a thread would be lost by the fork with
whatever lock it held, and a descriptor would be in every worker.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import select
import socket
import sys
import threading
import traceback
from importlib.machinery import SourceFileLoader
from types import FunctionType, ModuleType
from typing import NoReturn

from bunri.compartment import Compartment
from bunri.errors import UsageError
from bunri.kernel import clone, heap, ids, prctl, rlimit
from bunri.kernel import descriptors as fds
from bunri.process import here
from bunri.process.keeper import Keeper
from bunri.process.messages import Down, Failed, IdMap, MakeBroker, MakeRole, MakeTemplate, ModuleRef, RoleReady
from bunri.process.paths import MAIN_NAME
from bunri.process.template import Template
from bunri.process.worker import CHANNEL, keep_channel_free, loop_of
from bunri.service import Service
from bunri.wire import Contract, contract_of

# Codecs are imported at their first use, which in a worker without files would fail.
_CODECS = ("ascii", "latin-1", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp437",
           "idna", "punycode", "unicode_escape", "raw_unicode_escape", "hex", "base64")  # fmt: skip

_PINNED = 64 << 20  # bytes, of all templates of one user id (kernel/pinned.py)
_STACK = 2 << 20  # bytes, of each thread that a worker is granted, in place of 8 MiB: they count as its memory


def run_base(control_number: int) -> NoReturn:
    """Entry of the base zygote, called by `_boot`."""
    here.become_zygote()
    if control_number == CHANNEL:
        control_number = fds.duplicate_above(control_number, CHANNEL + 1)
    control = _adopt_socket(control_number)
    keep_channel_free()
    os.umask(0o077)
    threading.stack_size(_STACK)
    os.chdir("/")
    _empty_stdin()
    _may_pin()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _rehearse_if_early(control)
    heap.trim()
    _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    os.set_inheritable(descriptors[0], False)
    _Base(control, descriptors[0]).run()


def _adopt_socket(number: int) -> socket.socket:
    os.set_inheritable(number, False)
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=number)


def _rehearse_if_early(control: socket.socket) -> None:
    """While the monitor has not said its first word: a command starts this process ahead, and has enough to import itself."""
    poll = select.poll()
    poll.register(control, select.POLLIN)

    def has_time() -> bool:
        return not poll.poll(0)

    if has_time():
        from bunri.process.rehearsal import rehearse

        rehearse(has_time)


def _may_pin() -> None:
    """So that many templates may, not the first few. No worker keeps the limit: its own is none, or its monitor's."""
    _, most = rlimit.get("MEMLOCK")
    if most != rlimit.INFINITY and most < _PINNED:
        with contextlib.suppress(OSError):  # without CAP_SYS_RESOURCE it stays
            rlimit.set_("MEMLOCK", _PINNED, _PINNED)


def _empty_stdin() -> None:
    """Descriptor 0 of every worker: a pipe at its end, which names no file."""
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    os.close(writer)


class _Base(Keeper):
    """Forks role zygotes."""

    def handle(self, request: Down, descriptors: list[int]) -> None:
        if isinstance(request, MakeBroker):
            self._make_broker(request, descriptors)
            return
        if not isinstance(request, MakeRole):
            super().handle(request, descriptors)
            return
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_role(request, descriptors[0], theirs)
        theirs.close()
        os.close(descriptors[0])
        self.adopt(os.pidfd_open(pid), request.number)
        with ours:
            if request.ids is not None and ours.recv(1):
                try:
                    _write_maps(pid, request.ids)
                except OSError as fault:  # the role ends without them; other roles go on
                    print(f"a role zygote's user namespace could not be mapped: {fault}", file=sys.stderr)
                else:
                    ours.send(b"g")

    def _make_broker(self, request: MakeBroker, descriptors: list[int]) -> None:
        """Brokers are forked from here, not from a role: nobody's imports ran in this process."""
        from bunri.broker.born import be_broker  # not before one is wanted: every worker would carry it

        pid = os.fork()
        if pid == 0:
            self.control.close()
            for number in (*self.children, self.monitor):
                os.close(number)
            control, *handed = descriptors
            be_broker(_adopt_socket(control), request.charge, handed)
        for number in descriptors:
            os.close(number)
        self.adopt(os.pidfd_open(pid), request.number)

    def _become_role(self, request: MakeRole, control_number: int, base: socket.socket) -> NoReturn:
        self.control.close()
        for pidfd in self.children:
            os.close(pidfd)
        control = _adopt_socket(control_number)
        role = _Role(control, self.monitor)
        try:
            if request.ids is not None:
                _give_up_root(request.ids, base)
            base.close()
            role.prepare(request)
        except UsageError as fault:
            role.fail(Failed(str(fault), usage=True))
        except OSError as fault:
            role.fail(Failed(str(fault), step="role zygote", errno=fault.errno))
        role.run()


def _write_maps(pid: int, maps: IdMap) -> None:
    for name, ranges in (("uid_map", maps.uids), ("gid_map", maps.gids)):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write("".join(f"{first} {first} {count}\n" for first, count in ranges))


def _give_up_root(maps: IdMap, base: socket.socket) -> None:
    """Into a user namespace that does not know uid 0. End of the socket is a base that died: go no further."""
    clone.unshare(clone.CLONE_NEWUSER)
    base.send(b"u")
    if base.recv(1) != b"g":
        os._exit(1)
    ids.set_groups(())
    ids.set_gids(maps.uid, maps.uid, maps.uid)
    ids.set_uids(maps.uid, maps.uid, maps.uid)
    prctl.set_dumpable(1)  # the change of uid took it; its own /proc files would stay root's (proc(5))


class _Role(Keeper):
    """Imports one module and forks templates."""

    def __init__(self, control: socket.socket, monitor: int) -> None:
        super().__init__(control, monitor)
        self.module: ModuleType | None = None
        self.contracts: dict[str, Contract] = {}

    def fail(self, message: Failed) -> NoReturn:
        self.say(message)
        self.end()

    def prepare(self, request: MakeRole) -> None:
        """Import, check, warm up, freeze; then tell the monitor."""
        before = _descriptors()
        os.environ.clear()
        os.environ.update(request.environment)
        sys.path[:] = request.path
        try:
            self.module = _load(request.module)
            compartments = [_find(self.module, name) for name in request.compartments]
            for compartment in compartments:
                _warm(compartment)
        except UsageError:
            raise
        except (Exception, SystemExit) as fault:
            self.fail(_import_failure(request.module, fault))
        _refuse_implementations()
        self.contracts = {name: contract_of(c) for name, c in zip(request.compartments, compartments, strict=True)}
        for contract in self.contracts.values():
            loop_of(contract)  # loaded here: a template has no files
        _refuse_leftovers(before)
        for codec in _CODECS:
            "".encode(codec) if codec not in ("hex", "base64") else __import__(f"encodings.{codec}_codec")
        gc.collect()
        gc.freeze()
        heap.trim()
        fingerprints = tuple(self.contracts[name].fingerprint for name in request.compartments)
        self.say(RoleReady(os.getpid(), fingerprints))

    def handle(self, request: Down, descriptors: list[int]) -> None:
        if not isinstance(request, MakeTemplate):
            super().handle(request, descriptors)
            return
        pid = os.fork()
        if pid == 0:
            self.control.close()
            for pidfd in self.children:
                os.close(pidfd)
            control = _adopt_socket(descriptors[0])
            Template(control, self.monitor, request, self.compartments()).begin(descriptors[1:])
        for number in descriptors:
            os.close(number)
        self.adopt(os.pidfd_open(pid), request.number)

    def compartments(self) -> dict[str, tuple[type[Compartment], Contract]]:
        assert self.module is not None
        return {name: (_find(self.module, name), contract) for name, contract in self.contracts.items()}


def _load(ref: ModuleRef) -> ModuleType:
    if ref.file is None:
        return importlib.import_module(ref.name)
    # Its loader is named: by the ending of the name alone a script without .py, as commands are, would be nothing.
    loader = None if ref.file.endswith((".py", ".pyc", ".so")) else SourceFileLoader(ref.name, ref.file)
    spec = importlib.util.spec_from_file_location(ref.name, ref.file, loader=loader)
    if spec is None or spec.loader is None:
        raise UsageError(f"{ref.file} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[ref.name] = module
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, qualname: str) -> type[Compartment]:
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Compartment)):
        raise UsageError(
            f"{module.__name__}.{qualname} is no compartment when the module is imported afresh. "
            f"Define the class at the top level, not under a condition"
        )
    return found


def _warm(compartment: type[Compartment]) -> None:
    for name in compartment.preload:
        importlib.import_module(name)
    compartment.warm_up()


def _import_failure(ref: ModuleRef, fault: BaseException) -> Failed:
    what = f"{type(fault).__name__}: {fault}"
    trace = "".join(traceback.format_exception(fault))
    where = ref.file or ref.name
    return Failed(f"the zygote could not import and warm up {where}: {what}", usage=True, trace=trace)


def _refuse_implementations() -> None:
    """A worker's module must not bring the monitor's code along (API decision 4)."""
    todo: list[type[Service]] = list(Service.__subclasses__())
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if cls.__module__ == MAIN_NAME or cls.__module__.split(".")[0] == "bunri" or not _implements(cls):
            continue
        raise UsageError(
            f"importing a compartment's module also loads {cls.__module__}, which implements the service {cls.__qualname__}: "
            f"the monitor's code has no place in a worker. Keep the interface in a module of its own (messages.py) and import only that"
        )


def _implements(cls: type[Service]) -> bool:
    """Whether a service class has code, and is not only an interface."""
    functions = [value for value in vars(cls).values() if isinstance(value, FunctionType)]
    return any(not getattr(f, "__isabstractmethod__", False) and _has_code(f) for f in functions)


def _has_code(function: FunctionType) -> bool:
    """False for a body of `...`, `pass` or a docstring."""
    code = function.__code__
    return bool(code.co_names) or not set(code.co_consts) <= {None, function.__doc__, ...}


def _descriptors() -> set[int]:
    numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    return {number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")}


def _refuse_leftovers(before: set[int]) -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        names = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
        raise UsageError(
            f"importing or warming up left a thread running ({', '.join(names) or 'of a C library'}): a fork would lose it with its locks. "
            f"Start threads in a method of the compartment"
        )
    new = sorted(_descriptors() - before)
    if new:
        named = ", ".join(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}" for number in new)
        raise UsageError(
            f"importing or warming up left descriptors open ({named}): every worker would have them. Close them"
        )
