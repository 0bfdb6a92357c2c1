"""Runs in: the process that makes a plan; pure. From policy and host to the ordered steps that keep the policy there."""

from typing import TYPE_CHECKING

from bunri import later
from bunri.plan.host import Host, UserNamespaces
from bunri.plan.needs import Account, Needs, PythonPaths, Shape, python_paths
from bunri.plan.report import Layer, Report, State
from bunri.plan.value import Belongs, Clone, Expected, ExpectedMount, Plan, UserNamespace

if TYPE_CHECKING:
    from bunri.plan.planner import ONE_THREAD, plan, told_filter
else:
    __getattr__ = later.names_of(__name__, {"planner": "ONE_THREAD plan told_filter"})

__all__ = [
    "ONE_THREAD",
    "Account",
    "Belongs",
    "Clone",
    "Expected",
    "ExpectedMount",
    "Host",
    "Layer",
    "Needs",
    "Plan",
    "PythonPaths",
    "Report",
    "Shape",
    "State",
    "UserNamespace",
    "UserNamespaces",
    "plan",
    "python_paths",
    "told_filter",
]
