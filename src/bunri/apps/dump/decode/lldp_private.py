"""Runs in: the decoder, confined; pure. Parts of LLDP that organizations defined: IEEE 802.1 and 802.3, TIA, IANA, DCBX.

Each printer takes the offset of the organization's number and the length of the part; it says whether the bytes are to
be dumped, since nothing is known of that kind. A part that is too short for its kind ends without a mark.
"""

from __future__ import annotations

from collections.abc import Callable

from bunri.apps.dump.decode.core import Dissector, bits, shown, u16, u24, u32, word
from bunri.apps.dump.decode.lldp_med import tia

_SUPPORT = ((1, "supported"), (2, "enabled"))
_KINDS_8021 = {
    1: "Port VLAN Id", 2: "Port and Protocol VLAN ID", 3: "VLAN name", 4: "Protocol Identity", 7: "Link aggregation",
    8: "Congestion Notification", 9: "ETS Configuration", 10: "ETS Recommendation",
    11: "Priority Flow Control Configuration", 12: "Application Priority", 13: "EVB", 14: "CDCP",
}  # fmt: skip
_LEAST_8021 = {1: 6, 2: 7, 3: 6, 4: 5, 7: 9, 8: 6, 9: 25, 10: 25, 11: 6, 12: 5, 13: 9, 14: 8}
_PROTOCOL_VLAN = ((2, "supported"), (4, "enabled"))
_BRIDGING = {0: "Not Supported", 1: "EVB Bridge", 2: "EVB Station", 3: "Reserved for future Standardization"}
_KINDS_8023 = {1: "MAC/PHY configuration/status", 2: "Power via MDI", 3: "Link aggregation", 4: "Max frame size"}
_LEAST_8023 = {1: 9, 2: 7, 3: 9, 4: 6}
_ADVERTISED = (
    (1 << 14, "10BASE-T hdx"), (1 << 13, "10BASE-T fdx"), (1 << 12, "100BASE-T4"), (1 << 11, "100BASE-TX hdx"),
    (1 << 10, "100BASE-TX fdx"), (1 << 9, "100BASE-T2 hdx"), (1 << 8, "100BASE-T2 fdx"),
    (1 << 7, "Pause for fdx links"), (1 << 6, "Asym PAUSE for fdx"), (1 << 5, "Sym PAUSE for fdx"),
    (1 << 4, "Asym and Sym PAUSE for fdx"), (1 << 3, "1000BASE-{X LX SX CX} hdx"),
    (1 << 2, "1000BASE-{X LX SX CX} fdx"), (1 << 1, "1000BASE-T hdx"), (1, "1000BASE-T fdx"),
)  # fmt: skip
_MEDIA = dict(enumerate((
    "Unknown", "AUI", "10BASE_5", "FOIRL", "10BASE2", "10BASET duplex mode unknown", "10BASEFP", "10BASEFB",
    "10BASEFL duplex mode unknown", "10BROAD36", "10BASET hdx", "10BASET fdx", "10BASEFL hdx", "10BASEFL fdx",
    "100BASET4", "100BASETX hdx", "100BASETX fdx", "100BASEFX hdx", "100BASEFX fdx", "100BASET2 hdx", "100BASET2 fdx",
    "1000BASEX hdx", "1000BASEX fdx", "1000BASELX hdx", "1000BASELX fdx", "1000BASESX hdx", "1000BASESX fdx",
    "1000BASECX hdx", "1000BASECX fdx", "1000BASET hdx", "1000BASET fdx", "10GBASEX", "10GBASELX4", "10GBASER",
    "10GBASEER", "10GBASELR", "10GBASESR", "10GBASEW", "10GBASEEW", "10GBASELW", "10GBASESW",
)))  # fmt: skip
_POWER = ((1, "PSE"), (2, "supported"), (4, "enabled"), (8, "can be controlled"))
_PAIRS = {1: "signal", 2: "spare"}
_POWER_CLASSES = {1: "class0", 2: "class1", 3: "class2", 4: "class3", 5: "class4"}
_REVISIONS = {1: "DCB Capability Exchange Protocol Rev 1", 2: "DCB Capability Exchange Protocol Rev 1.01"}
_PRIORITIES = "\n\t     Priority : 0  1  2  3  4  5  6  7\n\t     Value    : "


