"""Runs in: the monitor. All that one program has of zygotes: a base, a role per module, a template per policy.

A monitor has one `Program`, made at the first start. A forked child of the monitor has none: what it inherited is not
its own, and it makes a new one when it starts a worker itself.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence

from bunri import early
from bunri.broker.messages import Charge, Word
from bunri.compartment import Compartment, defined_in
from bunri.confine import detect
from bunri.errors import HostError, UsageError
from bunri.kernel import rlimit, sockets
from bunri.plan import ONE_THREAD
from bunri.plan.host import FEWEST_DESCRIPTORS, Host, UserNamespaces
from bunri.policy import Policy, User, UserKind
from bunri.process import here, paths
from bunri.process.brokers import BrokerProcess
from bunri.process.groups import MemoryGroups
from bunri.process.messages import Ended, IdMap, MakeBroker, MakeRole, Message, RoleReady
from bunri.process.output import Output
from bunri.process.refusals import no_room_means
from bunri.process.supervisor import Supervisor
from bunri.process.templates import TemplateHandle, seen_at
from bunri.process.users import Blocks, DynamicUsers
from bunri.process.zygotes import Zygote, died
from bunri.wire import contract_of

log = logging.getLogger("bunri")

DEATHS = 5  # by signal, within WITHIN seconds: then the class's zygotes are executed afresh (THREATS 8)
WITHIN = 60.0
LONGEST_BACK_OFF = 32.0  # seconds
MOST_FRESH_STARTS = 10
MOST_TEMPLATES = 16  # of one module, beside those in use; more are ended when they have been idle for
KEPT = 10.0  # seconds


def allowed_environment() -> dict[str, str]:
    """What a worker sees of the monitor's environment: language and time zone (DESIGN 3.4)."""
    return {**early.kept_environment(), **ONE_THREAD}


