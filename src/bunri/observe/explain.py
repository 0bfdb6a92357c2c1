"""Runs in: the process that asks, with its user's rights. A policy on a host, as a value: what is granted and why, what
keeps it, what is missing, the steps, the filter."""

from __future__ import annotations

import msgspec

from bunri.errors import HostError
from bunri.observe.subject import Subject, holes_text
from bunri.plan import layers as _layers
from bunri.plan.report import State
from bunri.plan.value import line_of
from bunri.policy import FileGrant, NetGrant


class LayerLine(msgspec.Struct, frozen=True):
    """One layer of the plan."""

    promise: str
    name: str
    state: str
    detail: str


class RuleLine(msgspec.Struct, frozen=True):
    """One rule of the filter."""

    rule: str
    reason: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `bunri explain` prints. `refused` says why nothing would be started on that host."""

    name: str
    host: str
    policy: str
    grants: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    refused: str | None
    layers: tuple[LayerLine, ...]
    template_steps: tuple[str, ...]
    namespaces: tuple[str, ...]
    worker_steps: tuple[str, ...]
    rules: tuple[RuleLine, ...]
    filter_sizes: tuple[int, ...]
    listing: str


def explain(subject: Subject, host: str) -> Explanation:
    """The whole of it. UsageError where policy and signature contradict each other."""
    refused: str | None = None
    plan = None
    try:
        plan = subject.plan
    except HostError as fault:
        refused = str(fault)
    means = subject.means
    listed = _layers.layers(means)
    holes = holes_text(subject.policy)
    source = subject.filter.source
    assert source is not None
    clone = plan.clone if plan else None
    return Explanation(
        name=subject.name,
        host=host,
        policy=repr(subject.policy),
        grants=grants(subject),
        notes=(*([holes] if holes else []), *(plan.notes if plan else subject.settled.notes)),
        refused=refused,
        layers=tuple(
            LayerLine(x.promise.value if x.promise else "always", x.name, x.state.value, x.detail) for x in listed
        ),
        template_steps=tuple(line_of(step) for step in plan.template) if plan else (),
        namespaces=(*clone.namespaces, *([f"user ({clone.user})"] if clone.user else [])) if clone else (),
        worker_steps=tuple(line_of(step) for step in plan.worker) if plan else (),
        rules=tuple(RuleLine(str(rule), rule.reason) for rule in source.rules),
        filter_sizes=tuple(len(program) for program in subject.filters) if plan else (),
        listing=subject.filter.listing(),
    )


def grants(subject: Subject) -> tuple[tuple[str, str], ...]:
    """Each grant as it is written, with what it means; then what the signature adds."""
    policy, needs = subject.settled, subject.needs
    listed: tuple[FileGrant | NetGrant, ...] = (*subject.means.policy.files, *policy.network)
    found = [(repr(grant), grant_text(grant)) for grant in listed]
    found += [(f"capabilities: {c.name}", "kept by the worker") for c in policy.capabilities]
    found += [(f"syscalls: {entry}", "added to the filter") for entry in policy.syscalls]
    if policy.threads or policy.processes:
        found.append((f"threads={policy.threads}, processes={policy.processes}", "beside the worker's own"))
    signature = {
        "receives_descriptors": "is handed files, sockets or other handles: messages to it may carry descriptors",
        "sends_descriptors": "returns handles: messages from it may carry descriptors",
        "stream_sockets": "is handed sockets: I/O on them, and nothing else",
        "datagram_sockets": "is handed datagram sockets: I/O on them, without sendmsg",
        "asynchronous": "has async methods: an event loop",
    }
    found += [("signature", text) for name, text in signature.items() if getattr(needs, name)]
    return tuple(found)


_MEANS = {
    "read": "can be read, not executed",
    "write": "can be read, changed, made and removed, not executed",
    "execute": "can be read, executed and mapped as code",
    "scratch": "an empty file system of its own",
    "python": "the interpreter's library, for imports after confinement",
    "system": "/usr and what ordinary programs need of /etc and /dev, readable and executable",
    "connect": "connections there, made by a broker",
    "listen": "a listening socket, made by a broker",
    "unix": "connections to that Unix socket, made by a broker",
    "dangerous_host": "every address: the promise of network is given up",
}


def grant_text(grant: FileGrant | NetGrant) -> str:
    """What a grant means, in a few words."""
    return _MEANS.get(grant.kind.value, "")


def missing(explanation: Explanation) -> list[LayerLine]:
    """The layers that are not in force, and those that are weaker than their name."""
    return [each for each in explanation.layers if each.state != State.IN_FORCE.value]
