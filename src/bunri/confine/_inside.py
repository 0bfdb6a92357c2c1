"""Runs in: an ordinary user's process that confines itself. A user namespace of its own, to make the others in.

Inside it the process has all capabilities over what it makes there: so it can enter an empty root like root itself. It
knows its own uid only, and as that: kept files stay its own, and nothing else can be named. The capabilities are given
up with the plan's other steps.
"""

from __future__ import annotations

import msgspec

from bunri.errors import Promise
from bunri.plan import steps as s
from bunri.plan.host import Host, UserNamespaces
from bunri.plan.report import Layer, State
from bunri.policy import Policy, Settled, User, UserKind
from bunri.policy.words import Profile

STEP = s.Unshare(namespaces=("user",), reason="an ordinary user's own; the other namespaces are made in it")


def helps(policy: Settled, host: Host) -> bool:
    """Whether a user namespace can be made and is worth it. Capabilities in it are none over the host, so a policy that
    grants some is not served by one; nor is a policy that names another user."""
    return (
        not host.is_root
        and host.user_namespaces is UserNamespaces.FULL
        and policy.user.kind in (UserKind.DYNAMIC, UserKind.SAME)
        and not policy.capabilities
        and policy.profile is not Profile.DANGEROUS_UNCONFINED
    )


def as_inside(policy: Policy, host: Host) -> tuple[Policy, Host]:
    """What the plan is to be made of: in the namespace this process may do what root may, but become nobody else."""
    everything = tuple(range(host.last_capability + 1))
    return policy.with_(user=User.same()), msgspec.structs.replace(
        host, uid=0, capabilities=everything, mapped_uids=((0, 4294967295),)
    )


def as_outside(layers: tuple[Layer, ...], host: Host) -> tuple[Layer, ...]:
    """The plan's layers, with the two that look different from outside."""
    own = {
        "uid": Layer(Promise.IDENTITY, "uid", State.MISSING, None, f"an ordinary user's process stays uid {host.uid}"),
        "user namespace": Layer(
            Promise.IDENTITY, "user namespace", State.IN_FORCE, None, "its own; knows its own uid only"
        ),
    }
    return tuple(own.get(layer.name, layer) for layer in layers)