def _subtype(d: Dissector, names: dict[int, str], o: int) -> int:
    kind = d.buffer[o + 3]
    d.write(f"\n\t  {word(names, kind, 'unknown')} Subtype ({kind})")
    return kind


def _one_of(
    d: Dissector,
    o: int,
    size: int,
    names: dict[int, str],
    least: dict[int, int],
    show: Callable[[Dissector, int, int, int], bool],
) -> bool:
    """A part of one of these kinds, where it has at least the bytes of its kind; True where it is of another."""
    if size < 4:
        return False
    kind = _subtype(d, names, o)
    if kind not in least:
        return True
    return size >= least[kind] and show(d, kind, o, size)


def _text(d: Dissector, o: int, size: int) -> None:
    d.write(shown(d.buffer[o : o + size].partition(b"\0")[0]))


def ieee_8021(d: Dissector, o: int, size: int) -> bool:
    """IEEE 802.1: VLANs and data centre bridging."""
    return _one_of(d, o, size, _KINDS_8021, _LEAST_8021, _print_8021)


def _print_8021(d: Dissector, kind: int, o: int, size: int) -> bool:
    b = d.buffer
    w = d.write
    if kind == 1:
        w(f"\n\t    port vlan id (PVID): {u16(b, o + 4)}")
    elif kind == 2:
        flags = b[o + 4]
        said = bits(_PROTOCOL_VLAN, flags, "none")
        w(f"\n\t    port and protocol vlan id (PPVID): {u16(b, o + 5)}, flags [{said}] (0x{flags:02x})")
    elif kind == 3:
        w(f"\n\t    vlan id (VID): {u16(b, o + 4)}")
        if size >= 7 and size >= 7 + b[o + 6]:
            w("\n\t    vlan name: ")
            _text(d, o + 7, b[o + 6])
    elif kind == 4:
        if size >= 5 + b[o + 4]:
            w("\n\t    protocol identity: ")
            _text(d, o + 5, b[o + 4])
    elif kind == 7:
        _aggregation(d, o)
    elif kind == 8:
        w(f"\n\t    Pre-Priority CNPV Indicator{_PRIORITIES}{_each_bit(b[o + 4])}")
        w(f"\n\t    Pre-Priority Ready Indicator{_PRIORITIES}{_each_bit(b[o + 5])}")
    elif kind == 9:
        flags = b[o + 4]
        w(f"\n\t    Willing:{flags >> 7}, CBS:{flags >> 6 & 2}, RES:{flags >> 3 & 7}, Max TCs:{flags & 7}")
        _transmission(d, o + 5)
    elif kind == 10:
        w(f"\n\t    RES: {b[o + 4]}")
        _transmission(d, o + 5)
    elif kind == 11:
        flags = b[o + 4]
        w(f"\n\t    Willing: {flags >> 7}, MBC: {flags >> 6 & 1}, RES: {flags >> 4 & 3}, PFC cap:{flags & 15} ")
        w(f"\n\t    PFC Enable{_PRIORITIES}{_each_bit(b[o + 5])}")
    elif kind == 12:
        _application(d, o, size)
    elif kind == 13:
        _virtual_bridging(d, o)
    else:
        _channels(d, o, size)
    return False


def _aggregation(d: Dissector, o: int) -> None:
    said = bits(_SUPPORT, d.buffer[o + 4], "none")
    d.write(f"\n\t    aggregation status [{said}], aggregation port ID {u32(d.buffer, o + 5)}")


def _each_bit(value: int) -> str:
    return "".join(f"{value >> bit & 1:<2} " for bit in range(8))


def _columns(values: list[int]) -> str:
    return " ".join(f"{value:<3}" for value in values)


