"""Runs in: the monitor, with the user's rights. Opens files, hands them to confined decoders, writes what comes back.

It reads no byte of any picture and has no Pillow. What comes back is believed as far as it was checked: the number of
pixels. Words of a worker are shown through `bunri.printable` only.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import bunri
from bunri.apps.demo import attacks
from bunri.apps.demo.attacker import Attacker
from bunri.apps.demo.attacks import ATTACKS, Target
from bunri.apps.demo.composer import Composer, Tile
from bunri.apps.demo.decoder import Decoder, Pixels, Refused
from bunri.apps.demo.processes import Seen, look_at_all

EDGE = 160  # pixels
ON_THE_SHEET = 80  # pictures


@dataclass(frozen=True)
class Done:
    """What became of one file: pixels, or the cause why there are none. Both texts are printable."""

    path: Path
    picture: Pixels | None
    cause: str

    @property
    def name(self) -> str:
        return bunri.printable(self.path.name, limit=200)


@dataclass(frozen=True)
class Attempt:
    """One action, in a confined worker and in a plain process: ("got" | "refused" | "killed", detail)."""

    action: str
    confined: tuple[str, str]
    plain: tuple[str, str]


def files_in(folder: Path) -> list[Path]:
    """The entries of a folder that are no folders, by name."""
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))


def decode_all(paths: list[Path], pool: Decoder, workers: int) -> Iterator[Done]:
    """Each file by a worker of its own, `workers` at a time and as many waiting; a file's failure is its own."""
    begun: deque[tuple[Path, bunri.File, bunri.Call[Pixels]]] = deque()
    left = deque(paths)
    try:
        while left or begun:
            while left and len(begun) < 2 * workers:
                path = left.popleft()
                try:
                    file = _open(path)
                except (OSError, Refused) as fault:
                    yield Done(path, None, cause_of(fault))
                    continue
                begun.append((path, file, bunri.call(pool.thumbnail, file, EDGE)))
            if begun:
                yield _outcome(*begun.popleft())
    finally:
        for _, file, call in begun:
            call.cancel()
            file.close()


def _open(path: Path) -> bunri.File:
    """A regular file for reading: no link that leads elsewhere, no pipe that waits for ever."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as fault:
        if path.is_symlink():
            raise Refused("is a symbolic link") from fault
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused("is no regular file")
    return bunri.File(fd)


def _outcome(path: Path, file: bunri.File, call: bunri.Call[Pixels]) -> Done:
    with file:
        try:
            return Done(path, _checked(call.result()), "")
        except (bunri.PeerError, Refused) as fault:
            return Done(path, None, cause_of(fault))


def _checked(pixels: Pixels) -> Pixels:
    """The worker may have been taken over: what it says of its pixels must be so."""
    fits = 0 < pixels.width <= EDGE and 0 < pixels.height <= EDGE
    if not fits or len(pixels.rgb) != pixels.width * pixels.height * 3:
        raise Refused("its decoder answered with something that is no picture")
    return pixels


def cause_of(fault: BaseException) -> str:
    """The first line of what happened, printable."""
    if isinstance(fault, OSError) and fault.strerror and not isinstance(fault, bunri.BunriError):
        return fault.strerror
    if isinstance(fault, bunri.WorkerDied):
        return f"its decoder died: {fault.exit}"
    return bunri.printable(str(fault).partition("\n")[0], limit=300)


def write_thumbnail(number: int, one: Done, out: Path, composer: Composer) -> Done:
    """Write the thumbnail of the file with this number, and forget pixels that no sheet will show."""
    picture = one.picture
    if picture is None:
        return one
    name = one.path.name if len(os.fsencode(one.path.name)) < 200 else f"{number:06d}"  # a file name ends at 255
    png = composer.png(picture.width, picture.height, picture.rgb)
    (out / "thumbnails" / f"{name}.png").write_bytes(png)
    return one if number < ON_THE_SHEET else replace(one, picture=replace(picture, rgb=b""))


def write_sheet(done: list[Done], out: Path, composer: Composer) -> Path:
    """The contact sheet of the first files; its path."""
    sheet = out / "contact-sheet.png"
    title = f"{len(done)} files, {sum(one.picture is not None for one in done)} decoded"
    sheet.write_bytes(composer.sheet(title, [_tile(one) for one in done[:ON_THE_SHEET]], EDGE))
    return sheet


def _tile(one: Done) -> Tile:
    picture = one.picture
    if picture is None:
        return Tile(one.name, one.cause, 0, 0, b"")
    remark = f"{picture.full_width} x {picture.full_height} {bunri.printable(picture.format, limit=8)}"
    return Tile(one.name, remark, picture.width, picture.height, picture.rgb)


def look(composer: Composer) -> tuple[list[Seen], dict[int, bunri.Report]]:
    """Every process there is now, and the reports of those workers that have one of their own."""
    with Decoder.start() as decoder, Attacker.start() as attacker:
        reports = {worker.process.pid: worker.process.report for worker in (decoder, attacker, composer)}
        names = {worker.process.pid: type(worker).__name__ for worker in (decoder, attacker, composer)}
        return look_at_all(names), reports


def attack_all() -> Iterator[Attempt]:
    """Every action of the list, in a worker under the decoder's policy and in a plain process beside it."""
    with (
        tempfile.TemporaryDirectory(prefix="bunri-demo-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=2 * len(ATTACKS)) as listener,
        Attacker.pool(2) as attacker,
    ):
        target = Target(os.getpid(), listener.getsockname()[1], str(Path(folder) / "written"))
        for action in ATTACKS:
            call = bunri.call(attacker.attempt, action, target)
            yield Attempt(action, _confined(call), _plain(action, target))


def _confined(call: bunri.Call[tuple[str, str]]) -> tuple[str, str]:
    try:
        kind, detail = call.result()
    except bunri.WorkerDied as death:
        if death.exit.code == 0:
            return "got", "it ended well, in place of its worker"  # what was executed says nothing
        return "killed", _death(death.exit)
    except bunri.PeerError as fault:
        return "refused", cause_of(fault)
    return ("got" if kind == "got" else "refused"), bunri.printable(detail, limit=60)


def _death(exit: bunri.Exit) -> str:
    return signal.Signals(exit.signal).name if exit.signal in set(signal.Signals) else str(exit)


def _plain(action: str, target: Target) -> tuple[str, str]:
    command = [sys.executable, "-I", "-S", "-B", str(attacks.__file__)]
    arguments = [action, str(target.monitor), str(target.port), target.scratch]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=20)
    if done.returncode:
        return "killed", f"exit {done.returncode}"
    kind, _, detail = done.stdout.strip().partition("\t")
    # A program that was executed says nothing, and has ended well.
    return (kind, bunri.printable(detail, limit=60)) if kind else ("got", "executed")
