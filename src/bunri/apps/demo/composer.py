"""Runs in: the confined worker that composes, and its zygote. Pixels and captions in, files out.

It never sees a stranger's file: what reaches it are pixels whose number the monitor has checked, and captions. It
keeps no rights nevertheless, as drawing is C code too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import bunri

if TYPE_CHECKING:
    from PIL import Image, ImageFont

PAPER, INK, GREY, FRAME = (250, 249, 245), (30, 30, 30), (120, 120, 120), (205, 200, 190)
COLUMNS, GAP, CAPTION = 4, 14, 34


@dataclass(frozen=True)
class Tile:
    """One picture of the contact sheet; no pixels where the file was refused."""

    caption: str
    remark: str
    width: int
    height: int
    rgb: bytes


class Composer(bunri.Compartment):
    """Draws with Pillow."""

    policy = bunri.Policy(memory="512M", cpu="10s")
    preload = (
        "PIL.Image",
        "PIL.ImageDraw",
        "PIL.ImageFilter",
        "PIL.ImageFont",
        "PIL.PngImagePlugin",
        "PIL.TiffImagePlugin",
    )
    _font: ClassVar[ImageFont.FreeTypeFont | ImageFont.ImageFont]

    @classmethod
    def warm_up(cls) -> None:
        from PIL import Image, ImageDraw, ImageFont

        Image.init()
        cls._font = ImageFont.load_default(size=12)
        page = Image.new("RGB", (64, 64))
        ImageDraw.Draw(page).text((2, 2), "warm", font=cls._font)
        for kind in ("PNG", "TIFF"):
            page.save(io.BytesIO(), kind)

    def png(self, width: int, height: int, rgb: bytes) -> bytes:
        """The pixels as a PNG file."""
        from PIL import Image

        return _saved(Image.frombytes("RGB", (width, height), rgb), "PNG")

    def sheet(self, title: str, tiles: list[Tile], edge: int) -> bytes:
        """A contact sheet as a PNG file."""
        from PIL import Image, ImageDraw

        rows = -(-len(tiles) // COLUMNS)
        across, down = edge + GAP, edge + CAPTION + GAP
        sheet = Image.new("RGB", (COLUMNS * across + GAP, rows * down + 2 * GAP + 24), PAPER)
        draw = ImageDraw.Draw(sheet)
        draw.text((GAP, GAP), title, fill=INK, font=self._font)
        for number, tile in enumerate(tiles):
            left, top = GAP + number % COLUMNS * across, GAP + 30 + number // COLUMNS * down
            draw.rectangle((left, top, left + edge - 1, top + edge - 1), outline=FRAME)
            if tile.rgb:
                small = Image.frombytes("RGB", (tile.width, tile.height), tile.rgb)
                sheet.paste(small, (left + (edge - tile.width) // 2, top + (edge - tile.height) // 2))
            else:
                draw.text((left + 8, top + edge // 2 - 8), "refused", fill=GREY, font=self._font)
            draw.text((left, top + edge + 2), tile.caption[:22], fill=INK, font=self._font)
            draw.text((left, top + edge + 17), tile.remark[:22], fill=GREY, font=self._font)
        return _saved(sheet, "PNG")

    def page(self, kind: str, lines: list[str]) -> bytes:
        """A page of text: TIFF as a fax machine sends it, or PNG as a scanner does, skewed and speckled."""
        from PIL import Image, ImageDraw, ImageFilter

        page = Image.new("L", (850, 1100), 255)
        draw = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            draw.text((90, 90 + 26 * number), line, fill=20, font=self._font)
        if kind == "TIFF":
            return _saved(page.convert("1"), "TIFF", compression="group4")
        noise = Image.effect_noise((850, 1100), 24)
        scanned = Image.blend(page.rotate(1.3, fillcolor=240), noise, 0.12).filter(ImageFilter.GaussianBlur(0.6))
        return _saved(scanned, "PNG", dpi=(100, 100))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
