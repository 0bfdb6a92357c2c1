"""Runs in: the process that reads a policy file; pure. The small grammar of grants in text. Nothing is ever evaluated.

grant    = word { "." word } [ "(" [ argument { "," argument } ] ")" ]
argument = [ word "=" ] value
value    = string | number | "(" number { "," number } [ "," ] ")" | word "." word
string   = '...' or "...", with \\\\ \\' \\" \\n \\r \\t and \\xNN, \\uNNNN, \\UNNNNNNNN
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from bunri.errors import UsageError
from bunri.policy import _parse, fs, net
from bunri.policy.user import User
from bunri.policy.words import Via

Value: TypeAlias = "str | int | tuple[int, ...] | Via"

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>\d+)|(?P<mark>[().,=])"""
    r"""|(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))"""
)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)")
_ESCAPED: Final = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_LONGEST: Final = 10_000  # characters of one grant

# What may be called, and nothing else.
_CALLS: Final = cast(
    "Mapping[str, Callable[..., object]]",
    {
        "fs.read": fs.read,
        "fs.write": fs.write,
        "fs.execute": fs.execute,
        "fs.scratch": fs.scratch,
        "fs.python": fs.python,
        "fs.system": fs.system,
        "net.connect": net.connect,
        "net.listen": net.listen,
        "net.unix": net.unix,
        "net.dangerous_host": net.dangerous_host,
        "User.dynamic": User.dynamic,
        "User.named": User.named,
        "User.ids": User.ids,
        "User.same": User.same,
    },
)
_WAYS: Final = {f"Via.{way.name}": way for way in Via}


@dataclass
class _Tokens:
    text: str
    where: str
    at: int = 0

    def next(self) -> tuple[str, str]:
        """The kind and text of the next token; ("end", "") at the end."""
        if not self.text[self.at :].strip():
            return "end", ""
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup is None:
            raise self.wrong(f"{self.text[self.at :].strip()[:20]!r} is not understood")
        self.at = match.end()
        return match.lastgroup, match[match.lastgroup]

    def peek(self) -> tuple[str, str]:
        before = self.at
        token = self.next()
        self.at = before
        return token

    def expect(self, mark: str) -> None:
        _, text = self.next()
        if text != mark:
            raise self.wrong(f"{mark!r} is expected, and {text or 'the end'!r} is there")

    def wrong(self, text: str) -> UsageError:
        return UsageError(
            f"{self.where}: {self.text[:80]!r}: {text}. Write it as in Python, as fs.read('/usr', at='/data')"
        )


def grant(text: str, where: str) -> object:
    """The grant or user that the text spells. UsageError for anything else."""
    tokens = _Tokens(text[:_LONGEST], where)
    name = _dotted(tokens)
    if name not in _CALLS:
        raise UsageError(f"{where}: {name!r} is no grant. {_parse.nearest(name, _CALLS)}")
    tokens.expect("(")
    positional, named = _arguments(tokens)
    if tokens.next()[0] != "end":
        raise tokens.wrong("something stands behind it")
    try:
        return _CALLS[name](*positional, **named)
    except TypeError as fault:
        raise tokens.wrong(f"{fault}") from None


def _dotted(tokens: _Tokens) -> str:
    kind, text = tokens.next()
    if kind != "word":
        raise tokens.wrong("a name is expected")
    while tokens.peek() == ("mark", "."):
        tokens.next()
        kind, part = tokens.next()
        if kind != "word":
            raise tokens.wrong("a name is expected behind the dot")
        text += f".{part}"
    return text


def _arguments(tokens: _Tokens) -> tuple[list[Value], dict[str, Value]]:
    positional: list[Value] = []
    named: dict[str, Value] = {}
    while tokens.peek() != ("mark", ")"):
        kind, _ = tokens.peek()
        if kind == "word":
            word = _dotted(tokens)
            if tokens.peek() == ("mark", "="):
                tokens.next()
                if word in named:
                    raise tokens.wrong(f"{word} is given twice")
                named[word] = _value(tokens)
            else:
                positional.append(_way(word, tokens))
        else:
            positional.append(_value(tokens))
        if tokens.peek() != ("mark", ","):
            break
        tokens.next()
    tokens.expect(")")
    return positional, named


def _value(tokens: _Tokens) -> Value:
    kind, text = tokens.peek()
    if kind == "word":
        return _way(_dotted(tokens), tokens)
    tokens.next()
    if kind == "string":
        return _unescaped(text[1:-1], tokens)
    if kind == "number":
        return int(text[:30])
    if text == "(":
        return _numbers(tokens)
    raise tokens.wrong("a string or a number is expected")


def _numbers(tokens: _Tokens) -> tuple[int, ...]:
    found: list[int] = []
    while tokens.peek() != ("mark", ")"):
        kind, text = tokens.next()
        if kind != "number":
            raise tokens.wrong("a number is expected")
        found.append(int(text[:30]))
        if tokens.peek() != ("mark", ","):
            break
        tokens.next()
    tokens.expect(")")
    return tuple(found)


def _way(word: str, tokens: _Tokens) -> Via:
    if word not in _WAYS:
        raise tokens.wrong(f"{word!r} is no value. {_parse.nearest(word, _WAYS)}")
    return _WAYS[word]


def _unescaped(text: str, tokens: _Tokens) -> str:
    def one(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) > 1:
            return chr(int(escape[1:], 16))
        if escape not in _ESCAPED:
            raise tokens.wrong(f"there is no escape \\{escape}")
        return _ESCAPED[escape]

    return _ESCAPE.sub(one, text)
