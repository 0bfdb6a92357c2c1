"""Runs in: the confined workers that decode, and their zygote. A stranger's bytes in, plain pixels out.

The worker gets one open file and gives back red, green and blue of a small picture: whatever takes it over can lie
about pixels, and nothing else. Each worker serves one file (`Reuse.NEVER`), so a file that owns its decoder does not
meet the next file. Pillow's own limit on the number of pixels is off: the kernel's limits are what is shown here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import bunri

# A file with this mark plays an exploit: no bug of Pillow's is needed for the demonstration. The decoder then does
# what the word behind the mark says, with all the rights it has, which is what an attacker's code would do.
EXPLOIT_MARK = b"bunri-demo-exploit:"
MEMORY, CPU, WALL = "512M", "5s", "20s"
POLICY = bunri.Policy(memory=MEMORY, cpu=CPU, wall=WALL)
PLUGINS = ("Bmp", "Gif", "Jpeg", "Jpeg2K", "Png", "Ppm", "Tiff", "Tga", "WebP", "Pcx", "Ico")


@dataclass
class Refused(Exception):
    """The file is no picture that can be decoded."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Pixels:
    """A small picture: three bytes for each pixel."""

    format: str
    full_width: int
    full_height: int
    width: int
    height: int
    rgb: bytes


class Decoder(bunri.Compartment):
    """Decodes with Pillow."""

    policy = POLICY
    preload = ("PIL.Image", "PIL.ImageOps", *(f"PIL.{name}ImagePlugin" for name in PLUGINS))

    @classmethod
    def warm_up(cls) -> None:
        from PIL import Image

        Image.init()
        Image.MAX_IMAGE_PIXELS = None
        for kind in ("PNG", "JPEG", "TIFF"):  # what Pillow imports and builds at the first use
            buffer = io.BytesIO()
            Image.new("RGB", (16, 16)).save(buffer, kind)
            buffer.seek(0)
            with Image.open(buffer) as image:
                image.resize((4, 4), Image.Resampling.LANCZOS)

    @bunri.raises(Refused)
    def thumbnail(self, file: bunri.File, edge: int) -> Pixels:
        """The picture in `file`, made to fit into a square of `edge` pixels."""
        from PIL import Image, ImageOps

        with file, file.as_file() as stream:
            _play_an_exploit(stream.read(4096))
            stream.seek(0)
            try:
                with Image.open(stream) as image:
                    kind, (full_width, full_height) = image.format or "?", image.size
                    image.draft("RGB", (edge * 2, edge * 2))
                    small = ImageOps.exif_transpose(image)
                    if small.mode in ("1", "P"):
                        small = small.convert("RGB")  # else its dots are picked, not averaged
                    small.thumbnail((edge, edge))
                    small = small.convert("RGB")
            except MemoryError:
                raise Refused(f"needs more memory than its {MEMORY}") from None
            except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as fault:
                raise Refused(_said(fault)) from None
        return Pixels(kind, full_width, full_height, small.width, small.height, small.tobytes())


def _said(fault: BaseException) -> str:
    if type(fault).__name__ == "UnidentifiedImageError":
        return "no picture in any format that Pillow knows"
    return f"{type(fault).__name__}: {fault}"


def _play_an_exploit(head: bytes) -> None:
    _, mark, rest = head.partition(EXPLOIT_MARK)
    if not mark:
        return
    if rest.startswith(b"read-shadow"):
        try:
            with open("/etc/shadow", "rb") as shadow:
                loot = len(shadow.read())
        except OSError as fault:
            raise Refused(f"took its decoder over; open('/etc/shadow') was refused: {fault.strerror}") from None
        raise Refused(f"took its decoder over; open('/etc/shadow') SUCCEEDED: {loot} bytes")
    if rest.startswith(b"crash"):
        import ctypes

        ctypes.string_at(8)  # a wild read, as a memory error in C code makes one
    if rest.startswith(b"spin"):
        while True:
            pass
