"""Runs in: the test process. Starts real hosts, asks them, ends them, and sees that nothing of them is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunri.observe import family

PROGRAMS = Path(__file__).resolve().parent / "programs"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{SOURCE}:{PROGRAMS}", "PYTHONDONTWRITEBYTECODE": "1", **more}


def until(true: Callable[[], Any], seconds: float = 20.0, what: str = "it") -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come to pass in {seconds:g} s"
        time.sleep(0.03)
    return found


def below(pid: int) -> set[int]:
    """A process and all below it."""
    try:
        return {member.pid for member in family.find((str(pid),))}
    except Exception:
        return set()


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    return pids & set(family.everybody()) - {pid for pid in pids if _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@dataclass
class Host:
    """A program that runs, and what it has printed."""

    process: subprocess.Popen[str]
    port: int = 0

    def family(self) -> set[int]:
        return below(self.process.pid)

    def end(self, number: int = signal.SIGTERM, *, within: float = 20.0) -> int:
        """Signal it, wait, and see that no process of it is left."""
        those = self.family()
        self.process.send_signal(number)
        code = self.process.wait(within)
        until(lambda: not alive(those), 8, f"the end of {those}")
        return code


@contextlib.contextmanager
def running(*command: str | Path, port: int = 0, cwd: Path = PROGRAMS, **more: str) -> Generator[Host]:
    """Start a program. Whatever happens, it and all below it are ended."""
    process = subprocess.Popen(
        [str(word) for word in command], cwd=cwd, env=environment(**more), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    host = Host(process, port)
    try:
        yield host
    except BaseException:
        those = host.family()
        _kill(those)
        print(process.communicate(timeout=10)[0])
        raise
    finally:
        _kill(host.family() if process.poll() is None else set())
        process.wait(10)
        process.stdout.close()


def _kill(those: set[int]) -> None:
    for pid in those:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, path: str, image: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """GET, or POST of an upload."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        if image is None:
            connection.request("GET", path)
        else:
            body = (
                b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.gif"\r\n\r\n'
                + image
                + b"\r\n--b--\r\n"
            )
            connection.request("POST", path, body, {"Content-Type": "multipart/form-data; boundary=b"})
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, {"text": text.decode()}
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        return ask(port, "/ping")[0] == 200
    except OSError:
        return False