def _transmission(d: Dissector, o: int) -> None:
    """Which priority goes to which class, how much bandwidth that has, and how it is chosen."""
    b = d.buffer
    groups = [value for each in b[o : o + 4] for value in (each >> 4, each & 15)]
    numbers = "0   1   2   3   4   5   6   7"
    d.write(f"\n\t    Priority Assignment Table\n\t     Priority : {numbers}\n\t     Value    : {_columns(groups)}")
    shares = _columns([*b[o + 4 : o + 12]])
    d.write(f"\n\t    TC Bandwidth Table\n\t     TC%   : {numbers}\n\t     Value : {shares}")
    ways = _columns([*b[o + 12 : o + 20]])
    d.write(f"\n\t    TSA Assignment Table\n\t     Traffic Class: {numbers}\n\t     Value        : {ways}")


def _application(d: Dissector, o: int, size: int) -> None:
    b = d.buffer
    d.write(f"\n\t    RES: {b[o + 4]}")
    if size == 5 or (size - 5) % 3:
        return
    d.write("\n\t    Application Priority Table")
    for at in range(o + 5, o + size, 3):
        said = f"Priority: {b[at] >> 5}, RES: {b[at] >> 3 & 3}, Sel: {b[at] & 7}, Protocol ID: {u16(b, at + 1)}"
        d.write(f"\n\t      {said}")


def _virtual_bridging(d: Dissector, o: int) -> None:
    bridge, station, retries, mode, life = d.buffer[o + 4 : o + 9]
    flags = f"BGID: {bridge >> 2 & 1}, RRCAP: {bridge >> 1 & 1}, RRCTR: {bridge & 1}"
    d.write(f"\n\t    EVB Bridge Status\n\t      RES: {bridge >> 3}, {flags}")
    flags = f"SGID: {station >> 3 & 1}, RRREQ: {station >> 2 & 1},RRSTAT: {station & 3}"
    d.write(f"\n\t    EVB Station Status\n\t      RES: {station >> 4}, {flags}")
    d.write(f"\n\t    R: {retries >> 5}, RTE: {retries & 31}, EVB Mode: {_BRIDGING[mode >> 6]} [{mode >> 6}]")
    d.write(f"\n\t    ROL: {mode >> 5 & 1}, RWD: {mode & 31}, RES: {life >> 6}, ROL: {life >> 5 & 1}, RKA: {life & 31}")


def _channels(d: Dissector, o: int, size: int) -> None:
    b = d.buffer
    flags = b[o + 4]
    most = u16(b, o + 6) & 0xFFF
    d.write(f"\n\t    Role: {flags >> 7}, RES: {flags >> 4 & 7}, Scomp: {flags >> 3 & 1} ChnCap: {most}")
    if (size - 8) % 3 == 0:
        for at in range(o + 8, o + size, 3):
            d.write(f"\n\t    SCID: {u24(b, at) >> 12}, SVID: {u24(b, at) & 0xFFF}")


def ieee_8023(d: Dissector, o: int, size: int) -> bool:
    """IEEE 802.3: the wire."""
    return _one_of(d, o, size, _KINDS_8023, _LEAST_8023, _print_8023)


def _print_8023(d: Dissector, kind: int, o: int, size: int) -> bool:
    b = d.buffer
    w = d.write
    if kind == 1:
        advertised, medium = u16(b, o + 5), u16(b, o + 7)
        w(f"\n\t    autonegotiation [{bits(_SUPPORT, b[o + 4], 'none')}] (0x{b[o + 4]:02x})")
        w(f"\n\t    PMD autoneg capability [{bits(_ADVERTISED, advertised, 'unknown')}] (0x{advertised:04x})")
        w(f"\n\t    MAU type {word(_MEDIA, medium, 'unknown')} (0x{medium:04x})")
    elif kind == 2:
        pair, power = word(_PAIRS, b[o + 5], "unknown"), word(_POWER_CLASSES, b[o + 6], "unknown")
        support = bits(_POWER, b[o + 4], "none")
        w(f"\n\t    MDI power support [{support}], power pair {pair}, power class {power}")
    elif kind == 3:
        _aggregation(d, o)
    else:
        w(f"\n\t    MTU size {u16(b, o + 4)}")
    return False


def iana(d: Dissector, o: int, size: int) -> bool:
    """IANA: where a thing says what it is meant to do (RFC 8520)."""
    if size < 8:
        return False
    if _subtype(d, {1: "MUD-URL"}, o) != 1:
        return True
    d.write(f"\n\t  MUD-URL={shown(d.buffer[o + 4 : o + size])}")
    return False


