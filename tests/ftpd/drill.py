"""Runs in: the developer's machine. The drill table of docs/how-to/ftpd.md: `python tests/ftpd/drill.py`, as root.

The same actions as in test_attacks.py, by an attacker's code inside a living worker of each role, under its own policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import taken
import test_attacks as attacks

import bunri
from bunri.process import program

Try = Callable[[str], Awaitable[str]]


@contextlib.asynccontextmanager
async def role(name: str) -> AsyncIterator[Try]:
    """Tries one thing in a fresh worker of this role."""
    async with contextlib.AsyncExitStack() as stack:
        if name == "session":
            above = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bunri-ftpd-")))
            above.chmod(0o755)
            (above / "drop").mkdir()
            (above / "drop").chmod(0o777)
            worker: attacks.Taken = await stack.enter_async_context(attacks.session(above / "drop"))
        elif name == "pre-login":
            worker, _ = await stack.enter_async_context(attacks.prelogin())
        elif name == "tls":
            file = stack.enter_context(bunri.File.open(__file__, "rb"))
            worker = await stack.enter_async_context(taken.TakenTls.start(file, None, True))
        else:
            worker = await stack.enter_async_context(taken.TakenPasswords.start())
        yield lambda code: attacks.tried(worker, code)


async def main() -> None:
    roles = ("pre-login", "session", "tls", "auth")
    print(f"| tried | {' | '.join(roles)} | a plain process |\n|{'---|' * (len(roles) + 2)}")
    for what, code in {**attacks.EVERYWHERE, **attacks.ON_A_SOCKET}.items():
        answers: list[str] = []
        for name in roles:
            if what in attacks.ON_A_SOCKET and name in ("tls", "auth"):
                answers.append("not tried")
                continue
            async with role(name) as attempt:
                answers.append(word(await attempt(code)))
            if program._current is not None:
                program._current.forgive()  # deaths by signals would hold starts back
        plain = "" if what in (*attacks.ON_A_SOCKET, "run a program", "become root") else word(attacks.outside(code))
        print(f"| {what} | {' | '.join(answers)} | {plain} |", flush=True)


def word(answer: str) -> str:
    return {
        "True": "**done**",
        "WorkerDied": "killed",
        "Violation": "killed",
        "None": "refused",
        "False": "refused",
    }.get(answer, answer)


if __name__ == "__main__":
    asyncio.run(main())
