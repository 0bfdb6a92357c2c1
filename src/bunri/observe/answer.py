"""Runs in: the process that asks, with its user's rights. Yes or no to a question, and the layer that decides.

The layers are asked in the order in which the kernel comes to them: the filter sees a call first, then the root, the
mount and the file's own permissions, then Landlock. The first that refuses is named. For the filter the instructions of
the plan are run, those that the kernel gets, and the rule is the one they were compiled from.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from bunri.errors import UsageError
from bunri.observe.question import Access, Connect, Listen, OpenPath, Question, SystemCall, UnixSocket
from bunri.observe.root import Ids, Place, Root, Where
from bunri.observe.subject import Subject
from bunri.plan import places
from bunri.plan.steps import Filter, Landlock, SetIds, StrictMode, Unshare
from bunri.policy import NetKind
from bunri.policy.words import Capability
from bunri.process.identity import resolve
from bunri.seccomp import Action, Kind, syscalls_of

AT_FDCWD = -100
_POINTER = 0x7F0000001000  # some address: a filter sees no more of a path than that
_CLOEXEC = os.O_CLOEXEC
_AF_UNIX, _AF_INET, _AF_INET6, _STREAM = 1, 2, 10, 1 | os.O_CLOEXEC
# seccomp(2): of several filters, the action that comes first here.
_STRICTEST = (Kind.KILL, Kind.KILL_THREAD, Kind.TRAP, Kind.ERRNO, Kind.NOTIFY, Kind.TRACE, Kind.LOG, Kind.ALLOW)
_MODE_1 = frozenset({"read", "write", "exit", "rt_sigreturn"})
_FLAGS = {Access.READ: os.O_RDONLY, Access.WRITE: os.O_WRONLY, Access.CREATE: os.O_WRONLY | os.O_CREAT | os.O_EXCL}


class Verdict(Enum):
    """The answer."""

    YES = "yes"
    NO = "no"
    DEATH = "killed"  # no, and the process dies for it


@dataclass(frozen=True)
class Answer:
    """`layer`: what decides, as the report names it. `error`: the errno that the worker gets, where it is known."""

    question: str
    verdict: Verdict
    layer: str
    why: tuple[str, ...]
    error: str = ""

    def __str__(self) -> str:
        error = f" ({self.error})" if self.error else ""
        head = f"{self.question}: {self.verdict.value}{error}, decided by: {self.layer}"
        return "\n".join([head, *(f"  {line}" for line in self.why)])


def answer(subject: Subject, question: Question, *, reads_files: bool = True) -> Answer:
    """Whether a process under the subject's plan can. `reads_files`: the plan is for this host, whose files are asked.

    HostError where the host cannot keep the policy: then nothing is started, and there is no answer.
    """
    return _Asked(subject, question, reads_files).answer()


class _Asked:
    def __init__(self, subject: Subject, question: Question, reads_files: bool) -> None:
        self.subject = subject
        self.question = question
        self.reads_files = reads_files
        self.steps = (*subject.plan.template, *subject.plan.worker)
        self.root = Root(subject.plan, reads_files=reads_files)

    def answer(self) -> Answer:
        question = self.question
        if isinstance(question, SystemCall):
            if question.name not in _numbers(self.subject.host.arch):
                raise UsageError(f"{self.subject.host.arch} has no system call {question.name!r}")
            return self._by_filter(question.name, question.args) or self._yes(
                "filter", self._rule(question.name, question.args)
            )
        if isinstance(question, OpenPath):
            return self._open(question)
        return self._network(question)

    # the filter ----------------------------------------------------------------------------------------------------

    def _decide(self, call: str, args: tuple[int, ...]) -> Action:
        if any(isinstance(step, StrictMode) for step in self.steps):
            return Action.ALLOW if call in _MODE_1 else Action.KILL
        arch = self.subject.host.arch
        if call not in _numbers(arch):
            return Action.errno(errno.ENOSYS)
        found = [program.decide(arch, call, args) for program in self.subject.filters]
        return min(found, key=lambda action: _STRICTEST.index(action.kind), default=Action.ALLOW)

    def _rule(self, call: str, args: tuple[int, ...]) -> tuple[str, ...]:
        if any(isinstance(step, StrictMode) for step in self.steps):
            return ("seccomp mode 1: read, write, exit and sigreturn are all there is",)
        if not any(isinstance(step, Filter) for step in self.steps):
            return ("there is no filter here",)
        return tuple(line.strip() for line in self.subject.filter.explain(call, args).splitlines()[1:])

    def _by_filter(self, call: str, args: tuple[int, ...], layer: str = "filter") -> Answer | None:
        """The refusal of the filter, or None where it lets the call through."""
        action = self._decide(call, args)
        if action.kind in (Kind.ALLOW, Kind.LOG):
            return None
        why = (f"the call would be {_shown(call, args)}", *self._rule(call, args))
        if action.kind in (Kind.KILL, Kind.KILL_THREAD, Kind.TRAP):
            return Answer(str(self.question), Verdict.DEATH, layer, why, "SIGSYS")
        error = errno.errorcode.get(action.data, str(action.data)) if action.kind is Kind.ERRNO else "EPERM"
        return Answer(str(self.question), Verdict.NO, layer, why, error)

    # paths ---------------------------------------------------------------------------------------------------------

    def _open(self, question: OpenPath) -> Answer:
        if question.access is Access.EXECUTE:
            refused = self._by_filter("execve", (_POINTER, _POINTER, _POINTER))
        else:
            flags = _FLAGS[question.access] | _CLOEXEC
            refused = self._by_filter("openat", (AT_FDCWD, _POINTER, flags, 0o600))
        if refused is not None:
            return refused
        place, target = self._aim(question)
        checks: Iterable[Callable[[Place, Place, Access], Answer | None]] = (
            self._there, self._mount, self._permissions, self._landlock,
        )  # fmt: skip
        for check in checks:
            found = check(place, target, question.access)
            if found is not None:
                return found
        granted = self._grant(target.path)
        return self._yes(*(("grant", (granted,)) if granted else ("the root", ("it is a folder on the way",))))

    def _aim(self, question: OpenPath) -> tuple[Place, Place]:
        """What the path leads to, and the folder or file whose rights decide: of something new, its folder."""
        if question.access is Access.CREATE:
            folder = self.root.find(os.path.dirname(question.path))
            return Place(Where.MISSING, question.path), folder
        place = self.root.find(question.path)
        return place, place

    def _there(self, place: Place, target: Place, access: Access) -> Answer | None:
        name = os.path.join(target.path, os.path.basename(place.path))
        if access is Access.CREATE and target.where is not Where.MISSING and self.root.has(name):
            return self._no("the root", "EEXIST", "it is there already; ask for write")
        if target.where is Where.MISSING:
            own = "nothing is there in the worker's root" if self.root.is_own else "nothing is there"
            return self._no("mount namespace" if self.root.is_own else "the file system", "ENOENT", own)
        if access is Access.CREATE and self.reads_files and target.real and not os.path.isdir(target.real):
            return self._no("the file system", "ENOTDIR", f"{target.path} is no folder")
        return self._kind(target, access)

    def _kind(self, target: Place, access: Access) -> Answer | None:
        """What an open() of that kind of file says, whoever asks."""
        if target.where is Where.FOLDER or target.where is Where.SCRATCH:
            is_folder = True
        elif self.reads_files and target.real:
            mode = os.stat(target.real).st_mode
            is_folder = stat.S_ISDIR(mode)
            if stat.S_ISSOCK(mode) and access is not Access.CREATE:
                return self._no("the file system", "ENXIO", "a socket is not opened")
            device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
            if device and self.root.is_own and target.mount is not None and target.mount.kind != "device":
                return self._no("mount namespace", "EACCES", "device files are dead in a granted folder (nodev)")
        else:
            is_folder = False
        if is_folder and access is Access.WRITE:
            return self._no("the file system", "EISDIR", "a folder is not opened for writing")
        if is_folder and access is Access.EXECUTE:
            return self._no("the file system", "EACCES", "a folder is not a program")
        return None

    def _mount(self, place: Place, target: Place, access: Access) -> Answer | None:
        if not self.root.is_own:
            return None
        writes = access in (Access.WRITE, Access.CREATE)
        if target.where is Where.FOLDER:
            return self._no("mount namespace", "EROFS", "the root itself is read-only") if writes else None
        mount = target.mount
        assert mount is not None
        if writes and not mount.writable and mount.kind != "tmpfs":
            return self._no("mount namespace", "EROFS", f"what is granted at {mount.at} is mounted read-only")
        if access is Access.EXECUTE and not mount.executable:
            return self._no("mount namespace", "EACCES", f"what is granted at {mount.at} is mounted noexec")
        return None

    def _permissions(self, place: Place, target: Place, access: Access) -> Answer | None:
        """The file's own bits, for the ids that the worker will have."""
        if not self.reads_files or target.where is not Where.BOUND:
            return None
        keeps = self.subject.means.policy.capabilities
        if Capability.DAC_OVERRIDE in keeps:
            return None
        ids = self.ids
        closed = ids.may_search(target.through)
        if closed is None and access is Access.CREATE:
            closed = ids.may_search((target.real,))
        if closed is not None:
            return self._no("the file's permissions", "EACCES", f"{self._who()} may not search {closed}")
        wanted = {Access.READ: 4, Access.WRITE: 2, Access.CREATE: 2, Access.EXECUTE: 1}[access]
        if ids.may(os.stat(target.real), wanted):
            return None
        return self._no("the file's permissions", "EACCES", f"{self._who()} may not {access.value} {target.real}")

    @property
    def ids(self) -> Ids:
        means = self.subject.means
        numbers = resolve(means.policy.user, None) if self.subject.host.is_root else None
        if any(isinstance(step, SetIds) for step in self.steps):
            if numbers is None:  # a dynamic uid owns nothing
                return Ids(None, frozenset())
            return Ids(numbers.uid, frozenset({numbers.gid, *numbers.groups}))
        host = self.subject.host
        return Ids(host.uid, frozenset({host.gid, *host.groups}))

    def _who(self) -> str:
        uid = self.ids.uid
        return "the worker's own uid" if uid is None else f"uid {uid}"

    def _landlock(self, place: Place, target: Place, access: Access) -> Answer | None:
        wanted = self._rights(target, access)
        for step in self.steps:
            if not isinstance(step, Landlock) or not step.handled_fs & wanted:
                continue
            given = 0
            for path, rights in step.paths:
                if target.path == path or target.path.startswith(path.rstrip("/") + "/"):
                    given |= rights
            if wanted & step.handled_fs & ~given:
                return self._no("Landlock files", "EACCES", f"no grant gives that right to {target.path}")
        return None

    def _rights(self, target: Place, access: Access) -> int:
        folder = target.where in (Where.FOLDER, Where.SCRATCH) or (
            self.reads_files and bool(target.real) and os.path.isdir(target.real)
        )
        return {
            Access.READ: places.READ_DIR if folder else places.READ_FILE,
            Access.WRITE: places.WRITE_FILE,
            Access.CREATE: places.MAKE_REG | places.WRITE_FILE,
            Access.EXECUTE: places.EXECUTE | places.READ_FILE,
        }[access]

    def _grant(self, path: str) -> str:
        """The grant that covers a path, spelled as in the policy."""
        best = ""
        for grant in self.subject.means.policy.files:
            if grant.at and (path == grant.at or path.startswith(grant.at.rstrip("/") + "/")):
                best = repr(grant)
        if not best:
            bundles = [g for g in self.subject.means.policy.files if not g.at]
            best = repr(bundles[0]) if bundles else ""
        return best

    # network -------------------------------------------------------------------------------------------------------

    def _network(self, question: Connect | Listen | UnixSocket) -> Answer:
        granted = self._brokered(question)
        if granted is not None:
            return granted
        family = _AF_UNIX if isinstance(question, UnixSocket) else _family(question)
        second = "bind" if isinstance(question, Listen) else "connect"
        for call, args in (("socket", (family, _STREAM, 0)), (second, (3, _POINTER, 16))):
            refused = self._by_filter(call, args, "filter on sockets")
            if refused is not None:
                return refused
        if isinstance(question, UnixSocket):
            return self._open(OpenPath(question.path, Access.WRITE))
        return self._by_namespace(question)

    def _brokered(self, question: Connect | Listen | UnixSocket) -> Answer | None:
        for grant in self.subject.means.policy.network:
            fits = (
                (grant.kind is NetKind.CONNECT and isinstance(question, Connect)
                 and (grant.host, grant.port) == (question.host, question.port))
                or (grant.kind is NetKind.LISTEN and isinstance(question, Listen) and grant.port == question.port)
                or (grant.kind is NetKind.UNIX and isinstance(question, UnixSocket) and grant.path == question.path)
            )  # fmt: skip
            if fits:
                return self._yes("broker", (repr(grant),))
        return None

    def _by_namespace(self, question: Connect | Listen) -> Answer:
        made = {name for step in self.steps if isinstance(step, Unshare) for name in step.namespaces}
        if "net" in made or "net" in self.subject.plan.clone.namespaces:
            return self._no("network namespace", "ENETUNREACH", "the worker's network is empty")
        ports = places.CONNECT_TCP if isinstance(question, Connect) else places.BIND_TCP
        if any(isinstance(step, Landlock) and step.handled_net & ports for step in self.steps):
            return self._no("Landlock TCP", "EACCES", "no port is granted")
        if self.subject.means.host_network:
            return self._yes("grant", ("net.dangerous_host()",))
        return self._yes("nothing", ("no layer here stands against it",))

    # words ---------------------------------------------------------------------------------------------------------

    def _yes(self, layer: str, why: tuple[str, ...]) -> Answer:
        return Answer(str(self.question), Verdict.YES, layer, why)

    def _no(self, layer: str, error: str, why: str) -> Answer:
        return Answer(str(self.question), Verdict.NO, layer, (why,), error)


def _family(question: Connect | Listen) -> int:
    return _AF_INET6 if isinstance(question, Connect) and ":" in question.host else _AF_INET


def _numbers(arch: str) -> frozenset[str]:
    return frozenset(syscalls_of(arch))


def _shown(call: str, args: tuple[int, ...]) -> str:
    return f"{call}({', '.join('...' if arg == _POINTER else str(arg) for arg in args)})"
