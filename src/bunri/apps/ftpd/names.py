"""Runs in: the user's shell and the monitor; pure. Which names may become part of a path.

A user's name stands for $USER in local_root, and for a file in user_config_dir. `..` would be another folder's file.
"""

from __future__ import annotations

LONGEST = 128  # bytes of a name and of a password, as in vsftpd


def fault_in(name: str) -> str | None:
    """Why it is no user's name; None if it is one. The same rule for what is written and for what logs in."""
    if not name.isprintable() or " " in name:
        return "it has a space or an unprintable sign"
    if not (name[:1].isalnum() or name[:1] == "_"):
        return "a letter, a digit or _ comes first"
    if "/" in name or ":" in name:
        return "it has a / or a :"
    return f"it is longer than {LONGEST} bytes" if len(name.encode()) > LONGEST else None
