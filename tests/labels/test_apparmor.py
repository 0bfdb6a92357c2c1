"""A worker changes to an AppArmor profile, and the profile is one more wall. In the guests of `make test-vm` only."""

from __future__ import annotations

import os
from pathlib import Path

import labelled
import pytest

import bunri

pytestmark = pytest.mark.skipif(os.environ.get("BUNRI_LABELS") != "apparmor", reason="AppArmor: make test-vm boots it")

FILE = f"{labelled.FOLDER}/UTC"


def test_the_worker_is_under_its_profile_and_the_monitor_saw_it() -> None:
    with labelled.Profile.start() as worker:
        label = Path(f"/proc/{worker.process.pid}/attr/apparmor/current").read_text().strip()
        assert label == "bunri_worker (enforce)"
        layer = next(each for each in worker.process.report.layers if each.name == "label")
        assert (layer.state, layer.observed_by) == (bunri.State.IN_FORCE, bunri.Observer.MONITOR)


def test_what_the_policy_grants_the_profile_refuses() -> None:
    with labelled.Profile.start() as worker, pytest.raises(bunri.PeerError, match="Permission denied"):
        worker.read(FILE)


@pytest.mark.parametrize("cls", [labelled.Reader, labelled.AllowedProfile])
def test_without_that_profile_it_is_read(cls: type[labelled.Reader]) -> None:
    with cls.start() as worker:
        assert worker.read(FILE) == os.path.getsize(FILE)


def test_a_profile_that_only_logs_is_no_wall_and_fails_the_start() -> None:
    with pytest.raises(bunri.HostError, match="complain"), labelled.Complaining.start():
        pass


def test_a_profile_that_is_missing_fails_the_start() -> None:
    with pytest.raises(bunri.HostError, match="no such profile"), labelled.NoProfile.start():
        pass


def test_selinux_is_missing_here() -> None:
    with pytest.raises(bunri.HostError, match="SELinux is not active"):
        labelled.Worker.start()
