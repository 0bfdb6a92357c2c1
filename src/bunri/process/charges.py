"""Runs in: the monitor. What a worker's own broker is charged with: its policy's grants, in numbers and paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bunri.broker.messages import Address, Charge, TreeGrant
from bunri.plan.means import is_name
from bunri.plan.places import NSSWITCH, hosts_file
from bunri.policy import FileGrant, NetKind, Settled, Via
from bunri.process.brokers import addresses_of
from bunri.process.identity import Identity

if TYPE_CHECKING:
    from bunri.process.program import Program

_Names = tuple[tuple[str, tuple[str, ...]], ...]


def is_brokered(policy: Settled) -> bool:
    """Whether a worker under this policy has a broker."""
    return _files_are_brokered(policy) or bool(_connects(policy))


def _files_are_brokered(policy: Settled) -> bool:
    return any(grant.via is Via.BROKER for grant in policy.files)


def _connects(policy: Settled) -> tuple[str, ...]:
    return tuple(grant.kind.value for grant in policy.network if grant.kind is not NetKind.DANGEROUS_HOST)


def look_up_names(program: Program, policy: Settled) -> None:
    """Look up the granted hosts that are not known yet. HostError for one that has no address."""
    for grant in policy.network:
        if grant.kind is NetKind.CONNECT:
            addresses_of(program, grant.host)


def names_of(program: Program, policy: Settled) -> _Names:
    """The granted hosts that are names, with their addresses."""
    hosts = dict.fromkeys(g.host for g in policy.network if g.kind is NetKind.CONNECT and is_name(g.host))
    return tuple((host, addresses_of(program, host)) for host in hosts)


def charge_of(program: Program, policy: Settled, identity: Identity | None, *, several: bool, filter: bytes) -> Charge:
    """The charge of the broker of one worker; `identity`: the worker's, where it has another than the monitor.
    `several`: it may be several processes, or another program. `filter`: in development mode."""
    subject = identity or Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    brokered = _files_are_brokered(policy)
    names = names_of(program, policy)
    texts = (("/etc/hosts", hosts_file(names)), ("/etc/nsswitch.conf", NSSWITCH)) if brokered and names else ()
    return Charge(
        uid=subject.uid,
        gid=subject.gid,
        groups=subject.groups,
        trees=tuple(_tree(grant) for grant in policy.files) if brokered else (),
        connects=tuple(
            Address(g.host, g.port, addresses_of(program, g.host)) for g in policy.network if g.kind is NetKind.CONNECT
        ),
        listens=tuple(grant.port for grant in policy.network if grant.kind is NetKind.LISTEN),
        sockets=tuple(grant.path for grant in policy.network if grant.kind is NetKind.UNIX),
        texts=texts,
        transparent=True,
        several=several,
        filter=filter,
        landlock=program.host.landlock_abi,
        changes_ids=program.host.is_root,
    )


def _tree(grant: FileGrant) -> TreeGrant:
    """For reading, links that stay beneath are followed, as the kernel does it for a grant of its own."""
    return TreeGrant(grant.path, grant.at, grant.writable, links=not grant.writable)
