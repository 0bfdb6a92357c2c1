"""Runs in: the monitor. Names of link types (DLT), as libpcap has them."""

LINK_TYPES = {
    0: ("NULL", "BSD loopback"),
    1: ("EN10MB", "Ethernet"),
    12: ("RAW", "Raw IP"),
    101: ("RAW", "Raw IP"),
    105: ("IEEE802_11", "802.11"),
    108: ("LOOP", "OpenBSD loopback"),
    113: ("LINUX_SLL", "Linux cooked v1"),
    127: ("IEEE802_11_RADIO", "802.11 plus radiotap header"),
    228: ("IPV4", "Raw IPv4"),
    229: ("IPV6", "Raw IPv6"),
    276: ("LINUX_SLL2", "Linux cooked v2"),
}


def described(link: int) -> str:
    """As tcpdump describes a capture's link type."""
    if link not in LINK_TYPES:
        return f"link-type {link}"
    name, text = LINK_TYPES[link]
    return f"link-type {name} ({text})"


def number_of(name: str) -> int | None:
    """The number of a link type by its name."""
    wanted = name.upper().removeprefix("DLT_")
    return next((number for number, (known, _) in LINK_TYPES.items() if known == wanted), None)
