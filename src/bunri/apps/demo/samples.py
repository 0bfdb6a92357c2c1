"""Runs in: the monitor. Writes the files of the demonstration: photographs, documents, damaged and hostile ones.

Nothing here decodes anything: the photographs are copied, the pages are drawn by a confined worker, and the hostile
files are put together byte by byte.
"""

from __future__ import annotations

import struct
import zlib
from importlib import resources
from pathlib import Path

from bunri.apps.demo.composer import Composer
from bunri.apps.demo.decoder import EXPLOIT_MARK

_PNG = b"\x89PNG\r\n\x1a\n"
_LETTER = [
    "PRIVILEGE SEPARATION FOR PYTHON",
    "",
    "A page of a document, as it comes in by mail.",
    "Whoever sent it chose every byte of the file.",
    "The program that reads it should be able to do",
    "nothing but read it.",
    "",
    *(f"{number:>3}.  . . . . . . . . . . . . . . . . . . . . . . ." for number in range(1, 26)),
]


def write_samples(folder: Path, composer: Composer) -> None:
    """Write all of them into `folder`, which is empty."""
    photographs = {
        entry.name: entry.read_bytes()
        for entry in resources.files("bunri.apps.demo").joinpath("pictures").iterdir()
        if entry.name.endswith(".jpg")
    }
    files = {
        **photographs,
        "letter-fax.tiff": composer.page("TIFF", _LETTER),
        "letter-scan.png": composer.page("PNG", _LETTER),
        "damaged-cut-off.jpg": photographs["camera.jpg"][: len(photographs["camera.jpg"]) * 2 // 5],
        "damaged-garbage.gif": b"GIF89a" + bytes(range(7, 250)) * 20,
        "hostile-bomb.png": _bomb(),
        "hostile-lying-size.png": _png(_header(3000, 2000, depth=8, colour=2), zlib.compress(b"\0" + bytes(300))),
        "hostile-read-shadow.png": _exploit(b"read-shadow"),
        "hostile-crash.png": _exploit(b"crash"),
        "hostile-spin.png": _exploit(b"spin"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _header(width: int, height: int, *, depth: int, colour: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def _png(header: bytes, data: bytes, *more: bytes) -> bytes:
    return b"".join((_PNG, header, *more, _chunk(b"IDAT", data), _chunk(b"IEND", b"")))


def _bomb() -> bytes:
    """24 000 x 24 000 black dots in 70 KB; Pillow needs a byte for each."""
    edge = 24_000
    packer = zlib.compressobj(9)
    rows = bytes((1 + edge // 8) * 1000)
    data = b"".join(packer.compress(rows) for _ in range(edge // 1000)) + packer.flush()
    return _png(_header(edge, edge, depth=1, colour=0), data)


def _exploit(word: bytes) -> bytes:
    """A picture that is whole, with the mark that makes the decoder of this demonstration play a taken-over one."""
    data = zlib.compress((b"\0" + bytes(8 * 3)) * 8)
    return _png(_header(8, 8, depth=8, colour=2), data, _chunk(b"tEXt", b"Comment\0" + EXPLOIT_MARK + word))
