"""Runs in: the decoder, confined; pure. DNS (RFC 1035, 6891, 4034), over UDP and TCP, and multicast DNS (RFC 6762)."""

from __future__ import annotations

import socket
import struct
from functools import cache, lru_cache

from bunri.apps.dump.decode.core import ENDS, Dissector, seconds_in_words, u16, u32
from bunri.apps.dump.decode.names import MOST, REMEMBERED, Unreadable, name, seen, skip
from bunri.apps.dump.decode.text import characters, invalid

_HEADER = struct.Struct(">HHHHHH").unpack_from
_QUESTION = struct.Struct(">HH").unpack_from
_RECORD = struct.Struct(">HHIH").unpack_from
_OPERATIONS = (
    "", " inv_q", " stat", " op3", " notify", " update", " op6", " op7", " op8", " updateA", " updateD", " updateDA",
    " updateM", " updateMA", " zoneInit", " zoneRef",
)  # fmt: skip
_CODES = (
    "", " FormErr", " ServFail", " NXDomain", " NotImp", " Refused", " YXDomain", " YXRRSet", " NXRRSet", " NotAuth",
    " NotZone", " Resp11", " Resp12", " Resp13", " Resp14", " NoChange", " BadVers", "Resp17", " Resp18", " Resp19",
    " Resp20", "Resp21", " Resp22", " BadCookie",
)  # fmt: skip
_TYPES = {
    1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS",
    12: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25", 20: "ISDN", 21: "RT",
    22: "NSAP", 23: "NSAP_PTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS", 28: "AAAA", 29: "LOC", 30: "NXT",
    31: "EID", 32: "NIMLOC", 33: "SRV", 34: "ATMA", 35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6", 39: "DNAME",
    40: "SINK", 41: "OPT", 42: "APL", 43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY",
    99: "SPF", 100: "UINFO", 101: "UID", 102: "GID", 103: "UNSPEC", 104: "UNSPECA", 249: "TKEY", 250: "TSIG",
    251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY", 256: "URI",
}  # fmt: skip
_CLASSES = {1: "IN", 3: "CHAOS", 4: "HS", 255: "ANY"}
_OPTIONS = {
    1: "LLQ", 2: "UL", 3: "NSID", 5: "DAU", 6: "DHU", 7: "N3U", 8: "ECS", 9: "EXPIRE", 10: "COOKIE", 11: "KEEPALIVE",
    12: "PADDING", 13: "CHAIN", 14: "KEY-TAG", 16: "CLIENT-TAG", 17: "SERVER-TAG",
}  # fmt: skip
_ALGORITHMS = {
    0: "DELETE", 1: "RSAMD5", 2: "DH", 3: "DS", 5: "RSASHA1", 6: "DSA-NSEC3-SHA1", 7: "RSASHA1-NSEC3-SHA1",
    8: "RSASHA256", 10: "RSASHA512", 12: "ECC-GOST", 13: "ECDSAP256SHA256", 14: "ECDSAP384SHA384", 15: "ED25519",
    16: "ED448", 252: "INDIRECT", 253: "PRIVATEDNS", 254: "PRIVATEOID",
}  # fmt: skip
_DIGESTS = {1: "SHA-1", 2: "SHA-256", 3: "GOST_R_34.11-94", 4: "SHA-384"}
_HASHES = {1: "SHA-1"}
_SIZES = {1: 4, 28: 16}  # of addresses
_OPT = 41
_INVERSE = 1
_ONE_QUESTION = (1, 0, 0, 0)


def domain(d: Dissector, o: int, length: int) -> None:
    """A message in a datagram."""
    d.protocol = "domain"
    _message(d, o, length, multicast=False)


def multicast(d: Dissector, o: int, length: int) -> None:
    """The same on the port of multicast DNS."""
    d.protocol = "domain"
    _message(d, o, length, multicast=True)


