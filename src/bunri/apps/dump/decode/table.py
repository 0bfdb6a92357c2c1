"""Runs in: the decoder, confined; pure. Who calls whom: which printer takes what another one found inside.

Where a packet has two known ports, the one that stands first here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bunri.apps.dump.decode import (
    arp,
    common,
    dhcp,
    dhcp6,
    domain,
    icmp,
    icmp6,
    igmp,
    ip4,
    ip6,
    link,
    llc,
    lldp,
    ntp,
    tcp,
    text,
    tftp,
    tunnels,
    udp,
)
from bunri.apps.dump.decode.core import Common, Dissector, LinkPrinter

Frame = Callable[[Dissector, int, int, int, int], None]
"""Payload of a link: offset, length, bytes captured, offset of the Ethernet header or -1."""
Carried = Callable[[Dissector, int, int, int, bool, int, int], None]
"""Payload of IP: offset, length, offset of the IP header, whether fragmented, version of IP, time to live."""
Payload = Callable[[Dissector, int, int], None]
"""Payload of TCP or UDP: offset, length."""

ETHERNET, COOKED, COOKED2 = 1, 113, 276

LINKS: Mapping[int, LinkPrinter] = {
    0: link.null,
    ETHERNET: link.ethernet,
    12: link.raw_ip,
    101: link.raw_ip,
    108: link.null,
    COOKED: link.cooked,
    228: link.raw_ip,
    229: link.raw_ip,
    COOKED2: link.cooked2,
}

COMMON: Mapping[int, Common] = {ETHERNET: common.ethernet}
FOLLOWED: Mapping[int, Common] = {ETHERNET: common.follow}

ETHERTYPES: Mapping[int, Frame] = {
    0x0800: ip4.ip4_frame,
    0x0806: arp.arp,
    0x8035: arp.arp,
    0x86DD: ip6.ip6_frame,
    0x88CC: lldp.lldp,
}

IP: Mapping[int, Carried] = {
    1: icmp.icmp,
    2: igmp.igmp,
    4: ip4.tunnel4,
    6: tcp.tcp,
    17: udp.udp,
    41: ip6.tunnel6,
    47: tunnels.gre,
    58: icmp6.icmp6,
    59: ip4.no_next,
    77: ip4.sun_nd,
    143: ip6.ethernet6,
}

# Same destination and source service point of LLC, unnumbered information.
LLC_POINTS: Mapping[int, Frame] = {
    0x06: ip4.ip4_frame,
}

# (organisation, protocol)
SNAP: Mapping[tuple[int, int], Frame] = {
    (0x0080C2, 1): llc.bridged,
    (0x0080C2, 7): llc.bridged,
}

TCP_PORTS: Mapping[int, Payload] = {
    25: text.smtp,
    43: text.whois,
    22: text.ssh,
    21: text.ftp,
    80: text.http,
    8080: text.http,
    554: text.rtsp,
    8554: text.rtsp,
    53: domain.domain_over_tcp,
}

UDP_PORTS: Mapping[int, Payload] = {
    53: domain.domain,
    5353: domain.multicast,
    69: tftp.tftp,
    68: dhcp.dhcp,
    67: dhcp.dhcp,
    123: ntp.ntp,
    546: dhcp6.dhcp6,
    547: dhcp6.dhcp6,
    4789: tunnels.vxlan,
}

# -T
TYPES: Mapping[str, Payload] = {"domain": domain.domain, "tftp": tftp.tftp, "vxlan": tunnels.vxlan}


@dataclass(frozen=True)
class Tables:
    """The tables above, as the dissector carries them: printers of one layer need not import those of the next."""

    links: Mapping[int, LinkPrinter] = field(default_factory=lambda: LINKS)
    ethertypes: Mapping[int, Frame] = field(default_factory=lambda: ETHERTYPES)
    ip: Mapping[int, Carried] = field(default_factory=lambda: IP)
    llc_points: Mapping[int, Frame] = field(default_factory=lambda: LLC_POINTS)
    snap: Mapping[tuple[int, int], Frame] = field(default_factory=lambda: SNAP)
    tcp_ports: Mapping[int, Payload] = field(default_factory=lambda: TCP_PORTS)
    udp_ports: Mapping[int, Payload] = field(default_factory=lambda: UDP_PORTS)
    types: Mapping[str, Payload] = field(default_factory=lambda: TYPES)
    tcp_order: tuple[int, ...] = tuple(TCP_PORTS)
    udp_order: tuple[int, ...] = tuple(UDP_PORTS)
    common: Mapping[int, Common] = field(default_factory=lambda: COMMON)
    followed: Mapping[int, Common] = field(default_factory=lambda: FOLLOWED)
    llc: Callable[[Dissector, int, int, int, int], int] = llc.llc
    ether: Callable[[Dissector, int, int, int], int] = link.ether

    def link(self, kind: int) -> LinkPrinter:
        """The printer of a link type."""
        return self.links.get(kind, link.unsupported)