class Program:
    """The zygotes of this process."""

    def __init__(self) -> None:
        self.host: Host = detect()
        self.supervisor = Supervisor()
        self.users = DynamicUsers(self.host.mapped_uids) if self.host.is_root else None
        self.groups = MemoryGroups() if self.host.memory_groups else None
        self.lock = threading.RLock()
        self.names: dict[str, tuple[str, ...]] = {}  # of granted hosts, looked up once
        self._roles: dict[str, Role] = {}
        self._bases: list[Base] = []
        self._deaths: dict[str, deque[float]] = {}
        self._last_death: dict[str, float] = {}
        self._back_off: dict[str, int] = {}
        self.environment = allowed_environment()
        self.tells_denials = (
            here.in_development_mode()
        )  # what workers are refused (`python -X dev`, `bunri run --explain`)
        self.pid = os.getpid()

    def role_for(self, cls: type[Compartment], policy: Policy | None = None) -> Role:
        """The role zygote of the module that defines the class; asked for, perhaps not there yet. Where `policy` needs
        root's rights and the class does not say so, it is another one than that of all other policies."""
        rooted = self.users is not None and policy is not None and _needs_root(policy)
        key = f"{cls.__module__} as root" if rooted and not _needs_root(cls.policy) else cls.__module__
        with self.lock:
            role = self._roles.get(key)
            if role is not None and self.users is not None and role.uids and not self.users.has_free(role.uids):
                role.retire()  # its workers go on; the next ones need uids that its user namespace does not know
                role = None
            if role is None or role.ended or role.failure is not None or cls.__qualname__ not in role.names:
                role = self._roles[key] = self._make_role(cls, key, rooted or "")
            return role

    def _make_role(self, cls: type[Compartment], key: str, rooted: str) -> Role:
        ref = paths.module_of(cls.__module__, cls.__qualname__)
        compartments = {n: c for n, c in defined_in(cls.__module__).items() if "<locals>" not in n}
        search = paths.search_path()
        if self.host.is_root:
            paths.refuse_writable_by_others(tuple(dict.fromkeys((*search, *early.own_path()))))
        base = self._base()
        role = Role(self, base, key, cls.__module__, tuple(compartments))
        blocks = self.users.blocks() if self.users is not None else ()
        ids, why = self._ids_of(list(compartments.values()), search, blocks, rooted)
        role.rights = why
        role.mapped = ids is not None
        if ids is not None and set(blocks) <= set(ids.uids):  # else it knows all ids there are
            role.uids = blocks
        base.make(role, MakeRole(0, ref, search, tuple(compartments), allowed_environment(), ids))
        return role

    def make_broker(self, broker: BrokerProcess, charge: Charge, handed: Sequence[int] = ()) -> None:
        """Ask the base zygote for a broker's process. The descriptors stay the caller's."""
        with self.lock:
            self._base().make_broker(broker, charge, handed)

    def _base(self) -> Base:
        if self._bases and not self._bases[-1].ended:
            return self._bases[-1]
        base = Base(self)
        self._bases.append(base)
        return base

    def _ids_of(
        self, compartments: list[type[Compartment]], search: tuple[str, ...], blocks: Blocks, rooted: str
    ) -> tuple[IdMap | None, str]:
        """The user namespace of a root-started role, or why it keeps its rights."""
        if self.users is None:
            return None, ""
        if self.host.user_namespaces is not UserNamespaces.FULL:
            return None, "the role zygote keeps root's rights: this host has no usable user namespaces"
        if rooted:
            return None, f"the role zygote keeps root's rights: the policy {rooted}"
        if not paths.readable_by_everyone((*search, *early.own_path())):
            return None, "the role zygote keeps root's rights: only root can read the folders on sys.path"
        uids: dict[int, int] = dict(blocks)
        gids = dict(uids)
        for cls in compartments:
            reason = _needs_root(cls.policy)
            if reason:
                return None, f"the role zygote keeps root's rights: {cls.__qualname__} {reason}"
            _add_users(cls.policy, uids, gids)
        uid, known = self.users.take(blocks), self.host.mapped_uids
        return IdMap(_within(uids, known), _within(gids, known), uid), ""

    # deaths --------------------------------------------------------------------------------------------------------

    def note_death(self, role: Role) -> None:
        """A worker died by a signal that nobody here sent. Many such deaths are somebody's experiments on one memory
        layout; those of a layout from which nothing is started any more tell nobody anything of the next."""
        module, now = role.module, time.monotonic()
        with self.lock:
            current = self._roles.get(role.key)
            if role.base is not (current.base if current is not None else self._bases[-1]):
                return
            deaths = self._deaths.setdefault(module, deque(maxlen=DEATHS))
            deaths.append(now)
            self._last_death[module] = now
            if len(deaths) < DEATHS or now - deaths[0] > WITHIN:
                return
            deaths.clear()
            self._back_off[module] = self._back_off.get(module, 0) + 1
            worn_out = [each for each in self._roles.values() if each.module == module]
            for each in worn_out:
                del self._roles[each.key]
            self._bases.append(Base(self))
        log.warning(
            "%d workers of %s died by signals within %.0f s: its zygotes are executed afresh, and starts are held back",
            DEATHS,
            module,
            WITHIN,
        )
        for each in worn_out:
            each.retire()

    def held_back(self, module: str) -> float:
        """Seconds that the next start of the module's classes has to wait. HostError when there were too many deaths.

        A minute without a death by signal, and all is forgotten."""
        with self.lock:
            count = self._back_off.get(module, 0)
            if count and time.monotonic() - self._last_death[module] > WITHIN:
                del self._back_off[module]
                return 0.0
        if count > MOST_FRESH_STARTS:
            raise HostError(
                f"workers of {module} died by signals {count * DEATHS} times, in {count} fresh layouts: no more are started for now",
                layer="zygote",
                remedy=f"Look at what they were fed; starts are allowed again after {WITHIN:.0f} quiet seconds",
            )
        return min(0.05 * 2**count, LONGEST_BACK_OFF) if count else 0.0

    def forgive(self) -> None:
        """Forget the deaths so far. For an operator who knows what they were, and for tests."""
        with self.lock:
            self._deaths.clear()
            self._back_off.clear()

    # the end -------------------------------------------------------------------------------------------------------

    def forget(self, role: Role) -> None:
        with self.lock:
            if self._roles.get(role.key) is role:
                del self._roles[role.key]

    def close(self) -> None:
        """End every zygote and worker, and the supervisor."""
        with self.lock:
            for base in self._bases:
                base.drop()
            for role in list(self._roles.values()):
                role.drop()
            self._roles.clear()
        for base in self._bases:
            base.wait()
        self.supervisor.stop()
        if self.users is not None:
            self.users.close()

    def templates(self) -> list[TemplateHandle]:
        """Those that may be asked for workers."""
        return [template for role in self._roles.values() for template in role.templates.values()]

    def close_in_child(self) -> None:
        """In a forked child: let go of what is the parent's, without a word to anybody."""
        self.supervisor.close_descriptors()
        for base in self._bases:
            base.close_sockets()
        for role in self._roles.values():
            role.close_sockets()
            for template in role.templates.values():
                template.close_sockets()
                for worker in list(template.workers.values()):
                    worker.close_in_child()
        for base in self._bases:
            base.let_go_in_child()
        if self.users is not None:
            self.users.close()


