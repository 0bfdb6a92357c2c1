"""A worker changes its SELinux domain, and the domain is one more wall. In the guests of `make test-vm` only: they have
SELinux and the policy that knows these domains, once enforcing and once permissive."""

from __future__ import annotations

import os
from pathlib import Path

import labelled
import pytest

import bunri

pytestmark = pytest.mark.skipif(os.environ.get("BUNRI_LABELS") != "selinux", reason="SELinux: make test-vm boots it")

FILE = f"{labelled.FOLDER}/UTC"


def enforces() -> bool:
    return Path("/sys/fs/selinux/enforce").read_text().strip() == "1"


@pytest.mark.parametrize("cls", [labelled.Worker, labelled.Spelled])
def test_the_worker_is_in_its_domain_and_the_monitor_saw_it(cls: type[labelled.Reader]) -> None:
    with cls.start() as worker:
        label = Path(f"/proc/{worker.process.pid}/attr/current").read_text().rstrip("\0\n")
        assert label == "system_u:system_r:bunri_worker_t:s0"
        assert Path("/proc/self/attr/current").read_text().startswith("system_u:system_r:kernel_t")
        layer = next(each for each in worker.process.report.layers if each.name == "label")
        assert layer.observed_by is bunri.Observer.MONITOR
        assert layer.state is (bunri.State.IN_FORCE if enforces() else bunri.State.WEAKER)


def test_what_the_policy_grants_the_domain_refuses() -> None:
    with labelled.Worker.start() as worker:
        if enforces():
            with pytest.raises(bunri.PeerError, match="Permission denied"):
                worker.read(FILE)
        else:
            assert worker.read(FILE) == os.path.getsize(FILE)


@pytest.mark.parametrize("cls", [labelled.Reader, labelled.Allowed])
def test_without_that_domain_it_is_read(cls: type[labelled.Reader]) -> None:
    with cls.start() as worker:
        assert worker.read(FILE) == os.path.getsize(FILE)


def test_a_domain_that_is_missing_fails_the_start() -> None:
    with pytest.raises(bunri.HostError, match="no such domain") as caught, labelled.Nowhere.start():
        pass
    assert caught.value.promise is bunri.Promise.LABEL


def test_a_domain_that_may_not_be_entered_fails_the_start() -> None:
    if not enforces():
        pytest.skip("a permissive SELinux allows every change")
    with pytest.raises(bunri.HostError, match="does not allow the change") as caught, labelled.Forbidden.start():
        pass
    assert caught.value.promise is bunri.Promise.LABEL


def test_apparmor_is_missing_here() -> None:
    with pytest.raises(bunri.HostError, match="AppArmor is not active"):
        labelled.Profile.start()
