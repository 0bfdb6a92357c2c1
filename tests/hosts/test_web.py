"""Runs in: the test process. Uploads through real web servers, hostile ones among them."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import signal
import sys

import pytest
from hosting import Host, alive, answers, ask, below, free_port, running, until
from sizes import gif

pytestmark = pytest.mark.slow

GUNICORN = (sys.executable, "-m", "gunicorn", "--graceful-timeout", "3", "-w", "1")


def uploads_are_served(port: int) -> set[int]:
    """Good ones give a size; what kills the decoder, or is no image, is refused, and the others never notice. The hosts that answered."""
    assert ask(port, "/upload", b"DIE")[1] == {"refused": "WorkerDied"}
    assert ask(port, "/upload", b"garbage") == (422, {"refused": "RemoteError"})
    bodies = [gif(n, n + 1) if n % 5 else b"DIE" for n in range(1, 21)]
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda body: ask(port, "/upload", body), bodies))
    hosts: set[int] = set()
    for n, (status, told) in enumerate(found, 1):
        if n % 5:
            assert (status, told.get("size")) == (200, [n, n + 1]), told
            hosts.add(told["host"])
        else:
            assert (status, told) == (422, {"refused": "WorkerDied"})
    return hosts


@pytest.mark.parametrize(
    ("kind", "preload"),
    [("sync", "no preload"), ("gthread", "no preload"), ("sync", "preload"), ("gthread", "preload and prepared")],
)
def test_flask_under_gunicorn(kind: str, preload: str) -> None:
    port = free_port()
    more = ["--preload"] if preload != "no preload" else []
    threads = ["--threads", "4"] if kind == "gthread" else []
    prepare = {"PREPARE": "at import"} if preload == "preload and prepared" else {}
    command = (*GUNICORN, "-k", kind, "-b", f"127.0.0.1:{port}", *threads, *more, "web_flask:app")
    with running(*command, port=port, **prepare) as host:
        until(lambda: answers(port), 30, "an answer")
        hosts = uploads_are_served(port)
        assert host.process.pid not in hosts
        one_of_its_workers_is_killed(host, hosts)
        assert host.end() == 0


def one_of_its_workers_is_killed(host: Host, hosts: set[int]) -> None:
    """gunicorn makes another, whose decoders start; nothing of the dead one's is left."""
    victim = min(hosts)
    those = below(victim)
    assert len(those) > 1
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(those), 8, "the end of the zygotes of a worker that was killed")
    until(lambda: answers(host.port), 20, "an answer")
    assert ask(host.port, "/upload", gif(3, 4))[1]["size"] == [3, 4]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_fastapi_under_uvicorn(loop: str) -> None:
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "--port", str(port), "--loop", loop, "web_fastapi:app")
    with running(*command, port=port) as host:
        until(lambda: answers(port), 30, "an answer")
        uploads_are_served(port)
        assert (loop == "uvloop") == ask(port, "/upload", gif(1, 1))[1]["loop"].startswith("uvloop")
        assert host.end() in (0, -signal.SIGTERM)


def test_fastapi_under_uvicorns_own_workers() -> None:
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "--port", str(port), "--workers", "2", "web_fastapi:app")
    with running(*command, port=port) as host:
        until(lambda: answers(port), 30, "an answer")
        uploads_are_served(port)
        assert host.end() in (0, -signal.SIGTERM)


@pytest.mark.parametrize("kind", ["asgi", "uvicorn.workers.UvicornWorker"])
def test_fastapi_under_gunicorn(kind: str) -> None:
    """Its own workers for asynchronous programs, and uvicorn's for it."""
    if kind.startswith("uvicorn") and importlib.util.find_spec("uvicorn.workers") is None:
        pytest.skip("this uvicorn has no workers for gunicorn")
    port = free_port()
    with running(*GUNICORN, "-k", kind, "-b", f"127.0.0.1:{port}", "web_fastapi:app", port=port) as host:
        until(lambda: answers(port), 30, "an answer")
        uploads_are_served(port)
        assert host.end() == 0
