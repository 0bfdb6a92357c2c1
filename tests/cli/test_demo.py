"""Runs in: the test process. `bunri demo` as a user runs it: the real command in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from shell import SOURCE, bunri

pytestmark = pytest.mark.slow

PICTURES = SOURCE / "bunri/apps/demo/pictures"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return bunri("demo", "--out", out, "--workers", "2"), out


def row(text: str, start: str) -> str:
    return next((line for line in text.splitlines() if line.strip().startswith(start)), f"no row {start}")


def test_the_demonstration_ends_well_and_quickly(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_a_capture_is_printed_as_tcpdump_prints_it(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    assert "ARP, Request who-has 192.0.2.2 tell 192.0.2.1, length 28" in done.stdout
    assert "4660* 1/0/0 A 192.0.2.2 (49)" in done.stdout


def test_the_thumbnails_are_served(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = demo
    names = sorted(path.name for path in (out / "thumbnails").iterdir())
    assert f"The first of {len(names)}, listed by a session" in done.stdout
    assert any(line.rstrip().endswith(names[0]) and " 1 " in line for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", ["camera.jpg", "ascent.jpg", "grace_hopper.jpg", "letter-fax.tiff", "letter-scan.png"])
def test_whole_files_are_decoded_among_the_hostile_ones(
    demo: tuple[subprocess.CompletedProcess[str], Path], name: str
) -> None:
    done, out = demo
    assert "decoded" in row(done.stdout, name)
    assert (out / "thumbnails" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("damaged-cut-off.jpg", "truncated"),
        ("damaged-garbage.gif", "no picture in any format"),
        ("hostile-bomb.png", "more memory than its 512M"),
        ("hostile-lying-size.png", "truncated"),
        ("hostile-read-shadow.png", "open('/etc/shadow') was refused"),
        ("hostile-crash.png", "SIGSEGV"),
        ("hostile-spin.png", "CPU time"),
    ],
)
def test_a_refused_file_is_listed_with_its_cause(
    demo: tuple[subprocess.CompletedProcess[str], Path], name: str, cause: str
) -> None:
    done, out = demo
    assert "refused" in row(done.stdout, name)
    assert cause in row(done.stdout, name)
    assert not (out / "thumbnails" / f"{name}.png").exists()


def test_the_contact_sheet_is_a_picture(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with image.open(demo[1] / "contact-sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 600
        assert len(sheet.getcolors(1 << 24)) > 200  # photographs, not an empty page


def test_the_workers_of_the_table_have_nothing(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    worker = row(demo[0].stdout, "worker Decoder").split()
    assert "none" in worker
    assert "yes" in worker
    assert "filter" in worker


def test_the_attacker_gets_nothing_and_the_plain_process_does(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    text = demo[0].stdout.partition("What an attacker")[2]
    rows = [line for line in text.splitlines() if "refused" in line or "killed" in line]
    assert len(rows) == 18
    assert "got" in row(text, "read /etc/passwd")
    assert ": 0 in the decoder" in text


def test_a_folder_of_ones_own_with_odd_entries(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(PICTURES / "camera.jpg", folder / "good.jpg")
    (folder / "evil\x1b[31m[bold]\n.jpg").write_bytes(b"no picture")
    (folder / ("x" * 250)).write_bytes((PICTURES / "ascent.jpg").read_bytes())
    (folder / "link.jpg").symlink_to("/etc/passwd")
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.jpg")
    done = bunri("demo", folder, "--out", out, "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert r"evil\x1b[31m[bold]\x0a.jpg" in done.stdout
    assert "symbolic link" in row(done.stdout, "link.jpg")
    assert "no regular file" in row(done.stdout, "pipe.jpg")
    assert (out / "thumbnails/good.jpg.png").exists()
    assert len(list((out / "thumbnails").iterdir())) == 2


def test_nothing_decoded_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )
    assert bunri("demo", tmp_path, "--out", tmp_path / "out").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "/nowhere/at/all"], "does not exist"),
        (["demo", "--workers", "0"], "0"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_users_mistake_is_one_message(arguments: list[str], words: str) -> None:
    done = bunri(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = bunri("demo", empty, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "there is no file in" in done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = bunri("demo", "--out", "/proc/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("bunri: /proc/nowhere")
    assert "Traceback" not in done.stderr


def test_help_and_version_import_no_pillow_and_no_demonstration() -> None:
    shown = bunri("--version")
    assert shown.returncode == 0
    assert shown.stdout.startswith("bunri, version ")
    code = (
        "import sys; sys.argv = ['bunri', '--help']; from bunri.cli import main\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environment)
    assert "demo" in done.stdout
    assert not {"PIL", "rich", "bunri.apps"} & set(done.stderr.split())


def test_a_missing_extra_is_named() -> None:
    code = "import importlib.util as u; u.find_spec = lambda name: None; from bunri.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        "bunri: the command needs the packages click and rich. Install them with: pip install 'bunri[cli]'\n"
    )


def test_an_interrupt_ends_it_without_a_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "bunri", "demo", "--out", str(tmp_path / "out")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    time.sleep(2.5)  # the file that spins is at work
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in words
