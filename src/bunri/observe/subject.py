"""Runs in: the process that asks, with its user's rights. What `explain` and `--against` are asked about: a policy,
from a file or from a compartment, with what its signature needs, planned for a host.

A compartment is found by importing its module here, as its monitor does: `bunri explain` runs the module's top level.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

from bunri.compartment import Compartment
from bunri.errors import UsageError
from bunri.plan import Host, Needs, Plan, Shape, UserNamespaces, plan, python_paths
from bunri.plan import allow as _allow
from bunri.plan.means import Means
from bunri.plan.steps import Filter
from bunri.policy import AT_START, Policy, User
from bunri.policy.toml import from_toml
from bunri.policy.user import UserKind
from bunri.process.templates import needs_of
from bunri.seccomp import Program
from bunri.wire import contract_of

HOLES = "the holes (AT_START) are taken as their defaults"


@dataclass(frozen=True)
class Subject:
    """A policy with its needs, on a host."""

    name: str
    policy: Policy
    needs: Needs
    host: Host
    compartment: type[Compartment] | None = None

    @cached_property
    def settled(self) -> Policy:
        """The policy with every hole filled by the default of its field: what can be said before the program runs."""
        defaults = Policy()
        values = {name: getattr(defaults, name) for name in self.policy.holes}
        return self.policy.with_(**values) if values else self.policy

    @cached_property
    def means(self) -> Means:
        return Means(self.settled.settled(), self.host, self.needs, None, self._mapped)

    @cached_property
    def plan(self) -> Plan:
        """HostError where the host cannot keep a promise."""
        return plan(self.settled, self.host, self.needs, python=python_paths(), mapped=self._mapped)

    @cached_property
    def filter(self) -> Program:
        """The whole list as one filter, with the rules it came from."""
        return _allow.worker_program(self.means)

    @cached_property
    def filters(self) -> tuple[Program, ...]:
        """The filters that the kernel gets, in the order of the plan."""
        steps = (*self.plan.template, *self.plan.worker)
        return tuple(Program.from_bytes(s.program, arch=self.host.arch) for s in steps if isinstance(s, Filter))

    @property
    def _mapped(self) -> bool:
        """Whether a root-started zygote would live in a user namespace that does not know root."""
        user = self.settled.user
        needs_root = bool(self.settled.capabilities) or (isinstance(user, User) and _is_root(user))
        full = self.host.user_namespaces is UserNamespaces.FULL
        return self.host.is_root and full and not needs_root and self.needs.shape is Shape.WORKER


def _is_root(user: User) -> bool:
    return user.kind is UserKind.SAME or user.uid == 0 or user.name == "root"


def subject(text: str, host: Host) -> Subject:
    """From `FILE.toml` (the policy of a program, as `bunri run` would start it) or `module:Compartment`.

    UsageError says what was looked for, with the nearest name there is.
    """
    if text.endswith(".toml") or os.path.sep in text or os.path.isfile(text):
        return of_file(text, host)
    module_name, colon, name = text.partition(":")
    if not colon or not name:
        raise UsageError(
            f"{text!r} is neither a policy file nor a compartment. Write a file, as policy.toml, or module:Compartment"
        )
    module = load(module_name)
    found = compartment_of(module, name)
    return of_compartment(found, host)


def of_file(path: str, host: Host) -> Subject:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise UsageError(f"{path!r} is no text. A policy file is TOML") from None
    except OSError as fault:
        raise UsageError(f"{path!r} cannot be read: {fault.strerror}") from None
    try:
        return Subject(path, from_toml(text), Needs(shape=Shape.PROGRAM), host)
    except UsageError as fault:
        raise UsageError(f"{path}: {fault}") from None


def of_compartment(cls: type[Compartment], host: Host) -> Subject:
    return Subject(f"{cls.__module__}:{cls.__qualname__}", cls.policy, needs_of(contract_of(cls)), host, cls)


def load(name: str) -> ModuleType:
    """Import a module as its program would, with the current folder on the path."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise UsageError(f"the current folder is there no more, and {name} is looked for from there") from None
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name is None or not (name == fault.name or name.startswith(fault.name + ".")):
            raise UsageError(f"importing {name} failed: {fault}") from fault
        raise UsageError(
            f"no module {name!r} is to be found from here ({here}). Name it as its program imports it"
        ) from None
    except (Exception, SystemExit) as fault:  # a program without its guard may end itself
        raise UsageError(f"importing {name} failed: {type(fault).__name__}: {fault}") from fault


def compartment_of(module: ModuleType, name: str) -> type[Compartment]:
    there = compartments_of(module)
    if name in there:
        return there[name]
    if not there:
        raise UsageError(f"{module.__name__} defines no compartment")
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(there))}"
    raise UsageError(f"{module.__name__} has no compartment {name!r}. {hint}")


def compartments_of(module: ModuleType) -> dict[str, type[Compartment]]:
    """The compartments that the module defines or has imported by name."""
    from bunri.compartment import defined_in

    found = dict(defined_in(module.__name__))
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, Compartment) and value is not Compartment:
            found.setdefault(name, value)
    return {name: cls for name, cls in found.items() if not cls.__dict__.get("_bunri_stub")}


def holes_text(policy: Policy) -> str:
    return f"{', '.join(policy.holes)}: known only at the start ({AT_START!r}); {HOLES}" if policy.holes else ""
