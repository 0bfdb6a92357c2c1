"""Each role taken over by an attacker: what he gets is what the role had. Beside it, that the action works elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ftplib import FTP
from pathlib import Path

import pytest
import taken
from ftp_served import ROOT, Served, only_this_one_notices, serving, written

import bunri
from bunri.apps.ftpd.accounts import account
from bunri.apps.ftpd.broker import DataHere
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.logins import LoginHere
from bunri.apps.ftpd.logs import AHEAD, RATE, LogHere, Logs
from bunri.apps.ftpd.messages import MOST_LINES, MOST_SOCKETS, Greeting, Handover, Kind, NoData
from bunri.apps.ftpd.peerfilter import PeerFilter, is_possible
from bunri.apps.ftpd.prelogin import CALLS

pytestmark = pytest.mark.slow

needs_filter = pytest.mark.skipif(not is_possible(), reason="this user may not put filters on sockets")
CONFIG = Config(
    listen=True, anonymous_enable=True, ftp_username="", write_enable=True, anon_upload_enable=True,
    allow_writeable_chroot=True, local_enable=True, guest_enable=True, virtual_passwd_file="/dev/null",
    delay_failed_login=0, accept_timeout=2, connect_timeout=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def deaths_are_forgiven() -> Iterator[None]:
    """Attackers die by signals all day: without this, starts would be held back (THREATS 8)."""
    from bunri.process import program

    yield
    if program._current is not None:
        program._current.forgive()


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as peer:
            ours, _ = listener.accept()
            with ours:
                yield ours, peer


class Counted(LoginHere):
    """Counts how many passwords were looked at."""

    looked_at = 0
    asked = b""  # the last one

    async def _right(self, kind: Kind, user: str, password: bunri.Secret) -> bool:
        self.looked_at += 1
        self.asked = bytes(password.reveal())
        return await super()._right(kind, user, password)


@contextlib.asynccontextmanager
async def prelogin() -> AsyncIterator[tuple[taken.TakenPreLogin, Counted]]:
    with connection() as (control, _):
        login = Counted(control, CONFIG, "127.0.0.1", Logs(CONFIG))
        async with taken.TakenPreLogin.start(control, login, Greeting("", 3)) as worker:
            yield worker, login


@contextlib.asynccontextmanager
async def session(folder: Path) -> AsyncIterator[taken.TakenSession]:
    with connection() as (control, _):
        earned = account(replace(CONFIG, anon_root=str(folder)), "ftp", Kind.ANONYMOUS, tls=False)
        data, logs = DataHere(control, CONFIG, None, only_tls=False), Logs(CONFIG)
        policy = earned.policy(taken.TakenSession.policy)
        log = LogHere(logs, "127.0.0.1", earned.rights)
        async with taken.TakenSession.start_under(policy, control, data, log, earned.rights, Handover(b"")) as worker:
            yield worker
        data.close()


@pytest.fixture
def drop() -> Iterator[Path]:
    """A folder to upload to."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as above:
        Path(above).chmod(0o755)
        folder = Path(above) / "drop"
        folder.mkdir()
        folder.chmod(0o777)
        (Path(above) / "beside").write_text("another's")
        (Path(above) / "beside").chmod(0o644)
        yield folder


# What is tried in every role, and what no role may answer.
EVERYWHERE = {
    "read /etc/passwd": "result = os.open('/etc/passwd', os.O_RDONLY) >= 0",
    "climb out of the root": "result = os.open('/../../../../etc/passwd', os.O_RDONLY) >= 0",
    "make a socket": "result = socket.socket(socket.AF_INET).fileno() >= 0",
    "make a process": "pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)\nresult = True",
    "run a program": "os.execv('/bin/true', ['true'])",
    "make memory executable": "result = call({mmap}, 0, 4096, 5, 0x22, -1, 0) == 'ok'",
    "signal the parent": "result = os.kill(os.getppid() or 7, 0) is None",
    "trace": "result = call({ptrace}, 0, 0, 0, 0) == 'ok'",
    "leave the root by chroot": "os.chroot('/')\nresult = True",
    "become root": "os.setuid(0)\nresult = True",
}
ON_A_SOCKET = {
    "connect the socket elsewhere": "result = control.connect(('127.0.0.1', 1)) is None",
    "listen on the socket": "control.listen(1)\nresult = True",
}