class Base(Zygote):
    """The base zygote: a fresh interpreter."""

    def __init__(self, program: Program) -> None:
        if not sys.executable:
            raise UsageError(
                "sys.executable is empty, so bunri cannot start a fresh interpreter. Set it to the path of python"
            )
        host = program.host
        monitor = os.pidfd_open(os.getpid())
        try:
            started = early.zygote(own_namespace=not host.is_root and host.user_namespaces is UserNamespaces.FULL)
            super().__init__(program, "the base zygote", (started.control, started.theirs))
            self._process = started.process
            os.set_blocking(started.output, False)
            self._output = Output(started.output, logging.getLogger("bunri.zygote"), "", program.supervisor.remove)
            program.supervisor.add(started.output, self._output.drain)
            self.handed_over()
            sockets.send(self._control, b"m", [monitor])
        finally:
            os.close(monitor)
        self._made: dict[int, Role | BrokerProcess] = {}
        self._number = 0

    def make_broker(self, broker: BrokerProcess, charge: Charge, handed: Sequence[int] = ()) -> None:
        """Ask for a broker's process."""
        self._number += 1
        self._made[self._number] = broker
        self.say(MakeBroker(self._number, charge), [broker.hand_over(), *handed])
        broker.handed_over()

    def make(self, role: Role, request: MakeRole) -> None:
        """Ask for a role zygote."""
        self._number += 1
        role.number = self._number
        self._made[role.number] = role
        numbered = MakeRole(
            role.number, request.module, request.path, request.compartments, request.environment, request.ids
        )
        self.say(numbered, [role.hand_over()])
        role.handed_over()

    def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
        if isinstance(message, Ended):
            made = self._made.pop(message.number, None)
            if made is not None:
                made.hear()
                made.end()
                _reaped(made)
        return False

    def on_end(self) -> None:
        for made in list(self._made.values()):
            made.fail(self.failure or died(self.what))
            made.hear()
            made.end()
            _reaped(made)
        self._made.clear()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def close_sockets(self) -> None:
        super().close_sockets()
        for made in self._made.values():
            made.close_sockets()

    def wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def let_go_in_child(self) -> None:
        """In a forked child: it is the parent's child, and nothing of this process's."""
        self._output.close_in_child()
        self._process.returncode = 0


class Role(Zygote):
    """The zygote of one module."""

    def __init__(self, program: Program, base: Base, key: str, module: str, names: tuple[str, ...]) -> None:
        super().__init__(program, f"the zygote of {module}")
        self.base = base
        self.key = key
        self.module = module
        self.names = names
        self.number = 0
        self.pid = 0
        self.rights = ""  # why it kept root's, for the reports
        self.mapped = False  # it lives in a user namespace of its own making
        self.uids: Blocks = ()  # the dynamic ones that it knows
        self.ready = threading.Event()
        self.templates: dict[tuple[type[Compartment], Policy], TemplateHandle] = {}
        self._all: dict[int, TemplateHandle] = {}
        self._replaced: list[TemplateHandle] = []
        self._templates = 0
        self._retired = False

    def template_for(self, cls: type[Compartment], policy: Policy) -> TemplateHandle:
        """The template of a class's policy; asked for, perhaps not there yet. UsageError, HostError from planning."""
        key = (cls, policy)
        places = seen_at(policy)
        with self.program.lock:
            template = self.templates.get(key)
            if template is not None and not template.ended and template.failure is None:
                if template.places == places:
                    template.used = time.monotonic()
                    return template
                self._replace(key, template)
            self._end_old()
            self._templates += 1
            template = TemplateHandle(self.program, self, self._templates, cls, policy, places)
            self.templates[key] = template
            self._all[template.number] = template
            try:
                template.ask()
            except BaseException:  # never asked for: nobody would ever answer those who wait for it
                self.forget_template(template)
                template.close_sockets()
                raise
            return template

    def _replace(self, key: tuple[type[Compartment], Policy], template: TemplateHandle) -> None:
        """What it binds is no longer what stands at the granted paths. Its workers go on; it makes no more."""
        del self.templates[key]
        template.spares.close()
        self._replaced.append(template)

    def _end_old(self) -> None:
        """Programs whose every start has a policy of its own would have a template for each, for ever."""
        for template in [t for t in self._replaced if not t.workers]:
            self._replaced.remove(template)
            self.forget_template(template)
            template.drop()
        long_ago = time.monotonic() - KEPT
        idle = [t for t in self.templates.values() if not t.workers and t.used < long_ago]
        for template in sorted(idle, key=lambda t: t.used)[: max(0, len(self.templates) - MOST_TEMPLATES)]:
            self.forget_template(template)
            template.drop()

    def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
        if isinstance(message, RoleReady):
            self.pid = message.pid
            self._compare(message.fingerprints)
            self.ready.set()
        elif isinstance(message, Ended):
            template = self._all.pop(message.number, None)
            if template is not None:
                template.hear()
                template.end()
        return False

    def _compare(self, fingerprints: tuple[int, ...]) -> None:
        classes = defined_in(self.module)
        for name, theirs in zip(self.names, fingerprints, strict=True):
            if contract_of(classes[name]).fingerprint != theirs:
                self.fail(
                    UsageError(
                        f"{name} is another class in the zygote than here: its module changed on disk since it was imported. Restart the program"
                    )
                )
                self.end()
                return

    def retire(self) -> None:
        """No new workers; it goes when its last one has."""
        self._retired = True
        for template in list(self._all.values()):
            template.spares.close()
        self.end_if_idle()

    def end_if_idle(self) -> None:
        if self._retired and not any(template.workers for template in self._all.values()):
            self.drop()

    def forget_template(self, template: TemplateHandle) -> None:
        with self.program.lock:
            self._all.pop(template.number, None)
            for key in [k for k, t in self.templates.items() if t is template]:
                del self.templates[key]

    def on_end(self) -> None:
        self.ready.set()
        cause = self.failure or self.base.failure or died(self.what)
        for template in list(self._all.values()):
            template.hear()
            template.fail(cause)
            template.end()
        self.program.forget(self)


