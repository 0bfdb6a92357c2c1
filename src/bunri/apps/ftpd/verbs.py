"""Runs in: the process that starts the server, and the monitor after a login; pure. The lists of cmds_allowed and cmds_denied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

# Those that this server has, and those that RFCs and vsftpd have: a list made for another server may name them.
KNOWN = frozenset({
    "ABOR", "ACCT", "ADAT", "ALLO", "APPE", "AUTH", "CCC", "CDUP", "CLNT", "CONF", "CWD", "DELE", "ENC", "EPRT", "EPSV",
    "FEAT", "HELP", "HOST", "LANG", "LIST", "LPRT", "LPSV", "MDTM", "MFMT", "MIC", "MKD", "MLSD", "MLST", "MODE", "NLST",
    "NOOP", "OPTS", "PASS", "PASV", "PBSZ", "PORT", "PROT", "PWD", "QUIT", "REIN", "REST", "RETR", "RMD", "RNFR", "RNTO",
    "SITE", "SITE CHMOD", "SITE HELP", "SIZE", "SMNT", "STAT", "STOR", "STOU", "STRU", "SYST", "TYPE", "USER", "XCUP",
    "XCWD", "XMKD", "XPWD", "XRMD",
})  # fmt: skip


def _named(text: str) -> Iterator[str]:
    return (" ".join(name.upper().split()) for name in text.split(",") if name.strip())


def check(text: str) -> str | None:
    """What is wrong with a list; None if nothing. A denial that denies nothing would be worse than no start."""
    for name in _named(text):
        if name not in KNOWN:
            close = difflib.get_close_matches(name, sorted(KNOWN), n=1)
            return f"there is no command {name!r}. {f'Did you mean {close[0]}?' if close else 'RFC 959 has the names'}"
    return None


def among(commands: frozenset[str], text: str) -> frozenset[str]:
    """Which of the commands a list means: a verb is all that begins with it, as in vsftpd. SITE is SITE CHMOD as well."""
    named = frozenset(_named(text))
    if not named:
        return named
    return frozenset(name for name in commands if name in named or name.partition(" ")[0] in named)
