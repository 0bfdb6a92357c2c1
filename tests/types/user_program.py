"""What a user writes, with every public name: both checkers accept it, and see the types that stand here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, assert_type

import bunri
from bunri import (
    AT_START,
    PIPE,
    Access,
    BunriError,
    Call,
    Capability,
    Compartment,
    Datagram,
    DeadlineExceeded,
    Denial,
    Directory,
    Exit,
    File,
    HostError,
    InternalError,
    Layer,
    Mapped,
    Misbehaved,
    NotFinite,
    Observer,
    PeerError,
    Policy,
    Process,
    Promise,
    ProtocolError,
    RawText,
    RemoteError,
    Report,
    Reuse,
    Secret,
    Service,
    State,
    Untrusted,
    UsageError,
    User,
    Via,
    Violation,
    WorkerDied,
    Zygotes,
    fs,
    net,
    seccomp,
)

# messages ----------------------------------------------------------------------------------------------------------


@dataclass
class NotFound(Exception):
    name: str


@dataclass(frozen=True)
class Size:
    width: int
    height: int = 1


class Login(Service):
    @bunri.limit(calls=3, concurrent=1, size="4K")
    @abstractmethod
    async def password(self, user: str, password: Secret) -> Files | None: ...


class Files(Service):
    @bunri.raises(FileNotFoundError, PermissionError)
    @abstractmethod
    async def create(self, name: str) -> File: ...

    @abstractmethod
    def names(self) -> Iterator[str]: ...

    @abstractmethod
    def changes(self) -> AsyncIterator[str]: ...


# compartments ------------------------------------------------------------------------------------------------------


class Thumbnailer(Compartment):
    """A constructor, keyword-only arguments, defaults, a stream, an exception."""

    policy = Policy(
        user=User.dynamic(),
        files=[fs.read("/usr/share", at="/data"), fs.write(Path("/srv")), fs.scratch("/tmp", "64M"), fs.system(), fs.python(),
               fs.execute("/bin/true"), fs.read("/etc/hosts", via=Via.BROKER)],
        network=[net.connect("localhost", 80), net.listen(8080), net.unix("/run/x")],
        capabilities=[Capability.NET_BIND_SERVICE],
        syscalls=["getcpu", seccomp.deny("uname", reason="of no use")],
        memory="512M", cpu="5s", wall=30, open_files=64, file_size=None, threads=1, processes=0,
        env={"TZ": "UTC"}, selinux=None, apparmor=None, may_miss=[Promise.MEMORY, Promise.LABEL],
    )  # fmt: skip
    preload = ("json",)
    reuse = Reuse.NEVER

    def __init__(self, quality: int, *, name: str = "x") -> None:
        self._quality = quality

    @classmethod
    def warm_up(cls) -> None: ...

    @bunri.raises(NotFound)
    def thumbnail(self, image: bytes, edge: int = 128) -> bytes:
        return image[:edge]

    def sizes(self, images: list[bytes]) -> Iterator[Size]:
        yield Size(len(images))


class Session(Compartment):
    """Handles, services, and a loop."""

    policy = Policy(user=AT_START, files=AT_START, memory=AT_START)
    reuse = Reuse.DANGEROUS_ACROSS_PRINCIPALS

    def __init__(self, control: socket.socket, login: Login, tree: Directory, ring: Mapped) -> None: ...

    async def serve(self) -> Size | None:
        return None

    async def read(self, file: File, peer: Annotated[socket.socket, Datagram]) -> Annotated[str, RawText]:
        return "text"

    async def mean(self, values: list[Annotated[float, NotFinite]]) -> float:
        return sum(values)

    async def events(self) -> AsyncIterator[Size]:
        yield Size(1)


@dataclass
class Settings(Compartment):
    """Its constructor is made by dataclass."""

    quality: int
    name: str = field(default="x", kw_only=True)

    def get(self) -> tuple[int, str]:
        return self.quality, self.name


# the monitor -------------------------------------------------------------------------------------------------------


class LoginHere(Login):
    def __init__(self, peer: str) -> None:
        self.peer = peer

    async def password(self, user: str, password: Secret) -> Files | None:
        if password == Secret("x"):
            raise Misbehaved("too easy")
        assert_type(password.reveal(), bytearray)
        password.wipe()
        return FilesHere()


class FilesHere(Files):
    async def create(self, name: str) -> File:
        return File.open(name, "w")

    def names(self) -> Iterator[str]:
        yield "a"

    async def changes(self) -> AsyncIterator[str]:
        yield "a"


def blocking(photo: bytes) -> None:
    with Thumbnailer.start(80, name="y") as worker:
        assert_type(worker, Thumbnailer)
        assert_type(worker.thumbnail(photo), bytes)
        assert_type(worker.thumbnail(photo, edge=64), bytes)
        for size in worker.sizes([photo]):
            assert_type(size, Size)
        call = bunri.call(worker.thumbnail, photo, edge=3)
        assert_type(call, Call[bytes])
        assert_type(call.result(1.0), bytes)
        assert_type(call.cancel(), bool)
        for done in bunri.map(worker.thumbnail, [photo]):
            assert_type(done, Call[bytes])
        for ended in concurrent.futures.as_completed([call]):
            assert_type(ended.result(), bytes)
        assert_type(concurrent.futures.wait([call]).done, set[concurrent.futures.Future[bytes]])
        with bunri.deadline(2), bunri.deadline(0.5):
            worker.thumbnail(photo)
        process = worker.process
        assert_type(process, Process)
        assert_type(process.wait(), Exit)
        assert_type(process.report, Report)
        assert_type(process.report.layers, tuple[Layer, ...])
        assert_type(process.report.layers[0].state, State)
        assert_type(process.denials, tuple[Denial, ...])
        assert_type(process.narrow(Policy(memory="1M")), Report)
        assert_type(process.policy, Policy)
        assert_type(process.pid, int)
        process.signal(15)
    pool = Thumbnailer.pool(4, 80)
    assert_type(pool, Thumbnailer)
    pool.close()
    assert_type(Settings.start(3, name="z").get(), tuple[int, str])
    under = Thumbnailer.start_under(Thumbnailer.policy.with_(memory="1M"), 80)
    assert_type(under, Thumbnailer)
    bunri.prepare(Thumbnailer, Session)


async def asynchronous(control: socket.socket, fd: int) -> None:
    policy = Session.policy.with_(user=User.named("ftp"), files=[], memory="64M")
    ring = Mapped(fd, 4096, Access.WRITE)
    tree = Directory.at("/srv", Access.READ)
    async with Session.start_under(policy, control, LoginHere("peer"), tree, ring) as session:
        assert_type(session, Session)
        size = await session.serve()
        assert_type(size, Size | None)
        begun = bunri.call(session.serve)
        assert_type(begun, Call[Size | None])
        assert_type(await begun, Size | None)
        first, second = await asyncio.gather(session.serve(), bunri.call(session.mean, [1.0]))
        assert_type(first, Size | None)
        assert_type(second, float)
        assert_type(await asyncio.wait_for(bunri.call(session.serve), 1), Size | None)
        async for event in session.events():
            assert_type(event, Size)
        assert_type(await bunri.call(session.process.wait), Exit)
    file = await tree.open("a", "rb")
    assert_type(file, File)
    assert_type(await tree.list(), list[str])
    with file, file.as_file() as stream:
        assert_type(stream.read(), bytes)


def errors(thumbnailer: Thumbnailer) -> str:
    try:
        thumbnailer.thumbnail(b"")
    except NotFound as fault:
        return fault.name
    except Violation as fault:
        assert_type(fault.denial, Denial)
        assert_type(fault.denial.observed_by, Observer)
        return fault.denial.path or fault.denial.to_json()
    except RemoteError as fault:
        return fault.type_name or fault.text
    except WorkerDied as fault:
        assert_type(fault.exit.signal, int | None)
        return fault.exit.cause or ""
    except (DeadlineExceeded, ProtocolError, PeerError) as fault:
        return bunri.printable(str(fault))
    except HostError as fault:
        assert_type(fault.promise, Promise | None)
        return fault.remedy or ""
    except (UsageError, InternalError, BunriError):
        return str(Untrusted("x"))
    return ""


def programs(terminal: int) -> None:
    process = bunri.spawn(
        ["sort"], Policy(files=[fs.system()]), stdin=PIPE, stdout=terminal, env={"A": "b"}, cwd=Path("/")
    )
    assert_type(process.stdin, File | None)
    assert_type(process.wait().code, int | None)
    with open(os.devnull, "rb") as nothing:
        bunri.spawn(["true"], Policy(), stdin=nothing, tty=PIPE)
    report = bunri.confine(Policy.strict(), keep=(0, 1, 2, File(terminal)), zygotes=Zygotes.END)
    assert_type(report, Report)
    assert_type(Policy.compute().with_(cpu=1.5), Policy)
    assert_type(Policy.dangerous_unconfined(user=User.same()), Policy)
    User.ids(1, 2, (3, 4))
