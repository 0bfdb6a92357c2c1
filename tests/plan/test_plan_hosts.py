"""Runs in: the test process. Plans for hosts that are not here: what is refused, what may be missed, which order."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bunri import seccomp
from bunri.errors import HostError, Promise, UsageError
from bunri.plan import Host, Needs, Plan, hosts, plan
from bunri.plan.needs import PythonPaths
from bunri.plan.steps import (
    AnyStep,
    CloseDescriptors,
    DropBounding,
    Filter,
    Hostname,
    Landlock,
    Limits,
    MountInRoot,
    NewRoot,
    ParentDeath,
    Securebits,
    SetCapabilities,
    SetIds,
    Surroundings,
)
from bunri.policy import Policy, User, fs, net

PYTHON = PythonPaths(("/usr/lib/python3.11",))
SCRATCH = Policy(files=[fs.scratch("/tmp", "4M")])
WRITE = Policy(files=[fs.write("/srv/x")])
FULL = ("root", "ordinary user", "Linux 6.12", "Linux 6.1", "Linux 5.10", "arm64")


def _plan(policy: Policy, host: Host, needs: Needs | None = None) -> Plan:
    return plan(policy, host, needs or Needs(), python=PYTHON)


def _at(steps: tuple[AnyStep, ...], kind: type) -> int:
    return next(index for index, step in enumerate(steps) if isinstance(step, kind))


@pytest.mark.parametrize("name", [*FULL, "Docker, root", "rootless, one uid"])
def test_the_default_policy_is_kept(name: str) -> None:
    made = _plan(Policy(), hosts.HOSTS[name])
    assert made.expected.effective == 0
    assert made.expected.seccomp_mode == 2


@pytest.mark.parametrize(
    ("name", "promise"),
    [("Ubuntu 24.04", Promise.PROCESSES), ("Docker, ordinary user", Promise.IDENTITY)],
)
def test_a_host_that_cannot_is_refused_unless_it_may_miss(name: str, promise: Promise) -> None:
    with pytest.raises(HostError) as caught:
        _plan(Policy(), hosts.HOSTS[name])
    assert caught.value.promise is promise
    assert caught.value.remedy
    assert _plan(Policy(may_miss=[promise]), hosts.HOSTS[name]).notes


@pytest.mark.parametrize("grant", [net.connect("db", 5432), net.listen(8080), net.unix("/run/x")])
def test_network_grants_are_refused_where_a_broker_lacks_the_rights(grant: net.NetGrant) -> None:
    """Said by the plan, before anything runs; and not to be missed."""
    for host in (hosts.LINUX_5_10, hosts.DOCKER_ROOT, hosts.DOCKER_ORDINARY):
        with pytest.raises(HostError, match="broker") as caught:
            _plan(Policy(network=[grant], may_miss=list(Promise)), host)
        assert caught.value.promise is Promise.NETWORK
        assert caught.value.remedy
    for host in (hosts.ROOT, hosts.ORDINARY, hosts.LINUX_6_1):
        may_miss = [Promise.PROCESSES] if host is hosts.LINUX_6_1 else []
        made = _plan(Policy(network=[grant], may_miss=may_miss), host)
        last = made.worker[-1]
        assert isinstance(last, Filter) and last.listener


def test_several_processes_need_a_memory_cgroup_or_may_miss() -> None:
    with pytest.raises(HostError) as caught:
        _plan(Policy(processes=2), hosts.ROOT)
    assert caught.value.promise is Promise.MEMORY
    _plan(Policy(processes=2, may_miss=[Promise.MEMORY]), hosts.ROOT)


def test_a_label_is_refused_unless_it_may_miss() -> None:
    with pytest.raises(HostError):
        _plan(Policy(selinux="worker_t"), hosts.ROOT)
    _plan(Policy(selinux="worker_t", may_miss=[Promise.LABEL]), hosts.ROOT)


def test_an_ordinary_user_cannot_become_another() -> None:
    with pytest.raises(HostError) as caught:
        _plan(Policy(user=User.named("ftp")), hosts.ORDINARY)
    assert caught.value.promise is Promise.IDENTITY


def test_the_roots_worker_has_an_own_uid_and_no_user_namespace() -> None:
    made = _plan(Policy(), hosts.ROOT)
    ids = [step for step in made.worker if isinstance(step, SetIds)]
    assert made.clone.user is None
    assert [(step.uid, step.gid, step.groups) for step in ids] == [(None, None, ())]


def test_the_ordinary_users_worker_has_an_own_user_namespace_and_drops_all_again() -> None:
    made = _plan(Policy(), hosts.ORDINARY)
    assert made.clone.user == "unmapped"
    assert not any(isinstance(step, SetIds) for step in made.worker)
    assert _at(made.worker, DropBounding) < _at(made.worker, Securebits) < _at(made.worker, SetCapabilities)


@pytest.mark.parametrize("policy", [SCRATCH, WRITE])
def test_who_makes_files_is_mapped(policy: Policy) -> None:
    assert _plan(policy, hosts.ORDINARY).clone.user == "mapped"


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("policy", [Policy(), SCRATCH, WRITE])
def test_the_order_of_a_workers_steps(name: str, policy: Policy) -> None:
    steps = _plan(policy, hosts.HOSTS[name]).worker
    assert isinstance(steps[-1], Filter)
    assert _at(steps, SetCapabilities) < _at(steps, ParentDeath) < _at(steps, CloseDescriptors)
    if any(isinstance(step, SetIds) for step in steps):
        assert _at(steps, SetIds) < _at(steps, SetCapabilities)


def test_no_path_rules_stand_before_a_workers_own_mounts() -> None:
    made = _plan(SCRATCH, hosts.ROOT)
    assert not any(isinstance(step, Landlock) for step in made.template)
    assert _at(made.worker, MountInRoot) < _at(made.worker, Landlock)


def test_a_template_that_maps_its_workers_can_still_open_the_map() -> None:
    """Landlock in the template refuses it /proc/PID/uid_map."""
    made = _plan(WRITE, hosts.ORDINARY)
    assert not any(isinstance(step, Landlock) and step.handled_fs for step in made.template)
    assert any(isinstance(step, Landlock) and step.handled_fs for step in made.worker)


def test_scopes_are_each_workers_own() -> None:
    made = _plan(Policy(), hosts.ROOT)
    assert all(not step.scoped for step in made.template if isinstance(step, Landlock))
    assert [step.scoped for step in made.worker if isinstance(step, Landlock)] == [3]


def test_without_scopes_each_worker_has_its_own_network_namespace() -> None:
    assert "net" in _plan(Policy(), hosts.LINUX_6_1).clone.namespaces
    assert "net" not in _plan(Policy(), hosts.ROOT).clone.namespaces


def test_workers_share_an_empty_network_unless_their_policy_lets_them_make_sockets() -> None:
    """Siblings in one network namespace could talk over abstract sockets (THREATS 9). A rule that refuses grants nothing."""
    refuse = Policy(syscalls=[seccomp.deny("socket", "chdir", reason="not needed")])
    assert "net" not in _plan(refuse, hosts.ROOT).clone.namespaces
    for entry in ("socket", "@network-io", seccomp.allow("socket", when=seccomp.Arg(0) == 1, reason="local")):
        assert "net" in _plan(Policy(syscalls=[entry]), hosts.ROOT).clone.namespaces, entry


def test_who_can_become_nobody_else_is_an_ordinary_user() -> None:
    made = _plan(Policy(), hosts.ROOTLESS)
    assert made.clone.user == "unmapped"
    assert not any(isinstance(step, SetIds) for step in made.worker)


def test_a_name_that_may_not_be_set_is_left_alone() -> None:
    made = plan(Policy(), hosts.PODMAN_ROOT, python=PYTHON, mapped=True)
    assert made.has("uts namespace")
    assert not any(isinstance(step, Hostname) for step in made.template)
    assert any(isinstance(step, Hostname) for step in _plan(Policy(), hosts.ROOT).template)


def test_who_could_not_be_looked_at_at_its_end_waits_before() -> None:
    assert _plan(Policy(), hosts.DOCKER_ROOT).has_checkpoint
    assert not _plan(Policy(), hosts.ROOT).has_checkpoint


def test_a_scratch_needs_a_mount_namespace() -> None:
    with pytest.raises(HostError):
        _plan(SCRATCH, hosts.DOCKER_ROOT)


def test_the_root_has_what_is_granted_and_nothing_else() -> None:
    made = _plan(Policy(files=[fs.read("/usr/share", at="/data")]), hosts.ROOT)
    roots = [step for step in made.template if isinstance(step, NewRoot)]
    assert [(m.kind, m.at, m.source, m.writable, m.executable) for m in roots[0].mounts] == [
        ("bind", "/data", "/usr/share", False, False)
    ]


def test_unconfined_keeps_nothing_but_surroundings_descriptors_and_ids() -> None:
    made = _plan(Policy.dangerous_unconfined(user=User.ids(1000, 1000)), hosts.ROOT)
    assert [type(step) for step in made.template] == [Surroundings]
    assert not any(isinstance(step, Filter | Landlock | SetCapabilities) for step in made.worker)
    assert any(isinstance(step, SetIds) for step in made.worker)
    assert made.clone.namespaces == ()
    assert made.expected.seccomp_mode is None


def test_what_templates_may_pin_no_worker_has() -> None:
    """Its own limit is none; one without confinement has its monitor's, of which the zygotes have more."""
    limited = replace(hosts.ROOT, limits={"MEMLOCK": 8 << 20})
    for host in (limited, replace(limited, io_uring=False), replace(limited, uid=1000)):
        made = _plan(Policy(), host)
        assert made.pins is (host == limited)
        assert [step.values["MEMLOCK"] for step in made.worker if isinstance(step, Limits)] == [0]
        assert not any("MEMLOCK" in step.values for step in made.template if isinstance(step, Limits))
    free = _plan(Policy.dangerous_unconfined(user=User.ids(1000, 1000)), limited)
    assert [dict(step.values) for step in free.worker if isinstance(step, Limits)] == [{"MEMLOCK": 8 << 20}]


def test_compute_has_no_room_for_a_loop() -> None:
    with pytest.raises(UsageError):
        _plan(Policy.compute(), hosts.ROOT, Needs(asynchronous=True))


@pytest.mark.parametrize("name", hosts.HOSTS)
def test_simulated_hosts_survive_being_written_down(name: str) -> None:
    host = hosts.HOSTS[name]
    assert Host.from_json(host.to_json()) == host