def exchange(d: Dissector, o: int, size: int) -> bool:
    """DCBX, before it became part of 802.1: parts inside of the part."""
    if size < 4:
        return False
    if _subtype(d, _REVISIONS, o) == 1:
        return True
    b = d.buffer
    o, left = o + 4, size - 4
    raw = False
    while left >= 2:
        if not d.has(o, 2):
            return raw
        head = u16(b, o)
        kind, long = head >> 9, head & 0x1FF
        raw = False
        o += 2
        left -= 2
        if kind == 0 or long == 0 or left < long or not d.has(o, long):
            return raw
        if kind in _FEATURES:
            least, printer = _FEATURES[kind]
            if long < least:
                return raw
            printer(d, o, long)
        else:
            raw = True
        if d.verbose > 1 or raw:
            d.unknown(o, "\n\t    ", long)
        o += long
        left -= long
    return raw


def _control(d: Dissector, o: int, long: int) -> None:
    b = d.buffer
    d.write(f"\n\t    Control - Protocol Control (type 0x1, length {long})")
    d.write(f"\n\t      Oper_Version: {b[o]}\n\t      Max_Version: {b[o + 1]}")
    d.write(f"\n\t      Sequence Number: {u32(b, o + 2)}\n\t      Acknowledgement Number: {u32(b, o + 6)}")


def _feature(d: Dissector, o: int, title: str) -> None:
    b = d.buffer
    flags = b[o + 2]
    d.write(f"\n\t    Feature - {title}\n\t      Oper_Version: {b[o]}\n\t      Max_Version: {b[o + 1]}")
    d.write(f"\n\t      Info block(0x{flags:02X}): Enable bit: {flags >> 7}, Willing bit: {flags >> 6 & 1}, ")
    d.write(f"Error Bit: {flags >> 5 & 1}\n\t      SubType: {b[o + 3]}")


def _groups(d: Dissector, o: int, long: int) -> None:
    b = d.buffer
    _feature(d, o, f"Priority Group (type 0x2, length {long})")
    d.write("\n\t      Priority Allocation")
    value = u32(b, o + 4)
    d.write("".join(f"\n\t          PgId_{each}: {value >> 28 - 4 * each & 15}" for each in range(8)))
    d.write("\n\t      Priority Group Allocation")
    d.write("".join(f"\n\t          Pg percentage[{each}]: {b[o + 8 + each]}" for each in range(8)))
    d.write(f"\n\t      NumTCsSupported: {b[o + 16]}")


def _flow_control(d: Dissector, o: int, long: int) -> None:
    b = d.buffer
    _feature(d, o, f"Priority Flow Control (type 0x3, length {long})")
    value = b[o + 4]
    d.write(f"\n\t      PFC Config (0x{value:02X})")
    for each in range(8):
        d.write(f"\n\t          Priority Bit {each}: {'Enabled' if value >> each & 1 else 'Disabled'}")
    d.write(f"\n\t      NumTCPFCSupported: {b[o + 5]}")


def _applications(d: Dissector, o: int, long: int) -> None:
    b = d.buffer
    _feature(d, o, f"Application (type 0x4, length {long})")
    for at in range(o + 4, o + long - 5, 6):
        value = u24(b, at + 2)
        kind = value >> 22
        d.write(f"\n\t      Application Value\n\t          Application Protocol ID: 0x{u16(b, at):04x}")
        said = "Socket Number" if kind else "L2 EtherType"
        d.write(f"\n\t          SF (0x{kind:x}) Application Protocol ID is {said}")
        d.write(f"\n\t          OUI: 0x{value & 0x3FFFFF:06x}\n\t          User Priority Map: 0x{b[at + 5]:02x}")


_FEATURES: dict[int, tuple[int, Callable[[Dissector, int, int], None]]] = {
    1: (10, _control),
    2: (17, _groups),
    3: (6, _flow_control),
    4: (4, _applications),
}

PRINTERS: dict[int, Callable[[Dissector, int, int], bool]] = {
    0x0080C2: ieee_8021,
    0x00120F: ieee_8023,
    0x00005E: iana,
    0x0012BB: tia,
    0x001B21: exchange,
}