# What a descriptor that one has could still do elsewhere. 8, 10, 15: F_SETOWN, F_SETSIG, F_SETOWN_EX; 0x8901: FIOSETOWN.
THROUGH_THE_SOCKET = {
    "have another process signalled": "import fcntl\nfcntl.fcntl(control.fileno(), 8, os.getppid() or 1)\nresult = True",
    "have it signalled otherwise": "import fcntl\nfcntl.fcntl(control.fileno(), 10, 9)\nresult = True",
    "have a group signalled": "import fcntl\nfcntl.fcntl(control.fileno(), 15, bytes(8))\nresult = True",
    "have it signalled by ioctl": "import fcntl\nfcntl.ioctl(control.fileno(), 0x8901, bytes(4))\nresult = True",
    "see the machine's interfaces": "import fcntl\nfcntl.ioctl(control.fileno(), 0x8912, bytes(64))\nresult = True",
    "send to another address": "control.sendto(b'x', ('127.0.0.1', 9))\nresult = True",
    "send urgent bytes": "control.send(b'x', socket.MSG_OOB)\nresult = True",
    "make the connection anew": "control.setsockopt(socket.IPPROTO_TCP, 19, 1)\nresult = True",  # TCP_REPAIR
    "give it to the kernel's TLS": "control.setsockopt(socket.IPPROTO_TCP, 31, b'tls')\nresult = True",  # TCP_ULP
    "make other sockets": "socket.socketpair()\nresult = True",
    "be dumpable": "import ctypes\nresult = ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0",
    "outlive the monitor": "import ctypes\nresult = ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
    "come before others": "os.nice(-1)\nresult = True",
}


def numbered(code: str) -> str:
    numbers = {"x86_64": {"mmap": 9, "ptrace": 101}, "aarch64": {"mmap": 222, "ptrace": 117}}[platform.machine()]
    return code.format(**numbers)


def refused(answer: str) -> bool:
    return answer not in ("True", "ok")


Taken = taken.TakenPreLogin | taken.TakenSession | taken.TakenTls | taken.TakenPasswords


async def tried(worker: Taken, code: str) -> str:
    try:
        return await bunri.call(worker.run, numbered(code))
    except bunri.RemoteError:  # the attack itself is wrong, and shows nothing
        raise
    except bunri.PeerError as fault:  # killed for it
        return type(fault).__name__


@pytest.mark.parametrize("name", [*EVERYWHERE, *ON_A_SOCKET])
def test_prelogin_taken_over(name: str) -> None:
    async def go() -> None:
        async with prelogin() as (worker, _):
            assert refused(await tried(worker, {**EVERYWHERE, **ON_A_SOCKET}[name]))

    asyncio.run(go())


@pytest.mark.parametrize("name", [*EVERYWHERE, *ON_A_SOCKET])
def test_session_taken_over(name: str, drop: Path) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            assert refused(await tried(worker, {**EVERYWHERE, **ON_A_SOCKET}[name]))

    asyncio.run(go())


@pytest.mark.parametrize("name", EVERYWHERE)
def test_tls_taken_over(name: str) -> None:
    async def go() -> None:
        with bunri.File.open(__file__, "rb") as file:
            async with taken.TakenTls.start(file, None, True) as worker:
                assert refused(await tried(worker, EVERYWHERE[name]))

    asyncio.run(go())


@pytest.mark.parametrize("name", EVERYWHERE)
def test_auth_taken_over(name: str) -> None:
    async def go() -> None:
        async with taken.TakenPasswords.start() as worker:
            assert refused(await tried(worker, EVERYWHERE[name]))

    asyncio.run(go())


@pytest.mark.parametrize("name", [name for name in EVERYWHERE if name not in ("run a program", "become root")])
def test_the_same_is_possible_outside(name: str) -> None:
    """So the refusals above are the confinement's. (Some of it takes root.)"""
    if not ROOT and name == "leave the root by chroot":
        pytest.skip("takes root outside, too")
    assert outside(EVERYWHERE[name]) == "True"


IN_NEED_OF_ROOT = ("make the connection anew", "give it to the kernel's TLS", "come before others")


@pytest.mark.parametrize("name", [name for name in THROUGH_THE_SOCKET if name not in IN_NEED_OF_ROOT])
def test_a_socket_leads_elsewhere_outside(name: str) -> None:
    assert outside(THROUGH_THE_SOCKET[name]) == "True"


