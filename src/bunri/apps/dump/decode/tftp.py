"""Runs in: the decoder, confined; pure. TFTP (RFC 1350, 2347)."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, u16
from bunri.apps.dump.decode.text import terminated

_OPERATIONS = {1: "RRQ", 2: "WRQ", 3: "DATA", 4: "ACK", 5: "ERROR", 6: "OACK"}
_ERRORS = {
    0: "EUNDEF", 1: "ENOTFOUND", 2: "EACCESS", 3: "ENOSPACE", 4: "EBADOP", 5: "EBADID", 6: "EEXISTS", 7: "ENOUSER",
}  # fmt: skip


def tftp(d: Dissector, o: int, length: int) -> None:
    """A message at `o`."""
    d.protocol = "tftp"
    d.write(f"TFTP, length {length}")
    if length < 2:
        d.mark()
        return
    kind = u16(d.buffer, o)
    d.write(f", {_OPERATIONS.get(kind) or f'tftp-#{kind}'}")
    if kind in _OPERATIONS and not _SHOWN[kind](d, o + 2, length - 2):
        d.mark()


def _request(d: Dissector, o: int, length: int) -> bool:
    if length == 0:
        return False
    d.write(' "')
    used = terminated(d, o, length)
    d.write('"')
    if used == 0 or length == used:
        return False
    o += used
    length -= used
    d.write(" ")
    used = terminated(d, o, length)
    return used > 0 and _options(d, o + used, length - used)


def _options(d: Dissector, o: int, length: int) -> bool:
    while length:
        if d.buffer[o]:
            d.write(" ")
        used = terminated(d, o, length)
        if used == 0:
            return False
        o += used
        length -= used
    return True


def _block(d: Dissector, o: int, length: int) -> bool:
    if length < 2:
        return False
    d.write(f" block {u16(d.buffer, o)}")
    return True


def _error(d: Dissector, o: int, length: int) -> bool:
    if length < 2:
        return False
    code = u16(d.buffer, o)
    known = _ERRORS.get(code)
    d.write(f" {known}" if known else f' tftp-err-#{code} "')
    if length == 2:
        return False
    d.write(' "')
    used = terminated(d, o + 2, length - 2)
    d.write('"')
    return used > 0


_SHOWN = {1: _request, 2: _request, 3: _block, 4: _block, 5: _error, 6: _options}
