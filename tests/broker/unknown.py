"""A compartment that is granted a host that does not exist."""

from __future__ import annotations

import bunri
from bunri import net


class Unknown(bunri.Compartment):
    policy = bunri.Policy(network=[net.connect("no-such-host.invalid", 80)])
