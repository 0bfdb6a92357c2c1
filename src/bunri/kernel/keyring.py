"""Runs in: every process. keyctl(2): the session keyring (session-keyring(7))."""

from __future__ import annotations

from bunri.kernel._call import syscall

SESSION = -3
USER_SESSION = -5
_GET_ID, _JOIN_SESSION = 0, 1


def join_session() -> int:
    """Leave the inherited session keyring for a fresh, empty, nameless one. Returns its id."""
    return syscall("keyctl", _JOIN_SESSION, None)


def session_id() -> int:
    """The id of the present session keyring."""
    return syscall("keyctl", _GET_ID, SESSION, 0)
