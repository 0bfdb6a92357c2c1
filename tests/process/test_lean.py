"""A worker carries what workers need, and not what only a monitor does: every page of it is time at each start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lean
import pytest

MONITORS = (
    *("bunri.process.program", "bunri.process.pool", "bunri.process.spawn", "bunri.process.supervisor"),
    *("bunri.confine.detection", "bunri.confine.looking", "bunri.confine.reporting", "bunri.confine.self"),
    *("bunri.plan.planner", "bunri.plan.allow", "bunri.policy.toml", "bunri.seccomp"),
)


WITHOUT_LOOP = """\
import sys, lean
with lean.Lean.start() as worker:
    print(*worker.loaded())
    print(*{'asyncio', 'ssl'} & {*sys.modules})
"""
WITH_LOOP = """\
import asyncio, lean_looping
async def main():
    async with lean_looping.Looping.start() as worker:
        print(*await worker.loaded())
asyncio.run(main())
"""


def printed(program: str) -> list[set[str]]:
    """The words of each line that a program prints. One of its own: what a broker needed, later workers have, too."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_a_worker_without_a_loop_carries_neither_asyncio_nor_the_monitors_part_and_its_program_no_asyncio() -> None:
    loaded, of_program = printed(WITHOUT_LOOP)
    assert "bunri.process.worker" in loaded
    assert not {"asyncio", "ssl", *MONITORS} & loaded
    assert not of_program


def test_a_worker_with_a_loop_has_asyncio_whether_its_module_imports_it_or_not() -> None:
    (loaded,) = printed(WITH_LOOP)
    assert "asyncio" in loaded
    assert not {*MONITORS} & loaded


@pytest.mark.parametrize("package", ["bunri.confine", "bunri.seccomp", "bunri.plan", "bunri.policy"])
def test_every_name_of_a_package_is_there_for_those_who_ask(package: str) -> None:
    """Also as `import *` asks, and in any order; another name is an AttributeError."""
    code = (
        f"import importlib, random; p = importlib.import_module({package!r}); names = list(p.__all__)\n"
        "random.shuffle(names); print(names)\n"
        "assert all(getattr(p, name).__class__.__name__ != 'module' or name in ('fs', 'net') for name in names)\n"
        "try: p.no_such_name\n"
        "except AttributeError as fault: assert 'no_such_name' in str(fault)\n"
        "else: raise AssertionError\n"
        f"from {package} import *\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_that_would_start_something_is_told_that_it_cannot() -> None:
    with lean.Lean.start() as worker:
        told = worker.refusals()
    assert len(told) == 4
    assert all("a worker starts no other" in each for each in told)


def test_a_worker_that_would_confine_itself_is_told_who_does() -> None:
    """It was told that there was no module `subprocess`."""
    with lean.Lean.start() as worker:
        assert "its class's policy confines it" in worker.confined()


ARENAS = """\
import lean, parts
def arenas():
    with open('/proc/self/maps') as maps:
        return maps.read().count('/memfd:bunri arena')
with lean.Lean.start() as worker:
    worker.confined()
    print(arenas())
with parts.Plain.start() as other:
    assert other.echo(bytes(1 << 20)) == bytes(1 << 20)
    print(arenas())
"""


def test_a_worker_that_moves_no_large_bytes_shares_no_memory_with_its_monitor() -> None:
    """And one that does, does. In a program of its own: workers that stand ready have theirs already."""
    assert printed(ARENAS) == [{"0"}, {"1"}]
