"""Runs in: the decoder, confined; pure. Text inside of packets, and the protocols that are made of lines: HTTP, SMTP, FTP, SSH."""

from __future__ import annotations

from bunri.apps.dump.decode.core import SHOWN, Dissector, shown

_MOST_TOKEN = 128  # a longer word is no command
_LINE = frozenset({9, *range(32, 127)})
_HTTP = frozenset(
    b"GET PUT COPY HEAD LOCK MOVE POLL POST BCOPY BMOVE MKCOL TRACE LABEL MERGE DELETE SEARCH UNLOCK REPORT UPDATE NOTIFY "
    b"BDELETE CONNECT OPTIONS CHECKIN PROPFIND CHECKOUT CCM_POST SUBSCRIBE PROPPATCH BPROPFIND BPROPPATCH UNCHECKOUT "
    b"MKACTIVITY MKWORKSPACE UNSUBSCRIBE RPC_CONNECT VERSION-CONTROL BASELINE-CONTROL".split()
)
_RTSP = frozenset(
    b"DESCRIBE ANNOUNCE GET_PARAMETER OPTIONS PAUSE PLAY RECORD REDIRECT SETUP SET_PARAMETER TEARDOWN".split()
)


def invalid(d: Dissector) -> None:
    """tcpdump's word for what cannot be."""
    d.write(" (invalid)")


def characters(d: Dissector, o: int, count: int) -> bool:
    """Text of `count` bytes, as far as it was captured; whether that was all of it."""
    piece = d.buffer[o : o + count]
    d.write(shown(piece))
    return len(piece) == count


def terminated(d: Dissector, o: int, most: int) -> int:
    """Text up to a zero byte, of at most `most` bytes; how many bytes that were, 0 where no zero came."""
    piece = d.buffer[o : o + most]
    end = piece.find(0)
    d.write("".join([SHOWN[code] for code in (piece if end < 0 else piece[:end])]))
    return end + 1


def http(d: Dissector, o: int, length: int) -> None:
    """HTTP, with WebDAV's requests."""
    d.protocol = "http"
    _lines(d, o, length, _HTTP)


def rtsp(d: Dissector, o: int, length: int) -> None:
    """RTSP."""
    d.protocol = "rtsp"
    _lines(d, o, length, _RTSP)


def smtp(d: Dissector, o: int, length: int) -> None:
    """SMTP."""
    d.protocol = "smtp"
    _lines(d, o, length, None)


def ftp(d: Dissector, o: int, length: int) -> None:
    """FTP's control connection."""
    d.protocol = "ftp"
    _lines(d, o, length, None)


def whois(d: Dissector, o: int, length: int) -> None:
    """Whois."""
    d.protocol = "whois"
    _lines(d, o, length, None)


def ssh(d: Dissector, o: int, length: int) -> None:
    """SSH: the line that tells the version; everything behind it is encrypted."""
    d.protocol = "ssh"
    b = d.buffer
    for index, wanted in enumerate(b"SSH-"):
        if b[o + index] != wanted:
            return
    at = 4
    while at < length:
        code = b[o + at]
        if code == 10 or (code == 13 and at + 1 < length and b[o + at + 1] == 10):
            d.write(f": SSH: {b[o : o + at].decode('ascii')}")
            return
        if not 32 <= code < 127:
            return
        at += 1


def _lines(d: Dissector, o: int, length: int, commands: frozenset[bytes] | None) -> None:
    """The first line, with -v all of them. With `commands` only where one of them, or a status, stands first."""
    d.write(f": {d.protocol.upper()}")
    if commands is not None and not _begins(d, o, length, commands):
        return
    if not d.verbose:
        _line(d, ": ", o, 0, length)
        return
    d.write(f", length: {length}")
    at = 0
    while at < length:
        at = _line(d, "\n\t", o, at, length)
        if at == 0:
            return


def _begins(d: Dissector, o: int, length: int, commands: frozenset[bytes]) -> bool:
    token, at = _token(d, o, 0, length)
    if at == 0:
        return False
    if token.upper() in commands:
        return True
    token, at = _token(d, o, at, length)
    return at != 0 and len(token) == 3 and token.isdigit()


def _token(d: Dissector, o: int, at: int, length: int) -> tuple[bytes, int]:
    """The word at `at`, and where the next one begins: 0 where there is no word."""
    b = d.buffer
    start = at
    while at < length:
        if o + at >= len(b):
            return b"", 0
        code = b[o + at]
        if code in b" \t\r\n":
            break
        if not 32 <= code < 127 or at - start + 2 > _MOST_TOKEN:
            return b"", 0
        at += 1
    token = b[o + start : o + at]
    if not token:
        return b"", 0
    while at < length and o + at < len(b) and b[o + at] == 32:
        at += 1
    return token, at


def _line(d: Dissector, prefix: str, o: int, start: int, length: int) -> int:
    """Print the line at `start`; where the next one begins, 0 where there is none to print."""
    b = d.buffer
    at = start
    while at < length:
        code = b[o + at]
        if code == 10 or code == 13:
            if code == 13 and (at + 1 >= length or b[o + at + 1] != 10):
                return 0
            d.write(prefix + b[o + start : o + at].decode("ascii"))
            return at + (1 if code == 10 else 2)
        if code not in _LINE:
            return 0
        at += 1
    d.write(prefix + b[o + start : o + at].decode("ascii"))
    d.mark()
    return 0
