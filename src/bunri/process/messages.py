"""Runs in: nowhere; values only. What the monitor and its zygotes say to each other.

One SEQPACKET socket per zygote (base, role, template), one message per packet, msgpack, descriptors beside it.
The monitor may pipeline: it makes all the sockets itself, so it can ask a role for a template and that template for a
worker before either exists. A zygote that fails says so on its own socket; what stood behind it sees the end of its
socket.

Downwards the messages are trusted. Upwards a role and its templates have run the user's imports: the monitor decodes
by type, and ends a zygote that says anything else.
"""

from __future__ import annotations

import msgspec

from bunri.broker.messages import Answer, BrokerFailed, BrokerReady, Charge, Denied, Refusal, Want
from bunri.plan.steps import AnyStep

LARGEST = 150_000  # bytes of one message; a Unix socket's default send buffer takes it in one packet


class Message(msgspec.Struct, frozen=True, tag_field="say", forbid_unknown_fields=True):
    """One message."""


class ModuleRef(msgspec.Struct, frozen=True):
    """Where a module's code comes from: by name with the role's path, or from a file under `name`."""

    name: str
    file: str | None = None  # set for scripts and for modules that no path leads to


class IdMap(msgspec.Struct, frozen=True):
    """The user namespace of a role zygote that a root monitor started: (first, count), each id mapped to itself."""

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]
    uid: int  # the zygote's own


class MakeRole(Message, frozen=True, tag="make_role"):
    """monitor -> base, with the role's socket: fork a role zygote, import the module, warm up."""

    number: int
    module: ModuleRef
    path: tuple[str, ...]
    compartments: tuple[str, ...]  # qualified names of those whose preload and warm_up are to run
    environment: dict[str, str]
    ids: IdMap | None = None  # None: keep the base's rights


class RoleReady(Message, frozen=True, tag="role_ready"):
    """role -> monitor: imported and warm; fingerprints of the contracts, in the order asked."""

    pid: int
    fingerprints: tuple[int, ...]


class Failed(Message, frozen=True, tag="failed"):
    """Any zygote or a starting worker -> monitor: it cannot go on, and ends.

    `usage`: the program is to blame (an import, a thread at import time); else the host: `step` and `errno` say what
    refused."""

    text: str
    usage: bool = False
    step: str | None = None
    errno: int | None = None
    trace: str | None = None
    worker: int = 0  # the one that could not be cloned; 0: the zygote itself


class MakeTemplate(Message, frozen=True, tag="make_template"):
    """monitor -> role, with the template's socket and the detached mounts `mounts_at`: fork a template for one plan."""

    number: int
    template: tuple[AnyStep, ...]
    namespaces: tuple[str, ...]
    user: str | None
    worker: tuple[AnyStep, ...]
    pins: bool = False  # it may pin what its workers will write to
    mounts_at: tuple[str, ...] = ()


class MakeBroker(Message, frozen=True, tag="make_broker"):
    """monitor -> base, with the broker's socket, and a transparent one's listener and memory: fork a broker."""

    number: int
    charge: Charge


class TemplateReady(Message, frozen=True, tag="template_ready"):
    """template -> monitor: the template's steps are done."""

    pid: int
    image: int  # VmSize in bytes, before the steps


class MakeWorker(Message, frozen=True, tag="make_worker"):
    """monitor -> template, with the worker's channel, its output pipe and, where calls may move large bytes, its arena."""

    number: int
    compartment: str  # qualified name, in the role's module
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    arena: int = 0  # bytes


class Ahead(Message, frozen=True, tag="ahead"):
    """monitor -> template: memory that its workers write to, as (address, bytes, address, bytes ...). It is copied before they do
    anything else."""

    memory: tuple[int, ...]


class Forked(Message, frozen=True, tag="forked"):
    """template -> monitor, with the worker's pidfd."""

    number: int
    pid: int


class Ended(Message, frozen=True, tag="ended"):
    """Any zygote -> monitor: a child of it has ended and is reaped."""

    number: int
    code: int | None = None
    signal: int | None = None


Down = MakeRole | MakeTemplate | MakeWorker | Ahead | MakeBroker
Up = RoleReady | Failed | TemplateReady | Forked | Ended | BrokerReady | BrokerFailed | Answer | Refusal | Want | Denied

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
