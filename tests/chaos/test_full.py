"""Runs in: programs that the test starts. Where a table is full, a start is refused early, by name; what runs goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

_UNTIL_REFUSED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import victim, bunri
victim.Victim.start().twice(1)  # the zygotes stand
LIMIT
workers = []
try:
    for _ in range(200):
        worker = victim.Victim.start()
        worker.twice(1)
        workers.append(worker)
except bunri.BunriError as fault:
    print(type(fault).__name__, fault)
else:
    print("never refused")
print(len(workers), [worker.twice(i) for i, worker in enumerate(workers)] == [2 * i for i in range(len(workers))])
UNLIMIT
for worker in workers:
    worker.__exit__(None, None, None)
with victim.Victim.start() as worker:
    print(worker.twice(4))
"""


def run(limit: str, unlimit: str = "") -> list[str]:
    code = _UNTIL_REFUSED.replace("UNLIMIT", unlimit).replace("LIMIT", limit)
    done = subprocess.run(
        [sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_full_descriptor_table_refuses_the_start_and_nothing_else() -> None:
    refusal, running, again = run("resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))")
    assert refusal.startswith("HostError"), refusal
    assert "Too many open files" in refusal and "RLIMIT_NOFILE" in refusal
    assert int(running.split()[0]) > 3
    assert running.endswith("True")
    assert again == "8"


@pytest.mark.parametrize("most", [10, 64])
def test_where_too_few_descriptors_are_allowed_nothing_is_started(most: int) -> None:
    code = f"""
import resource, sys
sys.path.insert(0, sys.argv[1])
import victim, bunri, threading
from bunri.observe import family
resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))
for start in (victim.Victim.start, lambda: victim.Victim.pool(2), lambda: bunri.prepare(victim.Victim)):
    try:
        start()
    except bunri.HostError as fault:
        print(fault)
print([thread.name for thread in threading.enumerate()])
"""
    done = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, timeout=60)
    said = done.stdout.splitlines()
    assert said[-1:] == ["['MainThread']"], done.stderr
    assert len(said) == 4
    for line in said[:-1]:
        assert f"may have {most} descriptors" in line and "RLIMIT_NOFILE" in line


_ALMOST_FULL = """
import contextlib, os, resource, sys
sys.path.insert(0, sys.argv[1])
import victim, bunri
from bunri.process import program, start
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def try_with(free):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    for number in held[:free]:
        os.close(number)
    try:
        with victim.Victim.start() as worker:
            print("worked", worker.twice(1), end=" ")
    except bunri.HostError as fault:
        print("refused" if "RLIMIT_NOFILE" in str(fault) else fault, end=" ")
    for number in held[free:]:
        os.close(number)
    with victim.Victim.start() as worker:
        print(worker.twice(2), flush=True)
    program.close()

for free in range(1, 25):
    if os.fork() == 0:
        try:
            try_with(free)
        finally:
            os._exit(0)
    os.wait()
"""


def test_a_first_start_with_room_for_a_part_of_it_is_refused_and_the_next_one_works() -> None:
    """Whichever descriptor it is that cannot be had: of the probe, the thread, the zygotes, the worker."""
    done = subprocess.run([sys.executable, "-c", _ALMOST_FULL, str(HERE)], capture_output=True, text=True, timeout=120)
    said = done.stdout.splitlines()
    assert set(said) == {"refused 4", "worked 2 4"}, (said, done.stderr)
    assert said == sorted(said) and len(said) == 24


@pytest.mark.skipif(os.getuid() == 0, reason="root is not counted by RLIMIT_NPROC")
def test_a_full_process_table_refuses_the_start_and_nothing_else() -> None:
    limit = """
import contextlib, os
from bunri.process import program
mine = 0
for pid in filter(str.isdigit, os.listdir('/proc')):
    with contextlib.suppress(FileNotFoundError):  # it has ended since
        mine += os.stat(f'/proc/{pid}').st_uid == os.getuid()
from bunri.kernel import rlimit
for role in program.current()._roles.values():
    for pid in (t.pid for t in role._all.values()):
        rlimit.set_('NPROC', mine + 6, mine + 6, pid)
"""
    refusal, running, again = run(limit)
    assert refusal.startswith("HostError"), refusal
    assert "Resource temporarily unavailable" in refusal
    assert running.endswith("True")
    assert again == "8"


def test_without_memory_for_an_interpreter_the_start_is_refused_by_name() -> None:
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import victim, bunri
from bunri.confine import detect
detect()
resource.setrlimit(resource.RLIMIT_AS, (30 << 20, resource.RLIM_INFINITY))
try:
    with victim.Victim.start() as worker:
        print(worker.twice(1))
except (bunri.BunriError, MemoryError) as fault:
    print(type(fault).__name__, fault)
"""
    done = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("HostError", "MemoryError")), done.stdout
