"""Runs in: every process. The public names of bunri, nothing else. `bunri/__init__.py` loads them at the first use of one."""

from bunri.broker import Directory
from bunri.calls import Call, call, deadline, map
from bunri.compartment import Compartment, Reuse
from bunri.confine import Zygotes
from bunri.errors import (
    BunriError,
    DeadlineExceeded,
    Denial,
    Exit,
    HostError,
    InternalError,
    Misbehaved,
    Observer,
    PeerError,
    ProtocolError,
    RemoteError,
    UsageError,
    Violation,
    WorkerDied,
)
from bunri.handles import File, Mapped, Secret
from bunri.plan.report import Layer, Report, State
from bunri.policy import AT_START, Access, Capability, Policy, Promise, User, Via, fs, net
from bunri.process.doors import PIPE, confine, prepare, spawn
from bunri.process.process import Process
from bunri.service import Service, limit, raises
from bunri.text import Untrusted, printable
from bunri.wire.registry import Datagram, NotFinite, RawText

__all__ = [
    "AT_START",
    "PIPE",
    "Access",
    "BunriError",
    "Call",
    "Capability",
    "Compartment",
    "Datagram",
    "DeadlineExceeded",
    "Denial",
    "Directory",
    "Exit",
    "File",
    "HostError",
    "InternalError",
    "Layer",
    "Mapped",
    "Misbehaved",
    "NotFinite",
    "Observer",
    "PeerError",
    "Policy",
    "Process",
    "Promise",
    "ProtocolError",
    "RawText",
    "RemoteError",
    "Report",
    "Reuse",
    "Secret",
    "Service",
    "State",
    "Untrusted",
    "UsageError",
    "User",
    "Via",
    "Violation",
    "WorkerDied",
    "Zygotes",
    "call",
    "confine",
    "deadline",
    "fs",
    "limit",
    "map",
    "net",
    "prepare",
    "printable",
    "raises",
    "spawn",
]
