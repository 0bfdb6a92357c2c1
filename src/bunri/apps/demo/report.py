"""Runs in: the monitor. What `bunri demo` shows. Words of workers are `Text`, never markup, and were made printable."""

from __future__ import annotations

import ftplib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import bunri
from bunri.apps import dump
from bunri.apps.demo import monitor
from bunri.apps.demo.composer import Composer
from bunri.apps.demo.decoder import CPU, MEMORY, Decoder
from bunri.apps.demo.monitor import Attempt, Done
from bunri.apps.demo.processes import Seen
from bunri.apps.demo.samples import write_samples

_CAPTURE = Path(__file__).parent / "packets" / "web.pcap"
_LINES = 8  # of it

_STYLE = {"got": "red", "refused": "green", "killed": "green"}
_WIDE = 132  # columns, where no terminal says


def run(folder: Path | None, out: Path, workers: int) -> int:
    """The whole demonstration; the exit status."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, highlight=False, width=_WIDE)
    (out / "thumbnails").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        composer = stack.enter_context(Composer.start())
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bunri-demo-")))
            write_samples(folder, composer)
            _say(console, "Photographs, documents, damaged files and hostile ones, decoded by Pillow.")
            _say(
                console,
                "No bug of Pillow's is used: the files hostile-read-shadow, -crash and -spin carry a mark on which the "
                "decoder of this demonstration does what a taken-over decoder would do.",
            )
        paths = monitor.files_in(folder)
        if not paths:
            raise bunri.UsageError(f"there is no file in {bunri.printable(str(folder))}. Name a folder with pictures")
        with Decoder.pool(workers) as pool:
            done = [
                monitor.write_thumbnail(number, one, out, composer)
                for number, one in enumerate(_decode(console, paths, pool, workers))
            ]
            sheet = monitor.write_sheet(done, out, composer)
            _show_files(console, done, sheet)
            seen, reports = monitor.look(composer)
        _show_processes(console, seen, reports)
    _show_packets(console)
    _show_served(console, out / "thumbnails")
    attempts = list(monitor.attack_all())
    _show_attempts(console, attempts)
    escaped = any(attempt.confined[0] == "got" for attempt in attempts)
    return 1 if escaped or all(one.picture is None for one in done) else 0


def _say(console: Console, text: str) -> None:
    console.print(Text(text))


def _decode(console: Console, paths: list[Path], pool: Decoder, workers: int) -> Iterator[Done]:
    begun, whole = time.monotonic(), 0
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(f"decoding, {workers} workers", total=len(paths))
        for one in monitor.decode_all(paths, pool, workers):
            whole += one.picture is not None
            yield one
            bar.advance(task)
    _say(console, f"{whole} of {len(paths)} files decoded in {time.monotonic() - begun:.1f} s\n")


def _table(*columns: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "process")
    return table


def _show(console: Console, title: str, table: Table, *notes: str) -> None:
    console.print(Text(title, style="bold"))
    console.print(Padding(table, (0, 0, 0, 2)))
    for note in notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    console.print()


def _show_files(console: Console, done: list[Done], sheet: Path) -> None:
    table = _table("file", "", "")
    for one in done:
        picture = one.picture
        if picture is None:
            table.add_row(Text(one.name), Text("refused", style="red"), Text(one.cause))
        else:
            kind = bunri.printable(picture.format, limit=20)
            size = f"{kind}, {picture.full_width} x {picture.full_height}"
            table.add_row(Text(one.name), Text("decoded", style="green"), Text(size))
    where = bunri.printable(str(sheet))
    limits = f"Each file had a worker of its own: memory {MEMORY}, {CPU} of CPU time, no files, no network."
    _show(console, "Files", table, limits, f"Contact sheet: {where}; thumbnails beside it.")


def _show_packets(console: Console) -> None:
    lines = _table("line")
    lines.show_header = False
    count = 0
    for packet in dump.packets(_CAPTURE):
        count += 1
        if count <= _LINES:
            lines.add_row(Text(packet.text))
    said = f"The first {_LINES} of {count} packets, printed by another confined decoder: memory 512M, no files, no network."
    _show(console, "A capture", lines, said, "Your own: bunri dump -n -r capture.pcap")


def _show_served(console: Console, folder: Path) -> None:
    """The thumbnails by FTP, from the server's one command without any configuration."""
    if importlib.util.find_spec("pyftpdlib") is None:
        _say(console, "Not shown: the thumbnails by FTP. It takes pip install 'bunri[ftpd]'.")
        return
    command = [sys.executable, "-m", "bunri", "ftpd", "--share", str(folder), "--drain", "0"]
    lines = _table("line")
    lines.show_header = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            said = server.stdout.readline().strip() if server.stdout is not None else ""
            port = re.search(r":(\d+)/$", said)
            if port is None:
                _say(console, "Not shown: the thumbnails by FTP. The server did not start.")
                return
            with ftplib.FTP(timeout=30) as ftp:
                ftp.connect("127.0.0.1", int(port[1]))
                ftp.login()
                found: list[str] = []
                ftp.retrlines("LIST", found.append)
        except ftplib.all_errors as fault:
            _say(console, f"Not shown: the thumbnails by FTP ({bunri.printable(str(fault))}).")
            return
        finally:
            server.terminate()
    for line in found[:_LINES]:
        lines.add_row(Text(bunri.printable(line)))
    listed = f"The first of {len(found)}, listed by a session that has this folder, read-only, as its whole root."
    _show(console, "The thumbnails, by FTP", lines, listed, f"Your own: bunri ftpd --share {folder}")


def _show_processes(console: Console, seen: list[Seen], reports: dict[int, bunri.Report]) -> None:
    table = _table(
        "process",
        "pid",
        "uid",
        "capabilities",
        "no new privs",
        "seccomp",
        "namespaces",
        "root",
        "fds",
        "PSS MiB",
        "Landlock",
        gap=1,
    )
    for one in seen:
        report = reports.get(one.pid)
        table.add_row(
            Text(" " * min(one.depth, 4) + one.role),
            str(one.pid),
            one.uid,
            one.capabilities,
            one.no_new_privs,
            Text(one.seccomp),
            one.namespaces,
            one.root,
            one.descriptors,
            one.pss,
            Text(_landlock(report) if report is not None else ""),
        )
    _show(
        console,
        f"Processes, as process {os.getpid()} (the monitor) sees them in /proc",
        table,
        "own: not the monitor's. Zygotes read no input. Landlock: from the worker's report, as /proc does not show it.",
    )


def _landlock(report: bunri.Report) -> str:
    try:
        layer = report.layer("Landlock files")
    except KeyError:
        return "not planned"
    return layer.detail if layer.state is bunri.State.IN_FORCE and layer.detail else layer.state.value


def _show_attempts(console: Console, attempts: list[Attempt]) -> None:
    table = _table("action", "in the decoder", "in a plain process of yours")
    for attempt in attempts:
        table.add_row(Text(attempt.action), _cell(attempt.confined), _cell(attempt.plain))
    got = sum(attempt.confined[0] == "got" for attempt in attempts)
    beside = sum(attempt.plain[0] == "got" for attempt in attempts)
    _show(
        console,
        "What an attacker in the decoder gets",
        table,
        f"Of {len(attempts)}: {got} in the decoder, {beside} beside it. Started by uid {os.getuid()}.",
    )


def _cell(outcome: tuple[str, str]) -> Text:
    kind, detail = outcome
    return Text.assemble((kind, _STYLE.get(kind, "")), f"  {detail}")
