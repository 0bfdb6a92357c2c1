"""What happens to servers in service: many peers, large files, full disks, peers that stop, processes that die, systemd."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ftplib import FTP, error_temp
from pathlib import Path

import pytest
from ftp_served import ROOT, Served, certificate, serving, written

import bunri
from bunri.apps.ftpd.auth import Passwords, set_password
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.logins import LoginHere
from bunri.apps.ftpd.logs import Logs
from bunri.apps.ftpd.transfers import MOMENT, Aborted, take_at_once
from bunri.process import program

pytestmark = pytest.mark.slow
LARGE = 256 << 20


@pytest.fixture
def drop(place: Path) -> Path:
    """A root with a folder that everybody may write to."""
    (place / "root" / "in").mkdir(parents=True)
    (place / "root" / "in").chmod(0o1777)
    (place / "root").chmod(0o755)
    return place / "root"


@pytest.fixture
def uploads(place: Path, drop: Path) -> Iterator[Served]:
    file = written(place / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="", write_enable="YES",
                   anon_upload_enable="YES", anon_world_readable_only="NO", anon_umask="022")  # fmt: skip
    with serving(place, str(file)) as server:
        yield server


def test_fifty_sessions_at_once(uploads: Served, drop: Path) -> None:
    """Each stores its own file and fetches it again, while the others do."""
    faults: list[BaseException] = []

    def one(number: int) -> None:
        content = bytes([number]) * 200_000
        try:
            with uploads.login() as ftp:
                ftp.storbinary(f"STOR in/{number}", io.BytesIO(content))
                parts: list[bytes] = []
                ftp.retrbinary(f"RETR in/{number}", parts.append)
                assert b"".join(parts) == content
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(list((drop / "in").iterdir())) == 50


def test_a_large_file_goes_and_comes_unchanged(uploads: Served, place: Path, drop: Path) -> None:
    source = place / "source"
    with source.open("wb") as file:
        for number in range(LARGE >> 20):
            file.write(hashlib.sha256(b"%d" % number).digest() * (1 << 15))
    found = hashlib.sha256()
    with uploads.login() as ftp:
        with source.open("rb") as file:
            wanted = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            ftp.storbinary("STOR in/large", file, blocksize=1 << 20)
        with (drop / "in/large").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == wanted
        ftp.retrbinary("RETR in/large", found.update, blocksize=1 << 20)
    assert found.digest() == wanted


def test_an_aborted_transfer_leaves_the_session(uploads: Served, drop: Path) -> None:
    (drop / "large").write_bytes(bytes(8 << 20))
    with uploads.login() as ftp:
        ftp.voidcmd("TYPE I")
        with ftp.transfercmd("RETR large") as data:
            assert data.recv(1000)
            ftp.sock.sendall(b"\xff\xf4\xff", socket.MSG_OOB)
            ftp.sock.sendall(b"\xf2ABOR\r\n")
            while data.recv(1 << 20):
                pass
        answers = []
        with contextlib.suppress(error_temp):
            answers.append(ftp.getmultiline())
            answers.append(ftp.getmultiline())
        assert [answer[:3] for answer in answers] in (["426", "226"], ["426", "225"], ["226", "225"]), answers
        assert ftp.nlst()


@pytest.mark.parametrize("more", [{}, {"anon_max_rate": 1 << 20}, {"ascii_upload_enable": "YES"}])
def test_an_upload_that_was_reset_is_not_complete(place: Path, drop: Path, more: dict[str, str | int]) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="", write_enable="YES",
                   anon_upload_enable="YES", xferlog_enable="YES", vsftpd_log_file=place / "log", **more)  # fmt: skip
    with serving(place, str(file)) as server, server.login() as ftp:
        ftp.voidcmd("TYPE A" if "ascii_upload_enable" in more else "TYPE I")
        data = ftp.transfercmd("STOR in/part")
        data.sendall(b"x" * 1000)
        until = time.monotonic() + 10
        while not (drop / "in" / "part").stat().st_size and time.monotonic() < until:
            time.sleep(0.01)
        data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        data.close()
        assert ftp.getmultiline() == "426 Failure reading network stream."
        assert ftp.voidcmd("NOOP")
    assert 'FAIL UPLOAD: Client "127.0.0.1", "/in/part", 1000 bytes' in (place / "log").read_text()


@pytest.mark.parametrize("pause", [0.0, 5 * MOMENT])
def test_an_upload_may_be_in_no_hurry(uploads: Served, drop: Path, pause: float) -> None:
    """Small ones are taken before the loop would begin to; what comes later is the loop's."""
    with uploads.login() as ftp:
        ftp.voidcmd("TYPE I")
        data = ftp.transfercmd(f"STOR in/slow{pause}")
        for piece in (b"first,", b"second,", b"third"):
            data.sendall(piece)
            time.sleep(pause)
        data.close()
        assert ftp.voidresp().startswith("226")
        assert ftp.voidcmd("NOOP")
    assert (drop / "in" / f"slow{pause}").read_bytes() == b"first,second,third"