def domain_over_tcp(d: Dissector, o: int, length: int) -> None:
    """A message behind its length."""
    d.protocol = "domain"
    if length < 2:
        d.write(f" [DNS over TCP: length {length} < 2] (invalid)")
        return
    told = u16(d.buffer, o)
    length -= 2
    if told != length:
        d.write(f" [prefix length({told}) != length({length})] (invalid)")
        return
    d.write(" ")
    _message(d, o + 2, length, multicast=False)


def plain(d: Dissector, head: bytes, b: bytes, o: int, stop: int) -> bytes:
    """The line of an ordinary message, `b[o:stop]`, without -v: one question, or its answer that is made of addresses.
    Nothing, where it is another one: it takes the long way, below."""
    if stop < o + 17:
        return b""
    ident, flags, questions, answers, authorities, more = _HEADER(b, o)
    at = b.find(0, o + 12, min(stop - 4, o + 12 + MOST)) + 5
    if questions != 1 or at < o:
        return b""
    question = d.questions.get(b[o + 12 : at])
    if question is None:
        question = _remembered(d, b[o + 12 : at])
    if not question:
        return b""
    if flags & 0x8000:
        records = _addresses(b, at, stop, answers)
        if more or (answers and not records):
            return b""
        said = _encoded(flags)
        return b"%b%d%b %d/%d/0%b (%d)\n" % (head, ident, said, answers, authorities, records, stop - o)
    if flags & 0xFECF or answers or authorities or more > 1:
        return b""
    said = (b"+%" if flags & 0x10 else b"+") if flags & 0x100 else (b"%" if flags & 0x10 else b"")
    return b"%b%d%b%b%b (%d)\n" % (head, ident, said, b" [1au]" if more else b"", question, stop - o)


def _remembered(d: Dissector, question: bytes) -> bytes:
    """The text of a question, from now on; nothing where its name does not end at the first zero, or points elsewhere."""
    d.buffer = question
    try:
        whole = _question(d, 0, 0, multicast=False) == len(question)
    except (Unreadable, *ENDS):
        whole = False
    text = "".join(d.lines).encode("ascii", "replace") if whole else b""
    d.lines.clear()
    if len(d.questions) >= REMEMBERED:
        d.questions.clear()
    d.questions[question] = text
    return text


def _addresses(b: bytes, at: int, stop: int, count: int) -> bytes:
    """Records of addresses whose names are pointers alone; nothing, where there are others among them."""
    text: list[bytes] = []
    for _ in range(count):
        if at + 12 > stop or b[at] < 0xC0:
            return b""
        kind, group, _, size = _RECORD(b, at + 2)
        at += 12 + size
        if at > stop or group != 1 or _SIZES.get(kind) != size:
            return b""
        text.append(_address(b[at - size : at]))
    return b",".join(text)


@lru_cache(REMEMBERED)
def _address(data: bytes) -> bytes:
    if len(data) == 4:
        return b" A %d.%d.%d.%d" % tuple(data)
    return b" AAAA %b" % socket.inet_ntop(socket.AF_INET6, data).encode()


@cache
def _encoded(flags: int) -> bytes:
    return _response_said(flags & 15, flags).encode()


def _response_said(code: int, flags: int) -> str:
    said = _CODES[code] if code < len(_CODES) else f" Resp{code & 0xFFF}"
    return (
        f"{_OPERATIONS[flags >> 11 & 15]}{said}{'*' if flags & 0x400 else ''}{'' if flags & 0x80 else '-'}"
        f"{'|' if flags & 0x200 else ''}{'$' if flags & 0x20 else ''}"
    )


