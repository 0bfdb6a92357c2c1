"""Mistakes that a user makes, each on a line that says so: both checkers report every one of them."""

from __future__ import annotations

from abc import abstractmethod

import bunri
from bunri import Policy, Secret


class Files(bunri.Service):
    @abstractmethod
    async def create(self, name: str) -> bunri.File: ...


class Worker(bunri.Compartment):
    def __init__(self, edge: int, *, name: str) -> None: ...

    def work(self, data: bytes) -> int:
        return len(data)

    async def wait(self, seconds: float) -> str:
        return str(seconds)


def blocking(worker: Worker) -> None:
    Worker.start()  # wrong: no edge
    Worker.start("1", name="x")  # wrong: a string for a number
    Worker.start(1, nam="x")  # wrong: no such keyword
    Worker.pool("2", 1, name="x")  # wrong: a size that is text
    Worker.pool(2, name="x")  # wrong: no edge for the pool
    Worker.start_under(1, name="x")  # wrong: no policy
    worker.work("text")  # wrong: text for bytes
    worker.nothing()  # wrong: no such method
    bunri.call(worker.work)  # wrong: no argument
    bunri.call(worker.work, "text")  # wrong: an argument of another type
    bunri.map(worker.work, ["text"])  # wrong: items of another type
    text: str = bunri.call(worker.work, b"").result()  # wrong: the result is a number
    bunri.deadline("2")  # wrong: text for seconds
    Policy(memori="1M")  # wrong: no such field
    Policy(threads="2")  # wrong: text for a number
    Secret(5)  # wrong: a number for bytes
    bunri.limit(call=3)  # wrong: no such limit
    bunri.raises(KeyboardInterrupt)  # wrong: no Exception
    bunri.confine(Policy(), zygotes=True)  # wrong: a bool for Zygotes
    bunri.spawn("ls", "policy")  # wrong: no policy for the program
    print(text)


async def asynchronous(worker: Worker, files: Files | None) -> None:
    worker.wait(1.0)  # wrong: nobody awaits it
    number: int = await worker.wait(1.0)  # wrong: the answer is text
    await files.create("a")  # wrong: it may be None
    print(number)
