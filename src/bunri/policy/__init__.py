"""Runs in: nowhere; values only. What a worker may do: policies and the grants they are made of."""

from typing import TYPE_CHECKING

from bunri import later
from bunri.errors import Promise
from bunri.policy import fs, net
from bunri.policy.fs import FileGrant, FileKind
from bunri.policy.net import NetGrant, NetKind
from bunri.policy.policy import HOLES, Policy, Settled, largest_file
from bunri.policy.user import User, UserKind
from bunri.policy.words import AT_START, Access, AtStart, Capability, Profile, Via

if TYPE_CHECKING:
    from bunri.policy.narrow import narrower_or_equal
    from bunri.policy.toml import from_toml, to_toml
else:
    __getattr__ = later.names_of(__name__, {"narrow": "narrower_or_equal", "toml": "from_toml to_toml"})

__all__ = [
    "AT_START",
    "HOLES",
    "Access",
    "AtStart",
    "Capability",
    "FileGrant",
    "FileKind",
    "NetGrant",
    "NetKind",
    "Policy",
    "Profile",
    "Promise",
    "Settled",
    "User",
    "UserKind",
    "Via",
    "from_toml",
    "fs",
    "largest_file",
    "narrower_or_equal",
    "net",
    "to_toml",
]
