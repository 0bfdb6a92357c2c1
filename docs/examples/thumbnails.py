"""Decodes untrusted images in a pool of confined processes."""

import io
import sys
from pathlib import Path

from PIL import Image

import bunri


class Thumbnailer(bunri.Compartment):
    """Decodes untrusted images."""

    policy = bunri.Policy(memory="512M", cpu="5s")

    @classmethod
    def warm_up(cls) -> None:
        Image.init()  # loads Pillow's decoders now: after confinement there are no files to load them from

    def thumbnail(self, image: bytes, edge: int = 128) -> bytes:
        result = io.BytesIO()
        with Image.open(io.BytesIO(image)) as picture:
            picture.thumbnail((edge, edge))
            picture.convert("RGB").save(result, "PNG")
        return result.getvalue()


def main(paths: list[Path]) -> None:
    with Thumbnailer.pool(4) as pool:
        images = (path.read_bytes() for path in paths)
        for path, call in zip(paths, bunri.map(pool.thumbnail, images), strict=True):
            try:
                print(path.name, len(call.result()), "bytes")
            except bunri.PeerError as why:
                print(path.name, "refused:", why)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
