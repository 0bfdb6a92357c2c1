"""Runs in: the process that asks, with its user's rights. A program's separation without running it: each compartment with its
policy, what it may call, what may be handed to it and by it, and what of that is spelled dangerous."""

from __future__ import annotations

import json

import msgspec

from bunri.compartment import Compartment, Reuse
from bunri.observe.subject import compartments_of, load
from bunri.policy import Policy
from bunri.process.worker import travelling
from bunri.wire import Contract, contract_of


class Role(msgspec.Struct, frozen=True):
    """One compartment, or one service interface. `calls` names the interfaces that it can reach."""

    name: str
    kind: str  # compartment or service
    policy: str
    methods: tuple[str, ...]
    calls: tuple[str, ...]
    handed: tuple[str, ...]  # kinds of handle that go down to it
    hands: tuple[str, ...]  # and that come up from it
    dangers: tuple[str, ...]


def roles(modules: tuple[str, ...]) -> tuple[Role, ...]:
    """The compartments of modules, and after them the services that they can reach. UsageError where there are none of either."""
    found: dict[str, Role] = {}
    services: dict[type, None] = {}
    for module in modules:
        for cls in compartments_of(load(module)).values():
            contract = contract_of(cls)
            found.setdefault(name_of(cls), _compartment(cls, contract))
            services |= dict.fromkeys(contract.services)
    for service in services:
        contract = contract_of(service)
        found[name_of(service)] = Role(
            name_of(service), "service", "", _methods(contract), tuple(map(name_of, contract.services)), (), (), ()
        )
    return tuple(found.values())


def name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _compartment(cls: type[Compartment], contract: Contract) -> Role:
    down, up = travelling(contract)
    return Role(
        name_of(cls), "compartment", repr(cls.policy), _methods(contract), tuple(map(name_of, contract.services)),
        tuple(sorted(kind.name.lower() for kind in down)), tuple(sorted(kind.name.lower() for kind in up)), _dangers(cls),
    )  # fmt: skip


def _methods(contract: Contract) -> tuple[str, ...]:
    found: list[str] = []
    for method in contract.methods:
        limits = method.limits
        shown = [] if limits is None else [
            f"{name}={value}" for name in ("calls", "concurrent", "size") if (value := getattr(limits, name)) is not None
        ]  # fmt: skip
        found.append(method.name + (f" ({', '.join(shown)})" if shown else ""))
    return tuple(found)


def _dangers(cls: type[Compartment]) -> tuple[str, ...]:
    """What the program itself has spelled with that word."""
    found = (
        [] if cls.reuse is Reuse.NEVER else ["its workers serve many principals (Reuse.DANGEROUS_ACROSS_PRINCIPALS)"]
    )
    policy: Policy = cls.policy
    if "dangerous" in repr(policy).lower():
        found.append("its policy is spelled dangerous")
    if policy.may_miss:
        found.append(f"may miss {', '.join(promise.value for promise in policy.may_miss)}")
    return tuple(found)


def dot(found: tuple[Role, ...]) -> str:
    """For Graphviz. Names are quoted as JSON strings are, which is what its language takes."""
    lines = [
        "digraph bunri {",
        "  rankdir=LR;",
        '  node [shape=box, fontname="sans-serif"];',
        "  monitor [shape=house];",
    ]
    for role in found:
        colour = ' color="red",' if role.dangers else ""
        shape = ' shape="ellipse",' if role.kind == "service" else ""
        text = "\n".join([role.name, *role.methods])
        lines.append(f"  {json.dumps(role.name)} [{shape}{colour} label={json.dumps(text)}];")
        lines.append(
            f"  monitor -> {json.dumps(role.name)};"
            if role.kind == "compartment"
            else f"  {json.dumps(role.name)} -> monitor;"
        )
        lines += [f"  {json.dumps(role.name)} -> {json.dumps(called)};" for called in role.calls]
    return "\n".join([*lines, "}"])
