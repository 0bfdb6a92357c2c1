"""Runs in: the monitor, templates and workers. Carries a plan out in this process, and looks again at what holds."""

from typing import TYPE_CHECKING

from bunri import later
from bunri.confine.carry import carry_out
from bunri.confine.context import Context, StepFailed
from bunri.confine.prepared import Ready, Surround, prepare
from bunri.confine.words import HasDescriptor, Zygotes

if TYPE_CHECKING:
    from bunri.confine.detection import detect
    from bunri.confine.looking import Difference, Links, Look, Part, Sight, Unreadable, links_of_others, look
    from bunri.confine.reporting import report
else:
    _MONITORS = {
        "detection": "detect",
        "looking": "Difference Links Look Part Sight Unreadable links_of_others look",
        "reporting": "report",
    }
    __getattr__ = later.names_of(__name__, _MONITORS)

__all__ = [
    "Context",
    "Difference",
    "HasDescriptor",
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
    "detect",
    "links_of_others",
    "look",
    "prepare",
    "report",
]