def _message(d: Dissector, o: int, length: int, *, multicast: bool) -> None:
    if length < 12:
        d.write(f"domain [length {length} < 12] (invalid)")
        return
    if not d.has(o, 12):
        d.mark()
        return
    ident, flags, questions, answers, authorities, more = _HEADER(d.buffer, o)
    try:
        if flags & 0x8000:
            _response(d, o, ident, flags, (questions, answers, authorities, more), multicast)
        else:
            _request(d, o, ident, flags, (questions, answers, authorities, more), multicast)
    except Unreadable:
        d.mark()
        return
    d.write(f" ({length})")


def _code(d: Dissector, o: int, flags: int, counts: tuple[int, int, int, int]) -> int:
    """The response code, with the bits that an OPT record adds."""
    b = d.buffer
    end = len(b)
    code = flags & 15
    try:
        at = o + 12
        for _ in range(counts[0]):
            at = skip(d, at) + 4
            if at >= end:
                return code
        for _ in range(counts[1] + counts[2]):
            at = skip(d, at) + 8
            if at + 2 > end:
                return code
            at += 2 + u16(b, at)
            if at >= end:
                return code
        for _ in range(counts[3]):
            at = skip(d, at)
            if at + 5 > end:
                return code
            if u16(b, at) == _OPT:
                return code | b[at + 4] << 4
            at += 8
            if at + 2 > end:
                return code
            at += 2 + u16(b, at)
            if at >= end:
                return code
    except Unreadable:
        pass  # what cannot be read has no OPT record
    return code


def _response(d: Dissector, o: int, ident: int, flags: int, counts: tuple[int, int, int, int], multicast: bool) -> None:
    questions, answers, authorities, more = counts
    code = _code(d, o, flags, counts) if more else flags & 15
    text = f"{ident}{_response_said(code, flags)}"
    if questions != 1:
        text += f" [{questions}q]"
    at = o + 12
    d.write(text)
    for index in range(questions):
        if index:
            d.write(",")
        if d.verbose > 1:
            d.write(" q:")
            at = _question(d, at, o, multicast)
        else:
            at = (seen(d, at)[1] or skip(d, at)) + 4
    d.write(f" {answers}/{authorities}/{more}")
    if answers:
        at = _records(d, at, o, answers, multicast)
    if d.verbose > 1:
        at = _section(d, " ns:", at, o, authorities, multicast)
        _section(d, " ar:", at, o, more, multicast)


def _request(d: Dissector, o: int, ident: int, flags: int, counts: tuple[int, int, int, int], multicast: bool) -> None:
    questions, answers, authorities, more = counts
    operation = flags >> 11 & 15
    text = f"{ident}{_OPERATIONS[operation]}{'+' if flags & 0x100 else ''}{'%' if flags & 0x10 else ''}"
    if counts == _ONE_QUESTION and not flags & 0x6CF and operation != _INVERSE:
        d.write(text)
        _question(d, o + 12, o, multicast)
        return
    if flags & 0x6CF:
        text += f" [b2&3=0x{flags:x}]"
    if operation == _INVERSE:
        text += f" [{questions}q]" if questions else ""
        text += f" [{answers}a]" if answers != 1 else ""
    else:
        text += f" [{answers}a]" if answers else ""
        text += f" [{questions}q]" if questions != 1 else ""
    text += f" [{authorities}n]" if authorities else ""
    text += f" [{more}au]" if more else ""
    d.write(text)
    at = o + 12
    if questions:
        at = _question(d, at, o, multicast)
        for _ in range(questions - 1):
            if at >= len(d.buffer):
                raise Unreadable
            at = _question(d, at, o, multicast)
    if d.verbose > 1:
        if answers:
            at = _records(d, at, o, answers, multicast)
        at = _section(d, " ns:", at, o, authorities, multicast)
        _section(d, " ar:", at, o, more, multicast)


def _section(d: Dissector, title: str, at: int, o: int, count: int, multicast: bool) -> int:
    if not count:
        return at
    if at >= len(d.buffer):
        raise Unreadable
    d.write(title)
    return _records(d, at, o, count, multicast)


