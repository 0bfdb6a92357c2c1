"""Runs by hand, with tcpdump beside it: mutated packets of each protocol, printed by both with options at random.

    python tests/dump/compare.py --packets 100000 --seed 7 [--protocol dns] [--show 3]

Prints for each protocol how many packets are printed as tcpdump prints them, and the first that are not.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from corpus import SAMPLES, Sample
from packets import different, grown, mutated

BATCH = 100


def style(chance: random.Random) -> tuple[str, ...]:
    """Some of the options that change what is printed."""
    words = [
        "-" + chance.choice(("", "v", "v", "vv", "vvv", "vvv")),
        "-" + chance.choice(("", "", "x", "xx", "X", "XX", "A", "AA")),
    ]
    words += [word for word in ("-e", "-q", "-S", "-K", "-N") if chance.random() < 0.2]
    words.append("-" + "t" * chance.choice((0, 0, 0, 1, 1, 2, 3, 4)))  # one is there already
    return tuple(word for word in words if word != "-")


def packet(sample: Sample, chance: random.Random) -> bytes:
    """Mutated where it stands, or grown and shrunk with its headers' lengths made right."""
    change = mutated if chance.random() < 0.4 else grown
    return change(sample.data, sample.start, sample.keep, chance)


def compare(protocol: str, count: int, chance: random.Random, show: int) -> int:
    """How many of `count` packets differ."""
    wrong = 0
    for done in range(0, count, BATCH):
        size = min(BATCH, count - done)
        packets = [packet(chance.choice(SAMPLES[protocol]), chance) for _ in range(size)]
        kept = [
            chance.randrange(min(20, len(each)), len(each) + 1) if chance.random() < 0.15 else len(each)
            for each in packets
        ]
        words = style(chance)
        found = different(packets, *words, kept=kept)
        for each in found[: max(show - wrong, 0)]:
            print(f"{protocol} {' '.join(words)}\n{each}", flush=True)
        wrong += len(found)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--packets", type=int, default=2000, help="of each protocol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=sorted(SAMPLES))
    parser.add_argument("--show", type=int, default=3)
    given = parser.parse_args()
    every = [given.protocol] if given.protocol else list(SAMPLES)
    wrong = {each: compare(each, given.packets, random.Random(f"{given.seed} {each}"), given.show) for each in every}
    for each, count in wrong.items():
        print(f"{each:<10} {given.packets} packets, {count} differ, {100 - 100 * count / given.packets:.3f} % equal")
    print(f"{len(every) * given.packets} packets, {sum(wrong.values())} differ")


if __name__ == "__main__":
    main()
