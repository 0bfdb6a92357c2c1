"""Runs by hand: packets that atheris grows, by what of the printers they reach, from one of each protocol.

    python -m pip install -e '.[fuzz]' && python tests/dump/fuzz.py --seconds 60

Whatever the bytes: nothing is raised, every character is printable, the short way prints what the long way prints, a
decoder that only follows prints nothing, and the headers are values or None. Link type and options come from the first byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import atheris

with atheris.instrument_imports(include=["bunri.apps.dump.decode"]):
    from bunri.apps.dump import options
    from bunri.apps.dump.decode.core import Dissector
    from bunri.apps.dump.decode.fields import fields
    from bunri.apps.dump.decode.table import Tables

LINKS = (1, 1, 1, 113, 276, 0, 101, 77)
STYLES = ("-n", "-n -v", "-n -vvv -e", "-n -q -x")
LONG = Tables(common={})


def play(data: bytes) -> None:
    """One packet."""
    if len(data) < 2:
        return
    link, words = LINKS[data[0] & 7], STYLES[data[0] >> 3 & 3].split()
    packet = data[1:]
    where = (1_700_000_000, 1, len(packet) + (data[0] >> 5), packet, 0, len(packet))
    said: list[str] = []
    for tables in (Tables(), LONG):
        d = Dissector(options.parse(words).style, tables)
        d.set_link(link)
        d.packets([where, where])
        said.append(d.taken().decode())
        d.follow([where])
        assert d.taken() == b"", "a decoder that follows prints"
    assert said[0] == said[1], said
    assert all(each.isprintable() or each in "\n\t" for each in said[0]), said[0]
    fields(link, packet)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=False, help="a folder that keeps what was found")
    given = parser.parse_args()
    words = [sys.argv[0], f"-max_total_time={given.seconds}", "-max_len=2000"]
    if given.corpus is not None:
        from corpus import SAMPLES

        given.corpus.mkdir(exist_ok=True)
        for protocol, samples in SAMPLES.items():
            for number, sample in enumerate(samples):
                for style in range(len(STYLES)):
                    (given.corpus / f"{protocol}-{number}-{style}").write_bytes(bytes([style << 3]) + sample.data)
        words.append(str(given.corpus))
    atheris.Setup(words, play)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