def _records(d: Dissector, at: int, o: int, count: int, multicast: bool) -> int:
    at = _record(d, at, o, multicast)
    for _ in range(count - 1):
        if at >= len(d.buffer):
            raise Unreadable
        d.write(",")
        at = _record(d, at, o, multicast)
    return at


def _class(kind: int) -> str:
    return f" {_CLASSES.get(kind) or f'(Class {kind})'}" if kind != 1 else ""


def _question(d: Dissector, at: int, o: int, multicast: bool) -> int:
    b = d.buffer
    text, behind = seen(d, at)
    behind = behind or skip(d, at)
    if behind + 4 > len(b):
        raise Unreadable
    kind, group = _QUESTION(b, behind)
    said = _TYPES.get(kind) or f"Type{kind}"
    if multicast:
        said += f"{_class(group & 0x7FFF)} {'(QU)' if group & 0x8000 else '(QM)'}"
    elif group != 1:
        said += _class(group)
    d.write(f" {said}? {text}")
    return behind + 4 if text else name(d, at, o) + 4


def _record(d: Dissector, at: int, o: int, multicast: bool) -> int:
    b = d.buffer
    if d.verbose:
        d.write(" ")
        at = name(d, at, o)
    elif at + 1 < len(b) and b[at] >= 0xC0:  # a pointer alone, as mostly
        at += 2
    else:
        try:
            at = skip(d, at)
        except Unreadable:
            return len(b)
    if at + 10 > len(b):
        return len(b)
    fields: tuple[int, int, int, int] = _RECORD(b, at)
    kind, group, life, size = fields
    told = group & 0x7FFF if multicast else group
    said = _class(told) if kind != _OPT else ""
    if multicast and group & 0x8000:
        said += " (Cache flush)"
    if kind != _OPT and d.verbose > 2:
        said += f" [{seconds_in_words(life)}]"
    at += 10
    end = at + size
    d.write(f"{said} {_TYPES.get(kind) or f'Type{kind}'}")
    if end > len(b):
        raise Unreadable
    if kind == _OPT:
        d.write(f" UDPsize={told}{' DO' if life & 0x8000 else ''}")
        _edns(d, at, end)
    else:
        _data(d, kind, at, end, o)
    return end


def _need(d: Dissector, at: int, count: int) -> None:
    if at + count > len(d.buffer):
        raise Unreadable


def _data(d: Dissector, kind: int, at: int, end: int, o: int) -> None:
    b = d.buffer
    if kind == 1:
        _need(d, at, 4)
        d.write(f" {b[at]}.{b[at + 1]}.{b[at + 2]}.{b[at + 3]}")
    elif kind == 28:
        _need(d, at, 16)
        d.write(f" {socket.inet_ntop(socket.AF_INET6, b[at : at + 16])}")
    elif kind in (2, 5, 12, 39):
        d.write(" ")
        name(d, at, o)
    elif kind == 6:
        _authority(d, at, o)
    elif kind == 15:
        d.write(" ")
        _need(d, at, 2)
        name(d, at + 2, o)
        d.write(f" {u16(b, at)}")
    elif kind == 16:
        while at < end:
            d.write(' "')
            _need(d, at, 1)
            if not characters(d, at + 1, b[at]):
                raise Unreadable
            at += 1 + b[at]
            d.write('"')
    elif kind == 33:
        d.write(" ")
        _need(d, at, 6)
        name(d, at + 6, o)
        d.write(f":{u16(b, at + 4)} {u16(b, at)} {u16(b, at + 2)}")
    elif kind == 38:
        _chained(d, at, o)
    elif kind == 256:
        d.write(f" {u16(b, at)} {u16(b, at + 2)} ")
        # tcpdump takes a length below 4 for a very large one.
        if not characters(d, at + 4, end - at - 4 & 0xFFFFFFFF):
            raise Unreadable
    elif kind == 104:
        characters(d, at, end - at)
    elif kind == 250 and d.verbose:
        _signature(d, at, o)