def outside(code: str) -> str:
    """What a plain process answers that has a connection."""
    made = "there = socket.create_server(('127.0.0.1', 0))\nhere = socket.create_connection(there.getsockname())"
    program = f"import socket, taken\n{made}\nprint(taken.attack({numbered(code)!r}, control=here))"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": path})
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("how", ["guess", "guess_at_once"])
def test_more_guesses_than_configured_end_the_worker(how: str) -> None:
    """The counter is the monitor's, and counts before anything waits."""

    async def go() -> None:
        async with prelogin() as (worker, login):
            with pytest.raises(bunri.PeerError):
                await bunri.call(getattr(worker, how), "alice", 50)
            assert login.looked_at <= CONFIG.max_login_fails
        async with prelogin() as (worker, login):
            assert await bunri.call(getattr(worker, how), "alice", 3) == [False] * 3

    asyncio.run(go())


def test_a_second_login_ends_the_worker(drop: Path) -> None:
    async def go() -> None:
        async with prelogin() as (worker, login):
            login._config = replace(CONFIG, anon_root=str(drop))
            with pytest.raises(bunri.PeerError):
                await bunri.call(worker.guess, "ftp", 2)
            assert login.account is not None

    asyncio.run(go())


@pytest.mark.parametrize("name", THROUGH_THE_SOCKET)
def test_what_is_there_leads_nowhere_else(name: str, drop: Path) -> None:
    async def go() -> None:
        async with prelogin() as (worker, _):
            assert refused(await tried(worker, THROUGH_THE_SOCKET[name]))
        async with session(drop) as other:
            assert refused(await tried(other, THROUGH_THE_SOCKET[name]))

    asyncio.run(go())


SESSION_ONLY = {
    "read a file beside the root": "result = os.open('/../beside', os.O_RDONLY) >= 0",
    "read it through a link": "os.symlink('../beside', 'a')\nresult = os.open('a', os.O_RDONLY) >= 0",
    "read it through an absolute link": "os.symlink('{folder}/beside', 'b')\nresult = os.open('b', os.O_RDONLY) >= 0",
    "make a device": "os.mknod('/null', 0o20666, os.makedev(1, 3))\nresult = True",
    "climb out by chroot": "os.mkdir('/x')\nos.chroot('/x')\nos.chdir('../../..')\nresult = True",
    "give a file to whoever runs it": "open('/s', 'w').close()\nos.chmod('/s', 0o6755)\nresult = os.stat('/s').st_mode & 0o6000 != 0",
    "make a pipe for others": "os.mkfifo('/fifo')\nresult = True",
    "watch what others do there": "import ctypes\nresult = ctypes.CDLL(None).inotify_init() >= 0",
    "run what was uploaded": "open('/x', 'w').write('#!/bin/sh')\nos.chmod('/x', 0o755)\nos.execv('/x', ['x'])",
    "map what was uploaded as code": "import mmap\nf = open('/m', 'w+b')\nf.write(b'x' * 4096)\nf.flush()\n"
    "mmap.mmap(f.fileno(), 4096, mmap.MAP_PRIVATE, 5)\nresult = True",
}


@pytest.mark.parametrize("name", SESSION_ONLY)
def test_session_stays_within_its_folder(name: str, drop: Path) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            await tried(worker, "os.chdir('/')\nresult = True")
            assert refused(await tried(worker, SESSION_ONLY[name].replace("{folder}", str(drop.parent))))
        async with session(drop) as worker:  # the control: within it, it may write
            assert await tried(worker, "open('/mine', 'w').write('x')\nresult = True") == "True"

    asyncio.run(go())
    assert (drop / "mine").read_text() == "x"


def test_sessions_do_not_reach_each_other(drop: Path) -> None:
    """Of one user, even: by signal, by trace, by what /proc shows. The control: whoever started them reaches both."""

    async def go() -> None:
        async with session(drop) as one, session(drop) as other:
            pid = other.process.pid
            os.kill(pid, 0)
            for code in (
                f"result = os.kill({pid}, 0) is None",
                f"result = call({{ptrace}}, 16, {pid}, 0, 0) == 'ok'",
                f"result = os.open('/proc/{pid}/mem', os.O_RDWR) >= 0",
                "result = os.kill(-1, 0) is None",
            ):
                async with session(drop) as third:
                    assert refused(await tried(third, code)), code
            assert await tried(other, "result = True") == "True"
            assert await tried(one, "result = True") == "True"

    asyncio.run(go())


