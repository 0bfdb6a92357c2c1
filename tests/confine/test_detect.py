"""Runs in: the test process. What detect says must be what doing the thing shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from forked import Died, errno_of, in_child, need_reachable_interpreter

from bunri import early
from bunri.confine import detect
from bunri.confine import detection as module
from bunri.errors import HostError
from bunri.kernel import clone, landlock, prctl
from bunri.plan.host import Host, UserNamespaces


def test_the_host_is_tried_once_per_process_and_user() -> None:
    assert detect() is detect()
    assert detect().uid == os.geteuid()
    assert detect().arch == os.uname().machine


def test_a_host_is_a_value_that_can_be_written_down() -> None:
    assert Host.from_json(detect().to_json()) == detect()


def test_a_living_thread_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seen", {})
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert detect().seccomp in (True, False)
    finally:
        go.set()
        thread.join()


def test_what_it_says_of_namespaces_is_what_happens() -> None:
    host = detect()
    for name, flag in (("uts", clone.CLONE_NEWUTS), ("net", clone.CLONE_NEWNET)):

        def make(flag: int = flag) -> int:
            if 21 not in host.capabilities:
                clone.unshare(clone.CLONE_NEWUSER)
            return errno_of(clone.unshare, flag)

        answer = errno_of(lambda make=make: in_child(make)) if host.user_namespaces is UserNamespaces.REFUSED else None
        if answer is None:
            assert (in_child(make) == 0) is (name in host.namespaces)


def test_what_it_says_of_landlock_and_mdwe_is_what_happens() -> None:
    host = detect()
    assert (
        errno_of(landlock.abi) == 0 if host.landlock_abi else errno_of(landlock.abi) != 0 or "landlock" in host.remarks
    )
    answer = in_child(errno_of, prctl.set_mdwe)
    assert not isinstance(answer, Died)
    assert (answer == 0) is host.mdwe


def test_what_was_refused_has_a_remark() -> None:
    host = detect()
    for name in ("pivot_root", "seccomp", "seccomp_notify", "mdwe", "keyring", "clone3", "io_uring", "mount_setattr"):
        assert getattr(host, name) or name in host.remarks


def test_an_interpreter_that_cannot_be_started_is_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seen", {})
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(HostError, match="/no/such/python"):
        detect()


def test_a_probe_that_fails_is_a_host_error_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seen", {})
    monkeypatch.setattr(early, "_PROBE", "/no/such/probe.py")
    with pytest.raises(HostError, match=r"probe\.py"):
        detect()


def test_in_a_container_that_refuses_namespaces_they_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's default, made here by a filter on unshare and clone3 and by leaving root's capabilities."""
    import struct

    need_reachable_interpreter()

    from bunri.confine import Context, carry_out
    from bunri.plan import steps as s

    machine = os.uname().machine
    numbers = {"x86_64": (272, 435), "aarch64": (97, 435)}[machine]  # unshare, clone3
    program = struct.pack("HBBI", 0x20, 0, 0, 0)
    program += struct.pack("HBBI", 0x15, 3, 0, numbers[0]) + struct.pack("HBBI", 0x15, 1, 0, numbers[1])
    program += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    program += struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | 38) + struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | 1)
    monkeypatch.setattr(module, "_seen", {})

    def child() -> Host:
        from forked import become_ordinary

        become_ordinary()
        carry_out([s.NoNewPrivs(), s.Filter(program=program)], Context())
        return detect()

    host = in_child(child)
    assert host.user_namespaces is UserNamespaces.REFUSED
    assert host.namespaces == ()
    assert host.pivot_root is False
    assert host.clone3 is False
    assert host.remarks["clone3"] == "ENOSYS"
    assert host.remarks["user_namespaces"] == "EPERM"
    assert host.seccomp is True


def test_without_proc_the_remedy_is_said() -> None:
    hide, apart = ["mount", "-t", "tmpfs", "none", "/proc"], ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*apart, *hide], capture_output=True).returncode:
        pytest.skip("no mount namespace is to be had here")
    # By the interpreter itself: the loader of one that brings its library along asks /proc where it is.
    code = f"import subprocess\nsubprocess.run({hide}, check=True)\nfrom bunri.confine import detect\ndetect()"
    done = subprocess.run([*apart, sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "HostError: procfs: /proc is not there" in done.stderr
    assert "mount -t proc" in done.stderr