def test_a_small_upload_ends_at_once_or_is_left_to_the_loop(tmp_path: Path) -> None:
    """By what stands in the sockets: all of it, a part, a command beside it, a reset."""
    with closing_pairs(3) as (data, control, broken), (tmp_path / "file").open("wb", buffering=0) as file:
        (here, peer), (ours, his), (reset, resets) = data, control, broken
        here.setblocking(False)
        reset.setblocking(False)
        peer.sendall(b"a part")
        assert take_at_once(here, ours, file) == (6, False)
        his.sendall(b"ABOR\r\n")
        assert take_at_once(here, ours, file) == (0, False)
        peer.sendall(b", the rest")
        peer.close()
        assert take_at_once(here, ours, file) == (10, True)
        assert (tmp_path / "file").read_bytes() == b"a part, the rest"
        resets.sendall(b"some")
        resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        resets.close()
        with pytest.raises(Aborted, match="426 Failure reading network stream"):
            take_at_once(reset, ours, file)


@contextlib.contextmanager
def closing_pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Pairs of connected TCP sockets."""
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:
        pairs = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(server.getsockname()))
            pairs.append((stack.enter_context(server.accept()[0]), peer))
        yield pairs


def test_an_upload_goes_on_where_it_stopped(uploads: Served, place: Path, drop: Path) -> None:
    file = written(place / "conf2", anonymous_enable="YES", anon_root=drop, ftp_username="", write_enable="YES",
                   anon_upload_enable="YES", anon_other_write_enable="YES", anon_umask="022")  # fmt: skip
    with serving(place, str(file)) as server, server.login() as ftp:
        ftp.storbinary("STOR in/part", io.BytesIO(b"a" * 1000))
        ftp.storbinary("STOR in/part", io.BytesIO(b"b" * 1000), rest=500)
        ftp.storbinary("APPE in/part", io.BytesIO(b"c" * 10))
    assert (drop / "in/part").read_bytes() == b"a" * 500 + b"b" * 1000 + b"c" * 10


def test_a_half_closed_peer_is_let_go(uploads: Served) -> None:
    """He closes his sending side, in each phase: the server closes, and nothing of him stays."""
    for commands in (b"", b"USER ftp\r\nPASS x\r\n"):
        with socket.create_connection(("127.0.0.1", uploads.port), timeout=10) as peer:
            peer.sendall(commands)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1000):
                pass
    assert uploads.login().quit().startswith("221")


def test_a_peer_who_says_nothing_is_sent_away(place: Path, pub: Path) -> None:
    with serving(place, "--share", str(pub), "-oidle_session_timeout=1") as server, server.login() as ftp:
        begun = time.monotonic()
        with pytest.raises((error_temp, EOFError)):
            ftp.getresp()
        assert 0.5 < time.monotonic() - begun < 8


@pytest.mark.skipif(not ROOT, reason="only root can make a small disk")
def test_a_full_disk_ends_the_upload_and_not_the_session(uploads: Served, place: Path, drop: Path) -> None:
    small = drop / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "bunri-test", str(small)], check=True)
    try:
        file = written(place / "conf2", anonymous_enable="YES", anon_root=drop, ftp_username="", write_enable="YES",
                       anon_upload_enable="YES")  # fmt: skip
        with serving(place, str(file)) as server, server.login() as ftp:
            with pytest.raises((error_temp, BrokenPipeError, ConnectionResetError)) as fault:
                ftp.storbinary("STOR small/much", io.BytesIO(bytes(8 << 20)))
            answer = str(fault.value) if isinstance(fault.value, error_temp) else ""
            if not answer:
                with pytest.raises(error_temp, match="426") as later:
                    ftp.voidresp()
                answer = str(later.value)
            assert "No space left" in answer
            ftp.storbinary("STOR in/little", io.BytesIO(b"x"))
            assert server.says("FAIL UPLOAD")
            with pytest.raises(error_temp, match="426 No space left"):  # one that is over before the loop's first turn
                ftp.storbinary("STOR small/little", io.BytesIO(bytes(4096)))
            assert ftp.voidcmd("NOOP")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_killed_auth_process_is_a_no(place: Path, pub: Path) -> None:
    """And the connection goes on: the next password is looked at by another process."""
    users = place / "users"
    set_password(users, "alice", "right")
    config = Config(local_enable=True, guest_enable=True, guest_username="nobody", virtual_passwd_file=str(users),
                    local_root=str(pub), delay_failed_login=0)  # fmt: skip

    async def go() -> list[bool]:
        with socket.socket() as control:
            login = LoginHere(control, config, "192.0.2.1", Logs(config))
            asked = asyncio.create_task(login.password("alice", bunri.Secret("right")))
            while not (found := pids_of(Passwords)):
                await asyncio.sleep(0)
            os.kill(found[0], signal.SIGKILL)
            return [await asked, await login.password("alice", bunri.Secret("right"))]

    assert asyncio.run(go()) == [False, True]


def pids_of(cls: type[bunri.Compartment]) -> list[int]:
    """Its workers that somebody has started."""
    templates = program.current().role_for(cls).templates.values()
    return [w.pid for t in templates if t.cls is cls for w in t.workers.values() if w.pid and w not in t.spares]


# Started by systemd, reloaded, stopped.


def handed(sockets: list[socket.socket], env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """The server, as systemd starts it: descriptors from 3 on, LISTEN_PID, LISTEN_FDS and what else is given."""
    numbers = [each.fileno() for each in sockets]
    above = max(10, *numbers) + 1
    moves = "".join(f"exec {above + at}<&{number};" for at, number in enumerate(numbers))
    moves += "".join(f"exec {3 + at}<&{above + at} {above + at}<&-;" for at in range(len(numbers)))
    command = ["bash", "-c", f'{moves} LISTEN_PID=$$ exec "$@"', "bash", sys.executable, "-m", "bunri", "ftpd"]
    env = {**os.environ, "LISTEN_FDS": str(len(sockets)), **env}
    return subprocess.Popen([*command, *arguments], pass_fds=numbers, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=env)  # fmt: skip


def test_it_takes_a_socket_and_says_when_it_is_ready(place: Path, pub: Path) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0bunri-test-{os.getpid()}")
        told.settimeout(30)
        with handed([listener], {"NOTIFY_SOCKET": f"@bunri-test-{os.getpid()}"}, str(file), "-olisten=NO") as process:
            try:
                assert told.recv(100) == b"READY=1"
                with FTP(timeout=10) as ftp:
                    ftp.connect(*listener.getsockname())
                    ftp.login()
                    assert "hello" in ftp.nlst()
            finally:
                process.terminate()
                assert process.wait(20) == 0


def test_it_takes_all_sockets_and_one_begins_with_tls(place: Path, pub: Path) -> None:
    """Both families; and the one that its unit names ftps (FileDescriptorName=)."""
    certificate(place / "pem")
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", ssl_enable="YES",
                   allow_anon_ssl="YES", rsa_cert_file=place / "pem")  # fmt: skip
    with contextlib.ExitStack() as stack:
        four = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        six = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        secret = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        env = {"LISTEN_FDNAMES": "bunri-ftpd.socket:bunri-ftpd.socket:ftps"}
        process = stack.enter_context(handed([four, six, secret], env, str(file), "-olisten=NO"))
        try:
            assert process.stdout is not None
            ports = [each.getsockname()[1] for each in (four, six, secret)]
            said = f"ftp://127.0.0.1:{ports[0]}/ ftp://[::1]:{ports[1]}/ ftps://127.0.0.1:{ports[2]}/\n"
            assert process.stdout.readline().endswith(said)
            for host, port in (("127.0.0.1", ports[0]), ("::1", ports[1])):
                with FTP(timeout=10) as ftp:
                    ftp.connect(host, port)
                    ftp.login()
                    assert "hello" in ftp.nlst()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with socket.create_connection(("127.0.0.1", ports[2]), 10) as peer, context.wrap_socket(peer) as tls:
                assert tls.recv(100).startswith(b"220 ")
            file.write_text(file.read_text().replace("ssl_enable=YES", "ssl_enable=NO"))
            process.send_signal(signal.SIGHUP)
        finally:
            process.terminate()
            assert process.wait(20) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "the old configuration stays: " in log and "the socket ftps of systemd needs ssl_enable=YES" in log, log


@pytest.mark.parametrize(
    ("kind", "env", "why"),
    [
        (socket.SOCK_DGRAM, {}, "descriptor 3 of systemd is no listening TCP socket"),
        (socket.SOCK_STREAM, {}, "descriptor 3 of systemd is no listening TCP socket"),
        (socket.SOCK_STREAM, {"LISTEN_FDS": "0"}, "systemd says LISTEN_FDS='0'"),
        (socket.SOCK_STREAM, {"LISTEN_FDS": "9"}, "of systemd is no"),
    ],
)
def test_a_socket_that_peers_cannot_come_to_is_refused(
    place: Path, pub: Path, kind: socket.SocketKind, env: dict[str, str], why: str
) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="")
    with socket.socket(socket.AF_INET, kind) as made, handed([made], env, str(file)) as process:
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 2 and why in said and "Traceback" not in said, said


def test_sessions_may_end_what_they_do(place: Path, pub: Path) -> None:
    """SIGTERM: nobody new, and who is here has some seconds."""
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="")
    with serving(place, str(file), "--drain", "20") as server:
        with server.login() as ftp:
            server.process.terminate()
            assert server.says("1 connections have 20 seconds")
            with pytest.raises(OSError, match="refused"):
                server.login()
            assert "hello" in ftp.nlst()
            begun = time.monotonic()
            ftp.quit()
        server.process.wait(15)
        assert time.monotonic() - begun < 10


def test_whose_workers_die_again_and_again_waits_and_nobody_else_does(place: Path, pub: Path) -> None:
    """A fault of memory in a worker is the peer's who feeds it; that starts are then held back is not for all."""
    here = str(Path(__file__).parent)
    owned = f"import sys; sys.path.insert(0, {here!r})\nimport crashing\nfrom bunri.apps.ftpd import monitor\nmonitor.PreLogin = crashing.Crashing"
    with serving(place, "--share", str(pub), first=owned) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        peers = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(20)]
        for peer in peers:
            assert peer.recv(100).startswith(b"220")
        for peer in peers:
            peer.sendall(b"CRASH\r\n")
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(100) == b""
        with socket.create_connection(address, 20) as again:
            assert again.recv(100) == b"421 Please try again in a minute.\r\n"
        with FTP(timeout=20, source_address=("127.0.0.2", 0)) as other:
            other.connect(*address)
            other.login()
            assert "hello" in other.nlst()


