"""Runs in: every process. The compartments of the benchmarks that load nothing but bunri."""

from __future__ import annotations

import json
import zlib

import bunri


class Null(bunri.Compartment):
    """Does nothing, so that all the time is bunri's."""

    def same(self, n: int) -> int:
        return n

    def echo(self, data: bytes) -> bytes:
        return data

    def count(self, numbers: list[int]) -> int:
        return len(numbers)


class Decoder(bunri.Compartment):
    """Decodes, under the ordinary policy; below, the same under the two that only compute."""

    def same(self, n: int) -> int:
        return n

    def decode(self, data: bytes) -> int:
        return len(json.loads(zlib.decompress(data)))


class ComputeDecoder(Decoder):
    policy = bunri.Policy.compute()


class StrictDecoder(Decoder):
    policy = bunri.Policy.strict()