def frame(thing: int, method: int, body: list[int]) -> list[int]:
    """A call, as it stands on the wire (bunri.wire.frames)."""
    return [*struct.pack("<5I", 3, thing, method, 1, len(body)), *body]


FORGED = {
    "no frame": [1, 2, 3],
    "a call of a method that there is not": frame(1, 99, [0x90]),
    "a call of an object that it was not handed": frame(9, 0, [0x90]),
    "arguments of another type": frame(1, 2, [0x91, 7]),  # user(7)
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_message_ends_its_sender(what: str) -> None:
    """Straight to the channel, descriptor 3. The monitor goes on, and has decided nothing."""

    async def go() -> None:
        async with prelogin() as (worker, login):
            with pytest.raises((bunri.ProtocolError, bunri.WorkerDied)):
                await bunri.call(worker.run, f"os.write(3, bytes({FORGED[what]}))\nwhile True: pass")
            assert login.account is None and login.looked_at == 0
        async with prelogin() as (worker, _):  # the control: the same, well made
            good = frame(1, 2, [0x91, 0xA1, 0x78])
            assert await bunri.call(worker.run, f"result = os.write(3, bytes({good}))") == str(len(good))
        async with prelogin() as (worker, login):
            assert await bunri.call(worker.guess, "alice", 1) == [False]

    asyncio.run(go())


@pytest.mark.parametrize("name", ["prelogin", "session"])
def test_no_descriptor_goes_up(name: str, drop: Path) -> None:
    """Nothing that the monitor would have to look at: vsftpd takes descriptors of data sockets and uploads."""
    code = (
        "s = socket.socket(fileno=3)\n"
        "try: result = s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))]) >= 0\n"
        "finally: s.detach()"
    )

    async def go() -> None:
        if name == "prelogin":
            async with prelogin() as (worker, _):
                assert await tried(worker, code) == "EPERM"
        else:
            async with session(drop) as other:
                assert await tried(other, code) == "EPERM"

    asyncio.run(go())
    ours, theirs = socket.socketpair()
    with ours, theirs:  # the control
        assert socket.send_fds(ours, [b"x"], [0]) == 1


def test_session_reaches_no_port_but_its_peers(drop: Path) -> None:
    """There is no address in the message; low ports are refused; a port where nobody listens is only that."""

    async def go() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with session(drop) as worker:
                assert await bunri.call(worker.connect, 22, False) == "425 Illegal PORT command."
                assert await bunri.call(worker.connect, 70000, False) == "425 Illegal PORT command."
                port = listener.getsockname()[1]
                assert await bunri.call(worker.connect, port, True) == "522 There is no TLS here."
                assert await bunri.call(worker.connect, port, False) == "connected"

    asyncio.run(go())


# What a socket could do that listens for the peer.
WITH_A_PASSIVE_SOCKET = {
    "let others in": "passive.setsockopt(socket.SOL_SOCKET, 27, 0)\nresult = True",  # SO_DETACH_FILTER
    "bind it elsewhere": "passive.bind(('127.0.0.1', 0))\nresult = True",
    "connect it": "result = passive.connect(('127.0.0.1', 1)) is None",
    "connect it to nobody, and anew": "import ctypes\nunspecified = bytes(16)\n"
    "result = ctypes.CDLL(None, use_errno=True).connect(passive.fileno(), unspecified, 16) == 0",
    "send from it": "passive.sendto(b'x', ('127.0.0.1', 9))\nresult = True",
}


@needs_filter
@pytest.mark.parametrize("name", WITH_A_PASSIVE_SOCKET)
def test_a_socket_for_the_peer_is_for_nothing_else(name: str, drop: Path) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            assert refused(await bunri.call(worker.try_passive, WITH_A_PASSIVE_SOCKET[name]))
            assert await bunri.call(worker.try_passive, "passive.listen(1)\nresult = True") == "True"  # the control

    asyncio.run(go())


@needs_filter
def test_nobody_but_the_peer_reaches_a_session(drop: Path) -> None:
    """However it listens: the kernel drops what comes from elsewhere."""

    async def go() -> None:
        async with session(drop) as worker:
            ports = await bunri.call(worker.listen, 4)
            for port in ports:
                with socket.socket() as stranger:
                    stranger.bind(("127.0.0.2", 0))
                    stranger.settimeout(0.2)
                    with pytest.raises(TimeoutError):
                        stranger.connect(("127.0.0.1", port))
                socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.1", 0)).close()
            assert await bunri.call(worker.accepted) == ["127.0.0.1"] * 4

    asyncio.run(go())


@needs_filter
def test_a_session_asks_for_no_more_than_some_sockets(drop: Path) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            assert len(set(await bunri.call(worker.listen, MOST_SOCKETS))) == MOST_SOCKETS
            with pytest.raises(bunri.PeerError):
                await bunri.call(worker.listen, MOST_SOCKETS + 1)

    asyncio.run(go())


def test_a_session_sends_no_more_than_some_lines_at_once(drop: Path) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            await bunri.call(worker.log, MOST_LINES)
            with pytest.raises(bunri.PeerError):
                await bunri.call(worker.log, MOST_LINES + 1)

    asyncio.run(go())


@needs_filter
@pytest.mark.parametrize(
    ("family", "here", "peer", "other"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "127.0.0.2"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.2"),
        (socket.AF_INET6, "::1", "::1", None),
        (socket.AF_INET6, "::1", "::2", "::1"),
        (socket.AF_INET6, "::1", "1::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127::1", "127.0.0.1"),
    ],
)
def test_the_filter_lets_in_one_address(family: socket.AddressFamily, here: str, peer: str, other: str | None) -> None:
    """And stays where it is, also for root."""

    def comes(source: str) -> bool:
        to = here.removeprefix("::ffff:")
        try:
            socket.create_connection((to, port), timeout=0.2, source_address=(source, 0)).close()
        except TimeoutError:
            return False
        return True

    with socket.socket(family) as sock:
        sock.bind((here, 0))
        sock.listen(1)
        port = sock.getsockname()[1]
        plain = here.removeprefix("::ffff:")
        assert comes(other or plain)  # the control
        sock.accept()[0].close()
        PeerFilter((peer, 1)).put_on(sock)
        assert comes(plain) is (peer == here)
        assert other is None or not comes(other)
        with pytest.raises(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER


def test_session_forges_no_line_of_the_log(drop: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with session(drop) as worker:
            await bunri.call(worker.forge, '/x\nroot OK LOGIN: Client "192.0.2.1"\x1b[2J')

    with caplog.at_level("INFO", "bunri.ftpd"):
        asyncio.run(go())
    assert "\n" not in caplog.messages[-1] and "\x1b" not in caplog.messages[-1]
    assert caplog.messages[-1].startswith('[ftp] OK DOWNLOAD: Client "127.0.0.1"')


def test_session_does_not_fill_the_log(drop: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What goes beyond a session's share is written late, and the session waits for it; nobody else does."""

    async def go() -> None:
        async with session(drop) as worker, session(drop) as other:
            flood = bunri.call(worker.flood, 300)
            await asyncio.sleep(1)
            assert not flood.done() and await bunri.call(other.flood, 10) < 0.5
            assert await flood > (300 * 4000 - AHEAD) / RATE
        async with session(drop) as worker:
            with pytest.raises(bunri.PeerError):
                await bunri.call(worker.flood_at_once, 3000)

    with caplog.at_level("INFO", "bunri.ftpd"):
        asyncio.run(go())
    told = [text for text in caplog.messages if "it waits" in text]
    assert told[0] == f"127.0.0.1: a session writes more than {RATE} bytes of lines a second: it waits"
    assert len(told) <= 2


def test_prelogin_has_at_most_thirty_calls() -> None:
    """The filter's own words; and beside them two calls that every ordinary worker has, tried."""
    shown = subprocess.run(
        [sys.executable, "-m", "bunri", "explain", "bunri.apps.ftpd.prelogin:PreLogin", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rules = [each["rule"] for each in json.loads(shown.stdout)["rules"]]
    allowed = [rule.partition(", when=")[0] for rule in rules if rule.startswith("allow(")]
    assert allowed and not any("more" in rule for rule in allowed)
    names = {name for rule in allowed for name in re.findall(r"'(\w+)'", rule)}
    assert names == CALLS and len(names) <= 30

    async def go() -> None:
        async with prelogin() as (worker, _):
            for code in ("not os.sched_yield()", "os.uname()"):
                assert (await tried(worker, f"result = bool({code})"), code) == ("EPERM", code)
        async with taken.TakenPasswords.start() as other:
            for code in ("not os.sched_yield()", "os.uname()"):
                assert await tried(other, f"result = bool({code})") == "True"

    asyncio.run(go())


# Against the running server.

# Before all else: root's capability goes without which newer kernels let nobody put a filter on a TCP socket.
WITHOUT = "import ctypes, os, sys\nif os.geteuid() == 0 and ctypes.CDLL(None).prctl(23, 12) > 0:\n"
WITHOUT += "    ctypes.CDLL(None).prctl(24, 12, 0, 0, 0)\n    os.execv(sys.executable, sys.orig_argv)\n"


@pytest.fixture(scope="module")
def server(pub: Path) -> Iterator[Served]:
    file = written(pub.parent / "attacked", anonymous_enable="YES", anon_root=pub, ftp_username="", accept_timeout=5)
    with serving(pub.parent, str(file)) as running:
        yield running


@pytest.fixture(params=["session", "monitor"])
def accepting(request: pytest.FixtureRequest, pub: Path, server: Served) -> Iterator[Served]:
    """Servers of which one or the other accepts."""
    if request.param == "session":
        if not is_possible():
            pytest.skip("this user may not put filters on sockets")
        yield server
        return
    file = written(pub.parent / "accepts", anonymous_enable="YES", anon_root=pub, ftp_username="", accept_timeout=5)
    with serving(pub.parent, str(file), first=WITHOUT) as running:
        yield running


def test_a_stranger_who_is_quicker_gets_no_data(accepting: Served) -> None:
    """PASV theft (RFC 2577): the port is guessed, and the connection made before the peer makes it."""
    with accepting.login() as ftp:
        host, port = ftp.makepasv()
        with socket.socket() as thief:
            thief.bind(("127.0.0.2", 0))
            thief.settimeout(1)
            is_in = thief.connect_ex((host, port)) == 0  # not where the kernel drops what he sends
            ftp.putcmd("RETR hello")
            assert ftp.getresp().startswith("150")
            assert not is_in or thief.recv(100) == b""
        with socket.create_connection((host, port)) as peer:
            peer.settimeout(5)
            assert peer.recv(100) == b"hello\n"
        assert ftp.getresp().startswith("226")


@needs_filter
def test_a_port_is_the_peers_once(server: Served) -> None:
    """What listened for one transfer listens for no other; who comes twice waits in no queue."""
    with server.login() as ftp:
        host, port = ftp.makepasv()
        with socket.create_connection((host, port)) as first, socket.create_connection((host, port)) as second:
            ftp.voidcmd("TYPE I")
            ftp.putcmd("RETR hello")
            assert ftp.getresp().startswith("150") and first.recv(100) == b"hello\n"
            assert ftp.getresp().startswith("226")
            with pytest.raises(ConnectionResetError):
                second.recv(100)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        assert ftp.makepasv()[1] != port


def test_a_killed_prelogin_worker_ends_its_own_connection_only(server: Served) -> None:
    with server.login() as other, FTP(timeout=10) as victim:
        victim.connect("127.0.0.1", server.port)
        only_this_one_notices(server, victim, other, server.login)


def test_a_killed_session_ends_its_own_connection_only(server: Served) -> None:
    with server.login() as other, server.login() as victim:
        only_this_one_notices(server, victim, other, server.login)


def test_a_login_that_earns_nothing_does_not_tell_whether_the_password_was_right() -> None:
    """root's, say: a password that cannot be right is asked about in its place, and takes as long as any wrong one."""
    config = replace(CONFIG, guest_username="root")

    async def go() -> None:
        with connection() as (control, _):
            login = Counted(control, config, "127.0.0.1", Logs(config))
            assert not await login.password("alice", bunri.Secret("right"))
            assert login.looked_at == 1 and login.asked != b"right"

    asyncio.run(go())


def test_a_port_that_cannot_be_had_is_an_answer() -> None:
    async def go() -> None:
        with connection() as (control, _), socket.create_server(("127.0.0.1", 0)) as other:
            config = replace(CONFIG, connect_from_port_20=True, ftp_data_port=other.getsockname()[1])
            data = DataHere(control, config, None, only_tls=False)
            with pytest.raises(NoData, match="Address already in use"):
                await data.connect(5000, protected=False)

    asyncio.run(go())
