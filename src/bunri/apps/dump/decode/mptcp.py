"""Runs in: the decoder, confined; pure. Multipath TCP (RFC 8684): an option of TCP."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, take, u16, u32, u64

_SYN, _ACK = 2, 16
_ECHO = {6: "v0-ip6", 4: "v0-ip4", 1: "v1-echo", 0: "v1"}


def mptcp(d: Dissector, o: int, length: int, flags: int) -> bool:
    """The option at `o`, of `length` bytes; False for one that cannot be."""
    d.protocol = "mptcp"
    if length < 3:
        return False
    name, show = _KINDS[min(d.buffer[o + 2] >> 4, 8)]
    d.write(f" {length} {name}")
    return show(d, o, length, flags)


def _capable(d: Dissector, o: int, length: int, flags: int) -> bool:
    b = d.buffer
    opening = length in (4, 12) and flags & _SYN
    answer = length in (20, 22) and flags & (_SYN | _ACK) == _ACK
    if not (opening or answer):
        return False
    version = b[o + 2] & 15
    if version > 1:
        d.write(f" Unknown Version ({version})")
        return True
    d.write(f" v{version}{' csum' if b[o + 3] & 0x80 else ''}")
    if length >= 12:
        d.write(f" {{0x{u64(b, o + 4):x}")
        if length >= 20:
            d.write(f",0x{u64(b, o + 12):x}")
        d.write("}")
    return True


def _join(d: Dissector, o: int, length: int, flags: int) -> bool:
    b = d.buffer
    first = length == 12 and flags & _SYN
    second = length == 16 and flags & (_SYN | _ACK) == _SYN | _ACK
    third = length == 24 and flags & _ACK
    if not (first or second or third):
        return False
    if length == 24:
        d.write(f" hmac 0x{take(b, o + 4, 20).hex()}")
        return True
    d.write(f"{' backup' if b[o + 2] & 1 else ''} id {b[o + 3]}")
    if length == 12:
        d.write(f" token 0x{u32(b, o + 4):x} nonce 0x{u32(b, o + 8):x}")
    else:
        d.write(f" hmac 0x{u64(b, o + 4):x} nonce 0x{u32(b, o + 12):x}")
    return True


def _signal(d: Dissector, o: int, length: int, flags: int) -> bool:
    """DSS: where the data stands in the stream of all paths."""
    b = d.buffer
    if length < 4 or flags & _SYN:
        return False
    told = b[o + 3]
    if told & 0x10:
        d.write(" fin")
    p, left = o + 4, length - 4
    for bit, wide, name in ((1, 2, "ack"), (4, 8, "seq")):
        if told & bit:
            d.write(f" {name} ")
            size = 8 if told & wide else 4
            if left < size:
                return False
            d.write(str(u64(b, p) if size == 8 else u32(b, p)))
            p += size
            left -= size
    if told & 4:
        if left < 4:
            return False
        d.write(f" subseq {u32(b, p)}")
        if left < 6:
            return False
        d.write(f" len {u16(b, p + 4)}")
        p += 6
        left -= 6
        if left >= 2:
            d.write(f" csum 0x{u16(b, p):x}")
            left -= 2
    return left == 0


def _add(d: Dissector, o: int, length: int, flags: int) -> bool:
    b = d.buffer
    if length not in (8, 10, 16, 18, 20, 22, 28, 30):
        return False
    d.write(f" {_ECHO.get(b[o + 2] & 15, '[bad version/echo]')} id {b[o + 3]}")
    size = 4 if length <= 18 else 16
    address = b[o + 4 : o + 4 + size]
    d.write(f" {d.ip4[address] if size == 4 else d.ip6[address]}")
    p = o + 4 + size
    if (length - size) & 2:
        d.write(f":{u16(b, p)}")
        p += 2
    if length - size >= 12:
        d.write(f" hmac 0x{u64(b, p):x}")
    return True


def _remove(d: Dissector, o: int, length: int, flags: int) -> bool:
    if length < 4:
        return False
    d.write(" id")
    for each in range(length - 3):
        d.write(f" {d.buffer[o + 3 + each]}")
    return True


def _priority(d: Dissector, o: int, length: int, flags: int) -> bool:
    if length not in (3, 4):
        return False
    d.write(" backup" if d.buffer[o + 2] & 1 else " non-backup")
    if length == 4:
        d.write(f" id {d.buffer[o + 3]}")
    return True


def _fail(d: Dissector, o: int, length: int, flags: int) -> bool:
    if length == 12:
        d.write(f" seq {u64(d.buffer, o + 4)}")
    return length == 12


def _close(d: Dissector, o: int, length: int, flags: int) -> bool:
    if length == 12:
        d.write(f" key 0x{u64(d.buffer, o + 4):x}")
    return length == 12


def _unknown(d: Dissector, o: int, length: int, flags: int) -> bool:
    return True


_KINDS = (
    ("capable", _capable), ("join", _join), ("dss", _signal), ("add-addr", _add), ("rem-addr", _remove),
    ("prio", _priority), ("fail", _fail), ("fast-close", _close), ("unknown", _unknown),
)  # fmt: skip
