"""Runs in: the decoder, confined; pure. LLDP for media endpoints, such as telephones (ANSI/TIA-1057)."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, bits, shown, u16, u32, word

_KINDS = {
    1: "LLDP-MED Capabilities", 2: "Network policy", 3: "Location identification", 4: "Extended power-via-MDI",
    5: "Inventory - hardware revision", 6: "Inventory - firmware revision", 7: "Inventory - software revision",
    8: "Inventory - serial number", 9: "Inventory - manufacturer name", 10: "Inventory - model name",
    11: "Inventory - asset ID",
}  # fmt: skip
_LEAST = {1: 7, 2: 8, 3: 5, 4: 7, **dict.fromkeys(range(5, 12), 4)}
_INVENTORY = {
    5: "Hardware revision", 6: "Firmware revision", 7: "Software revision", 8: "Serial number",
    9: "Manufacturer name", 10: "Model name", 11: "Asset ID",
}  # fmt: skip
_ABILITIES = (
    (1, "LLDP-MED capabilities"), (2, "network policy"), (4, "location identification"),
    (8, "extended power via MDI-PSE"), (16, "extended power via MDI-PD"), (32, "Inventory"),
)  # fmt: skip
_DEVICES = {1: "endpoint class 1", 2: "endpoint class 2", 3: "endpoint class 3", 4: "network connectivity"}
_USES = {
    1: "voice", 2: "voice signaling", 3: "guest voice", 4: "guest voice signaling", 5: "softphone voice",
    6: "video conferencing", 7: "streaming video", 8: "video signaling",
}  # fmt: skip
_POLICY = ((128, "Unknown"), (64, "Tagged"), (32, "reserved"))
_FORMATS = {1: "coordinate-based LCI", 2: "civic address LCI", 3: "ECS ELIN"}
_ALTITUDES = {1: "meters", 2: "floors"}
_DATUMS = {
    1: "World Geodesic System 1984", 2: "North American Datum 1983 (NAVD88)", 3: "North American Datum 1983 (MLLW)",
}  # fmt: skip
_WHERE = {
    0: "location of DHCP server", 1: "location of the network element believed to be closest to the client",
    2: "location of the client",
}  # fmt: skip
_CIVIC = {
    1: "national subdivisions (state,canton,region,province,prefecture)", 2: "county, parish, gun, district",
    3: "city, township, shi", 4: "city division, borough, city district, ward chou", 5: "neighborhood, block",
    6: "street",
}  # fmt: skip
_SOURCES = {1: "PSE - primary power source", 2: "local - backup power source", 3: "PSE+local - reserved"}
_PRIORITIES = {1: "critical", 2: "high", 3: "low"}
_MOST_POWER = 1024  # tenths of a watt


def _text(d: Dissector, o: int, size: int) -> None:
    d.write(shown(d.buffer[o : o + size].partition(b"\0")[0]))


def tia(d: Dissector, o: int, size: int) -> bool:
    """One part; whether its bytes are to be dumped, since nothing is known of it."""
    if size < 4:
        return False
    b = d.buffer
    w = d.write
    kind = b[o + 3]
    w(f"\n\t  {word(_KINDS, kind, 'unknown')} Subtype ({kind})")
    if kind not in _LEAST:
        return True
    if size < _LEAST[kind]:
        return False
    if kind == 1:
        able, device = u16(b, o + 4), b[o + 6]
        w(f"\n\t    Media capabilities [{bits(_ABILITIES, able, 'none')}] (0x{able:04x})")
        w(f"\n\t    Device type [{word(_DEVICES, device, 'unknown')}] (0x{device:02x})")
    elif kind == 2:
        w(f"\n\t    Application type [{word(_USES, b[o + 4], 'none')}] (0x{b[o + 4]:02x})")
        w(f", Flags [{bits(_POLICY, b[o + 5], 'none')}]")
        value = u16(b, o + 6)
        w(
            f"\n\t    Vlan id {(u16(b, o + 5) & 0x1FFE) >> 1}, L2 priority {(value & 0x1FF) >> 6}, DSCP value {value & 63}"
        )
    elif kind == 3:
        _location(d, o, size)
    elif kind == 4:
        _power(d, o)
    else:
        w(f"\n\t  {_INVENTORY[kind]} ")
        _text(d, o + 4, size - 4)
    return False


def _power(d: Dissector, o: int) -> None:
    flags, value = d.buffer[o + 4], u16(d.buffer, o + 5)
    d.write(f"\n\t    Power type [{'PD device' if flags & 3 else 'PSE device'}]")  # these bits, as tcpdump has them
    d.write(f", Power source [{word(_SOURCES, flags >> 4 & 3, 'none')}]")
    d.write(f"\n\t    Power priority [{word(_PRIORITIES, flags & 15, 'none')}] (0x{flags & 15:02x})")
    d.write(f", Power {value / 10:.1f} Watts" if value < _MOST_POWER else f", Power {value} (Reserved)")


def _location(d: Dissector, o: int, size: int) -> None:
    b = d.buffer
    w = d.write
    kind = b[o + 4]
    w(f"\n\t    Location data format {word(_FORMATS, kind, 'unknown')} (0x{kind:02x})")
    if kind == 1:
        if size >= 21:
            _coordinates(d, o)
    elif kind == 2:
        _civic(d, o, size)
    elif kind == 3:
        w("\n\t    ECS ELIN id ")
        _text(d, o + 5, size - 5)
    else:
        w("\n\t    Location ID ")
        d.unknown(o + 5, "\n\t      ", size - 5)


def _coordinates(d: Dissector, o: int) -> None:
    b = d.buffer
    w = d.write
    for title, at in (("Latitude", o + 5), ("Longitude", o + 10)):
        value = (b[at] & 3) << 32 | u32(b, at + 1)
        w(f"\n\t    {title} resolution {b[at] >> 2}, {title.lower()} value {value}")
    w(f"\n\t    Altitude type {word(_ALTITUDES, b[o + 15] >> 4, 'unknown')} ({b[o + 15] >> 4})")
    w(f"\n\t    Altitude resolution {u16(b, o + 15) >> 6 & 63}, altitude value 0x{u32(b, o + 16) & 0x3FFFFFFF:x}")
    w(f"\n\t    Datum {word(_DATUMS, b[o + 20], 'unknown')} (0x{b[o + 20]:02x})")


def _civic(d: Dissector, o: int, size: int) -> None:
    """An address as people write it, in pieces."""
    b = d.buffer
    w = d.write
    if size < 6 or b[o + 5] < 3 or size < 7 + b[o + 5]:
        return
    left = b[o + 5]
    w(f"\n\t    LCI length {left}, LCI what {word(_WHERE, b[o + 6], 'unknown')} (0x{b[o + 6]:02x}), Country-code ")
    _text(d, o + 7, 2)
    left -= 3
    at = o + 9
    while left >= 2:
        kind, long = b[at], b[at + 1]
        at += 2
        left -= 2
        w(f"\n\t      CA type '{word(_CIVIC, kind, 'unknown')}' ({kind}), length {long}: ")
        if kind == 0 or long == 0 or left < long:
            return
        _text(d, at, long)
        at += long
        left -= long
