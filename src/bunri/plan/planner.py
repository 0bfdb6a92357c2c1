"""Runs in: the monitor; pure. From a policy, a host and a signature's needs to ordered steps.

The order is the design (research: entry from a zygote, start path), and each place in it has a reason:

- What needs /proc (oom_score_adj) comes before the new root takes /proc away.
- Landlock's path rules come after the last mount: in such a domain every mount(2) is refused. So a worker with a
  scratch of its own, or a user namespace to be mapped, gets them itself, and all others inherit them.
- The bounding set is dropped again in a new user namespace, which refills it; securebits likewise.
- Locked securebits keep capabilities over setresuid: so capset to exactly what is granted, always.
- PDEATHSIG comes after the change of uid, which clears it.
- A worker that nobody outside could look at once it is not dumpable stops before that.
- Scopes are each worker's own: inherited, siblings would be in one domain and could signal each other.
- The top-up filter is last: nothing after it could be done any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from bunri.errors import Promise, UsageError
from bunri.plan import allow, layers, limits, places, sufficiency
from bunri.plan.host import Host
from bunri.plan.means import Means
from bunri.plan.needs import Account, Needs, PythonPaths, Shape, python_paths
from bunri.plan.steps import (
    EMPTY_DIRECTORY,
    AnyStep,
    Checkpoint,
    Chroot,
    CloseDescriptors,
    DropBounding,
    Filter,
    Heap,
    Hostname,
    Keyring,
    Label,
    Limits,
    Mdwe,
    MountInRoot,
    NewRoot,
    NewSession,
    NoNewPrivs,
    NotDumpable,
    OomScore,
    ParentDeath,
    Securebits,
    SetCapabilities,
    SetIds,
    StrictMode,
    Surroundings,
    Unshare,
)
from bunri.plan.value import Clone, Plan
from bunri.plan.view import expected
from bunri.policy import Policy, UserKind
from bunri.policy.words import Capability, Profile

# numpy else starts a thread when it is imported.
ONE_THREAD: Final[Mapping[str, str]] = MappingProxyType(
    {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
)

_NO_NEEDS: Final = Needs()
_DEVELOPMENT: Final = "development mode: what the filter refuses is refused, and told, by a broker"


def plan(
    policy: Policy,
    host: Host,
    needs: Needs = _NO_NEEDS,
    *,
    python: PythonPaths | None = None,
    mapped: bool = False,
    account: Account | None = None,
    environment: Mapping[str, str] = ONE_THREAD,
) -> Plan:
    """How `host` keeps `policy` for a process with these needs. Does nothing; the same values give the same plan.

    `mapped`: the role zygote of a root-started program lives in a user namespace that does not know uid 0.
    `account`: the numbers of User.named(...); without it they come with each request, and there are no groups.
    `environment`: what the worker sees of the monitor's, the allow-list already applied; the policy's env is added.
    HostError if no combination of layers keeps a promise and the policy's may_miss does not name it.
    UsageError if a hole is open, or policy and needs contradict each other.
    """
    means = Means(policy.settled(), host, needs, account, mapped)
    _refuse_contradictions(means)
    listed = layers.layers(means)
    missed = _sufficient(means, sufficiency.lacks(means, listed))
    paths = python if python is not None else python_paths()
    build = _Build(means, paths, dict(environment) | dict(means.policy.env))
    template, worker = build.steps()
    return Plan(
        template=template,
        clone=Clone(means.worker_namespaces, means.user_namespace),
        worker=worker,
        layers=listed,
        expected=expected(means, template, worker),
        memory_group=means.memory_group,
        pins=means.pins,
        program_filter=_program_filter(means),
        notes=(*policy.notes, *missed, *([_DEVELOPMENT] if means.tells_denials else [])),
    )


def told_filter(policy: Policy, host: Host, needs: Needs, *, mapped: bool = False) -> bytes:
    """The filter of such a worker, whose refusals development mode gives and tells. Empty where that cannot be: an old
    kernel, no right to its memory, or a profile that leaves no room for it."""
    told = Means(policy.settled(), host, replace(needs, notify_denials=True), None, mapped)
    if not told.tells_denials:
        return b""
    return allow.worker_program(Means(policy.settled(), host, needs, None, mapped)).to_bytes()


def _program_filter(means: Means) -> bytes:
    filtered = means.needs.shape is Shape.PROGRAM and means.confines and means.host.seccomp
    return allow.program_filter(means).to_bytes() if filtered else b""


def _refuse_contradictions(means: Means) -> None:
    needs, policy = means.needs, means.policy
    if needs.datagram_sockets and needs.sends_descriptors:
        raise UsageError(
            "a compartment that is handed a datagram socket may not return handles: with sendmsg it could send "
            "anywhere (THREATS 2). Return the bytes, or split the compartment"
        )
    if policy.profile not in (Profile.COMPUTE, Profile.STRICT):
        return
    what = {
        "handles": needs.sends_descriptors or needs.receives_descriptors or needs.files,
        "sockets": needs.stream_sockets or needs.datagram_sockets or needs.listening_sockets,
        "async def methods": needs.asynchronous,
    }
    for name, needed in what.items():
        if needed:
            whose = "among what stays open are" if needs.shape is Shape.SELF else "the signature has"
            cure = "Close them, or have them as pipes" if needs.shape is Shape.SELF else "Take them out of the class"
            raise UsageError(
                f"{whose} {name}, and Policy.{policy.profile.value}() has nothing but read and write. "
                f"{cure}, or start from Policy()"
            )


def _sufficient(means: Means, lacking: list[sufficiency.Lack]) -> list[str]:
    """Notes on what may be missed; HostError for the first promise that may not."""
    notes: list[str] = []
    for lack in lacking:
        never = lack.layer in ("capabilities", "broker") or (
            lack.promise is Promise.SYSCALLS and means.needs.shape is Shape.PROGRAM
        )
        if lack.promise not in means.policy.may_miss or never:
            raise sufficiency.host_error(lack, means)
        notes.append(f"may_miss: {lack.promise.value} is not kept: {lack.text}")
    return notes


class _Build:
    """Puts the steps in order."""

    def __init__(self, means: Means, python: PythonPaths, environment: dict[str, str]) -> None:
        self.means = means
        self.python = python
        self.environment = environment

    def steps(self) -> tuple[tuple[AnyStep, ...], tuple[AnyStep, ...]]:
        """The template's and the worker's."""
        if not self.means.confines:
            return self._unconfined()
        if self.means.is_self:
            return (), self._alone()
        worker = tuple(self._worker())
        template = tuple(self._template(worker))
        return template, (*worker, *self._last(worker))

    # the template ------------------------------------------------------------------------------------------------

    def _template(self, worker: tuple[AnyStep, ...]) -> Iterable[AnyStep]:
        means = self.means
        yield self._oom_score()
        yield from self._root()
        yield self._inherited_limits()
        yield Surroundings(
            environment=self.environment, reason="nothing of the monitor's environment but the allow-list"
        )
        yield from self._bounded()
        yield from self._hardened()
        if means.landlock and not means.own_path_rules:
            yield places.landlock_rules(means, self.python)
        if means.policy.profile in (Profile.COMPUTE, Profile.STRICT):
            strict = means.policy.profile is Profile.STRICT
            yield Heap(size=means.policy.memory, arenas=strict, reason="the worker can ask the kernel for none")
        if means.host.seccomp and means.policy.profile is not Profile.STRICT:
            # What the worker does after it stands in `worker` and in the last steps.
            program = allow.template_program(means, (*worker, *self._last_before_filter(), Filter(program=b"")))
            yield Filter(
                program=program.to_bytes(),
                reason="the worker's list, and what its last steps need",
            )

    def _oom_score(self) -> OomScore:
        """Needs the old /proc."""
        return OomScore(reason="a worker is ended before anybody else")

    def _inherited_limits(self) -> Limits:
        """After the root is made: in it there may be files of ours, and no file can grow under these limits."""
        return Limits(values=limits.inherited(self.means), reason="inherited by every worker")

    def _root(self) -> Iterable[AnyStep]:
        means = self.means
        if means.template_namespaces:
            yield Unshare(namespaces=means.template_namespaces, reason="made once, copied or shared by the workers")
        if "uts" in means.template_namespaces and means.host.hostname:
            yield Hostname(reason="the host's name is nobody's business")
        if means.own_root:
            granted = places.mounts(means, self.python)
            yield NewRoot(mounts=granted, reason="only what is granted exists")
        elif means.chroot is not None:
            yield Chroot(path=means.chroot or EMPTY_DIRECTORY, reason="no mount namespace here; nothing else exists")

    def _bounded(self) -> Iterable[AnyStep]:
        if self.means.has(Capability.SETPCAP):
            yield DropBounding(keep=self.means.keeps, reason="what is not in it cannot come back by exec")
            yield Securebits(reason="uid 0 means nothing; capabilities are set explicitly")

    def _hardened(self) -> Iterable[AnyStep]:
        yield NoNewPrivs(reason="no setuid program gives anything")
        if self.means.host.mdwe and not self.means.writes_code:
            yield Mdwe(reason="no memory is both written and executed")

    # the worker ----------------------------------------------------------------------------------------------------

    def _worker(self) -> Iterable[AnyStep]:
        means = self.means
        yield NewSession(reason="no terminal")
        if means.host.keyring:
            yield Keyring(reason="keys of its own, before the uid changes")
        if means.scratches and means.own_root:
            yield MountInRoot(mounts=places.own_mounts(means), reason="its own, gone with it")
        if means.user_namespace and means.owns_user_namespace:
            yield DropBounding(keep=means.keeps, reason="the new user namespace refilled it")
            yield Securebits(reason="the new user namespace reset them")
        yield from self._identity()
        yield self._own_limits("counted for this uid, or in the template's way")
        yield ParentDeath(reason="after the change of uid, which clears it")
        if means.landlock and means.own_path_rules:
            yield places.landlock_rules(means, self.python)
        if means.scopes:
            yield places.landlock_scope(means)
        yield from self._label()

    def _label(self) -> Iterable[Label]:
        label = self.means.label
        if label is not None:
            reason = "after what the domain need not be allowed; its file in /proc was opened before the steps"
            yield Label(module=self.means.host.label_module, label=label, reason=reason)

    def _identity(self) -> Iterable[AnyStep]:
        means = self.means
        yield from self._set_ids()
        yield SetCapabilities(keep=means.keeps, reason="explicit: locked securebits keep them over setresuid")

    def _set_ids(self) -> Iterable[SetIds]:
        means = self.means
        if not means.changes_ids:
            return
        ids = means.ids
        if ids is not None:
            yield SetIds(uid=ids.uid, gid=ids.gid, groups=ids.groups, reason="the user that the policy names")
        else:
            named = means.policy.user.kind is UserKind.NAMED
            yield SetIds(groups_of_request=named, reason="the numbers come with the request")

    def _own_limits(self, reason: str) -> Limits:
        return Limits(values=limits.own(self.means), above_image=self.means.policy.memory, reason=reason)

    def _last_before_filter(self) -> tuple[AnyStep, ...]:
        look: tuple[AnyStep, ...] = ()
        if self.means.looked_at_early:
            look = (Checkpoint(reason="nobody outside can look once it is not dumpable"),)
        close = CloseDescriptors(reason="only what it was handed")
        return close, *look, NotDumpable(reason="after the last change of credentials")

    def _last(self, worker: tuple[AnyStep, ...]) -> tuple[AnyStep, ...]:
        before = self._last_before_filter()
        if not self.means.host.seccomp:
            return before
        if self.means.policy.profile is Profile.STRICT:
            return *before, StrictMode(reason="mode 1")
        made = (*worker, *before, Filter(program=b""))
        program = allow.top_up_program(self.means, made)
        if self.means.listens:
            return *before, Filter(
                program=program.to_bytes(), listener=True, reason="the worker's list, with its listener"
            )
        return *before, Filter(program=program.to_bytes(), reason="takes away what the template and these steps needed")

    # the others ----------------------------------------------------------------------------------------------------

    def _alone(self) -> tuple[AnyStep, ...]:
        """bunri.confine: one process, one sequence, the whole filter at the end."""
        means = self.means
        steps: list[AnyStep] = [self._oom_score(), *self._root(), self._inherited_limits()]
        if means.host.keyring:
            steps.append(Keyring(reason="keys of its own, before the uid changes"))
        if means.scratches and means.own_root:
            steps.append(MountInRoot(mounts=places.own_mounts(means), reason="its own"))
        steps += [*self._bounded(), *self._identity(), *self._hardened()]
        steps.append(self._own_limits("counted for this uid"))
        if means.landlock:
            steps.append(places.landlock_rules(means, self.python))
        if means.scopes:
            steps.append(places.landlock_scope(means))
        steps += self._label()
        steps += [
            CloseDescriptors(reason="only what was named"),
            NotDumpable(reason="after the last change of credentials"),
        ]
        if means.policy.profile is Profile.STRICT:
            steps.append(StrictMode(reason="mode 1"))
        elif means.host.seccomp:
            program = allow.worker_program(means)
            steps.append(Filter(program=program.to_bytes(), reason="last: nothing after it could be done"))
        return tuple(steps)

    def _unconfined(self) -> tuple[tuple[AnyStep, ...], tuple[AnyStep, ...]]:
        """A clean environment, descriptors, umask and the identity: that is all."""
        worker: list[AnyStep] = [NewSession(reason="no terminal of the monitor's")]
        values = limits.of_the_monitor(self.means)
        if values:
            worker.append(Limits(values=values, reason="the monitor's: its zygotes may pin more"))
        worker += self._set_ids()
        worker.append(ParentDeath(reason="after the change of uid, which clears it"))
        worker.append(CloseDescriptors(reason="only what it was handed"))
        template = (Surroundings(environment=self.environment, reason="the allow-list; umask 077; cwd /"),)
        return template, tuple(worker)