def _authority(d: Dissector, at: int, o: int) -> None:
    if not d.verbose:
        return
    for _ in range(2):
        d.write(" ")
        at = name(d, at, o)
    _need(d, at, 20)
    d.write("".join(f" {number}" for number in struct.unpack_from(">5I", d.buffer, at)))


def _chained(d: Dissector, at: int, o: int) -> None:
    """A6 (RFC 2874): the rest of an address, and the name that has its beginning."""
    b = d.buffer
    _need(d, at, 1)
    prefix = b[at]
    known = prefix // 8
    if prefix > 128:
        d.write(f" {prefix}(bad plen)")
        return
    if prefix < 128:
        d.need(at + 1, 16 - known)
        address = bytes(known) + b[at + 1 : at + 17 - known]
        d.write(f" {prefix} {socket.inet_ntop(socket.AF_INET6, address)}")
    if prefix > 0:
        d.write(" ")
        name(d, at + 17 - known, o)


def _signature(d: Dissector, at: int, o: int) -> None:
    """TSIG (RFC 8945)."""
    b = d.buffer
    d.write(" ")
    at = name(d, at, o) + 6
    for word, passes in (("fudge", False), ("maclen", True), ("origid", False), ("error", False), ("otherlen", False)):
        _need(d, at, 2)
        value = u16(b, at)
        d.write(f" {word}={value}")
        at += 2 + (value if passes else 0)


def _edns(d: Dissector, at: int, end: int) -> None:
    if at >= end:
        return
    b = d.buffer
    d.write(" [")
    while at < end:
        _need(d, at, 2)
        kind = u16(b, at)
        d.write(_OPTIONS.get(kind) or f"Opt{kind}")
        _need(d, at, 4)
        size = u16(b, at + 2)
        _need(d, at + 4, size)
        if size:
            d.write(" ")
            _option(d, kind, at + 4, size)
        at += 4 + size
        if at < end:
            d.write(",")
    d.write("]")


def _option(d: Dissector, kind: int, at: int, size: int) -> None:
    data = d.buffer[at : at + size]
    if kind == 8:
        _subnet(d, data)
    elif kind == 10:
        if size < 8 or 8 < size < 16 or size > 40:
            invalid(d)
        else:
            d.write(data[:8].hex() + (f" {data[8:].hex()}" if size > 8 else ""))
    elif kind == 11:
        d.write(f"{u16(data, 0) / 10:.1f} sec" if size == 2 else " (invalid)")
    elif kind == 9:
        d.write(f"{u32(data, 0)} sec" if size == 4 else " (invalid)")
    elif kind == 12:
        d.write(f"({size})")
    elif kind == 14:
        if size % 2:
            invalid(d)
        else:
            d.write(" ".join(str(u16(data, each)) for each in range(0, size, 2)))
    elif kind in (5, 6, 7):
        words = {5: _ALGORITHMS, 6: _DIGESTS, 7: _HASHES}[kind]
        d.write(" ".join(words.get(each) or f"Alg_{each}" for each in data))
    elif kind == 13:
        try:
            name(d, at, at + size)
        except Unreadable:
            return  # what could be read of it is printed; the option has its length
    else:
        d.write(data.hex())


def _subnet(d: Dissector, data: bytes) -> None:
    """Client subnet (RFC 7871)."""
    if len(data) < 4:
        invalid(d)
        return
    family, source, scope = u16(data, 0), data[2], data[3]
    address = data[4:]
    wide = {1: 32, 2: 128}.get(family, 0)
    if len(address) > wide // 8 or source > wide or scope > wide or (source + 7) // 8 != len(address) or not wide:
        invalid(d)
        return
    kind = socket.AF_INET if family == 1 else socket.AF_INET6
    d.write(f"{socket.inet_ntop(kind, address.ljust(wide // 8, bytes(1)))}/{source}/{scope}")
