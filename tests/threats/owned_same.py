"""In a module of its own: its zygote keeps the rights of whoever starts it, as its worker does."""

from __future__ import annotations

import owned

import bunri


class OwnedAsSelf(owned.OwnedWithFile):
    """Was handed a file of its own user, and has a folder in which it may change what it likes."""

    policy = bunri.Policy(files=[bunri.fs.scratch("/own", "1M")], user=bunri.User.same())