def _reaped(made: Role | BrokerProcess) -> None:
    if isinstance(made, BrokerProcess):
        made.on_reaped()


def _needs_root(policy: Policy) -> str:
    if policy.capabilities:
        return "is granted capabilities of the host"
    user = policy.user
    if (
        getattr(user, "kind", None) is UserKind.SAME
        or getattr(user, "uid", None) == 0
        or getattr(user, "name", None) == "root"
    ):
        return "runs as root's user"
    return ""


def _add_users(policy: Policy, uids: dict[int, int], gids: dict[int, int]) -> None:
    """The ids that the policy names, or, where they are a hole, all but root's."""
    from bunri.process.identity import resolve

    if not hasattr(policy.user, "kind"):
        uids.clear()
        gids.clear()
        uids[1] = gids[1] = 0xFFFFFFFE
        return
    if 1 in uids:
        return
    assert isinstance(policy.user, User)
    ids = resolve(policy.user, None)
    if ids is None:
        return
    uids.setdefault(ids.uid, 1)
    for gid in (ids.gid, *ids.groups):
        if gid:
            gids.setdefault(gid, 1)


def _within(ids: dict[int, int], known: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The ranges, as far as our own user namespace knows them: a map of others is refused whole."""
    found: list[tuple[int, int]] = []
    for first, count in sorted(ids.items()):
        for start, size in known:
            low, high = max(first, start), min(first + count, start + size)
            if low < high:
                found.append((low, high - low))
    return tuple(found)


_current: Program | None = None
_making = threading.Lock()


def current() -> Program:
    """This process's Program, made at the first use. UsageError in a zygote or a worker."""
    global _current
    if here.kind() is not here.Kind.MONITOR:
        raise here.started_in_vain()
    with _making:
        if _current is None:
            _refuse_few_descriptors()
            with no_room_means("bunri's own thread has no room for what it waits with"):
                _current = Program()
            atexit.register(close)
        return _current


def _refuse_few_descriptors() -> None:
    """Before anything is started. The zygotes inherit the limit, and some of theirs have fixed numbers."""
    soft, _ = rlimit.get("NOFILE")
    if 0 <= soft < FEWEST_DESCRIPTORS:
        raise HostError(
            f"this program may have {soft} descriptors, and each of its zygotes needs {FEWEST_DESCRIPTORS}",
            layer="descriptors",
            remedy="Raise RLIMIT_NOFILE, as with ulimit -n 4096",
        )


def close() -> None:
    """End all zygotes and workers of this process."""
    global _current
    with _making:
        program, _current = _current, None
    if program is not None and program.pid == os.getpid():
        program.close()


def _in_forked_child() -> None:
    global _current, _making
    _making = threading.Lock()
    program, _current = _current, None
    if program is not None:
        program.close_in_child()


def take_user_for_life() -> tuple[int, int]:
    """A dynamic uid for a process that confines itself, and the descriptor whose lock reserves it."""
    users = DynamicUsers(detect().mapped_uids)
    return users.take_for_life()


os.register_at_fork(after_in_child=_in_forked_child)