@pytest.mark.skipif(not ROOT or os.path.exists("/dev/log"), reason="takes the place of the host's syslog")
def test_events_reach_syslog(place: Path, pub: Path) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", xferlog_enable="YES",
                   syslog_enable="YES")  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("/dev/log")
        try:
            heard.settimeout(20)
            with serving(place, str(file)) as server, server.login() as ftp:
                ftp.retrbinary("RETR hello", lambda _: None)
                lines: list[str] = []
                while not lines or "OK DOWNLOAD" not in lines[-1]:
                    line = heard.recv(1000).decode()
                    lines += (
                        [line] if f"bunri-ftpd[{server.process.pid}]" in line else []
                    )  # the host has one such socket
        finally:
            os.unlink("/dev/log")
    assert any('[ftp] OK LOGIN: Client "127.0.0.1"' in line for line in lines)


@pytest.mark.skipif(not os.path.exists("/usr/bin/systemd-analyze"), reason="systemd is not installed")
def test_the_units_are_right(tmp_path: Path) -> None:
    import bunri.apps.ftpd

    for unit in (Path(bunri.apps.ftpd.__path__[0]) / "systemd").iterdir():
        text = unit.read_text().replace("/usr/bin/bunri", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 2
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "bunri-ftpd" in line]) == (0, [])
