"""Runs in: the monitor, templates and workers. Carries a plan out in this process, and looks again at what holds."""

from bunri.confine.carry import carry_out
from bunri.confine.context import Context, StepFailed
from bunri.confine.detect import detect
from bunri.confine.look import Difference, Links, Look, Part, Sight, Unreadable, links_of_others, look
from bunri.confine.prepared import Ready, Surround, prepare
from bunri.confine.report import report
from bunri.confine.self import Zygotes, confine

__all__ = [
    "Context",
    "Difference",
    "Links",
    "Look",
    "Part",
    "Ready",
    "Sight",
    "StepFailed",
    "Surround",
    "Unreadable",
    "Zygotes",
    "carry_out",
    "confine",
    "detect",
    "links_of_others",
    "look",
    "prepare",
    "report",
]
