"""Runs in: the monitor. Its handles of brokers' processes: what is asked of one, and what stands behind a service.

A broker is forked from the base zygote, becomes the subject, and is bounded to its charge (`bunri.broker.confining`).
Names of hosts are looked up by a broker too, one for the whole program: what name servers send is not read here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bunri.broker._hooks import Wish
from bunri.broker.confining import refuse_weak_host
from bunri.broker.messages import (
    Address,
    Answer,
    Ask,
    AskAddresses,
    BrokerFailed,
    BrokerReady,
    Charge,
    Denied,
    Refusal,
    TreeGrant,
    Want,
    Word,
    encode,
)
from bunri.calls import Call
from bunri.errors import BunriError, HostError, InternalError, Promise
from bunri.kernel import sockets
from bunri.policy import User
from bunri.process.identity import Identity, resolve
from bunri.process.messages import Message
from bunri.process.zygotes import Zygote

if TYPE_CHECKING:
    from bunri.process.program import Program

LOOKED_UP_WITHIN = 10.0  # seconds, for the name of a granted host

_Answered = Call[tuple[Answer, int]]


class BrokerProcess(Zygote):
    """One broker's process, from the monitor's side."""

    def __init__(self, program: Program, what: str, uid: int | None = None) -> None:
        super().__init__(program, what)
        self.pid = 0
        self.ready = False
        self.on_ready: Callable[[], None] = lambda: None
        self.on_over: Callable[[BunriError | None], None] = lambda _: None
        self.on_want: Callable[[Want], None] = lambda _: self.drop()  # one that may ask for nothing
        self.on_denied: Callable[[Denied], None] = lambda _: self.drop()  # one that has nothing to tell
        self.reaped = False
        self.spent = 0  # nanoseconds of the monitor's, on what it said and asked for
        self.uid = uid  # given back when it is reaped
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Answered] = {}
        self._lock = threading.Lock()

    def _hear(self, most: int) -> None:
        begun = time.thread_time_ns()
        super()._hear(most)
        self.spent += time.thread_time_ns() - begun

    def ask(self, make: Callable[[int], Ask]) -> _Answered:
        """Ask it something. The Call ends with the answer, with an OSError, or with what became of the broker."""
        call: _Answered = Call()
        with self._lock:
            if self.ended:
                call.finish(None, self.failure or _gone(self.what))
                return call
            number = next(self._numbers)
            self._asked[number] = call
        request = make(number)
        try:
            data = encode(request)
            sockets.send(self._control, data)
        except (BrokenPipeError, ConnectionResetError):
            return call  # its end is being noticed on the supervisor's thread
        except (UnicodeEncodeError, OverflowError, OSError) as fault:
            with self._lock:
                self._asked.pop(number, None)
            call.finish(None, fault if isinstance(fault, OSError) else OSError(22, f"{fault}"))
        return call

    def tell(self, word: Word, descriptors: Sequence[int] = ()) -> None:
        """Answer what it wanted. It waits for that, so there is room."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sockets.send(self._control, encode(word), descriptors)

    def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
        if isinstance(message, BrokerReady):
            self.pid, self.ready = message.pid, True
            self.on_ready()
        elif isinstance(message, BrokerFailed):
            self.fail(
                HostError(
                    f"{self.what} could not be started: {message.text}",
                    layer="broker",
                    errno=message.errno or None,
                    remedy="Grant what exists" if not message.step else None,
                )
            )
        elif isinstance(message, Want):
            self.on_want(message)
        elif isinstance(message, Denied):
            self.on_denied(message)
        elif isinstance(message, Answer) and len(descriptors) > 1:
            self.fail(InternalError(f"{self.what} sent {len(descriptors)} descriptors with an answer; it was ended"))
            self.end()
        elif isinstance(message, Answer):
            return self._finish(message, descriptors)
        elif isinstance(message, Refusal):
            call = self._withdraw(message.number)
            if call is not None:
                call.finish(None, OSError(message.errno, message.text))
        return False

    def _finish(self, answer: Answer, descriptors: list[int]) -> bool:
        call = self._withdraw(answer.number)
        if call is None or call.done():
            return False
        call.finish((answer, descriptors[0] if descriptors else -1), None)
        return True

    def _withdraw(self, number: int) -> _Answered | None:
        with self._lock:
            return self._asked.pop(number, None)

    def on_end(self) -> None:
        with self._lock:
            waiting, self._asked = list(self._asked.values()), {}
        for call in waiting:
            call.finish(None, self.failure or _gone(self.what))
        self.on_over(self.failure)

    def on_reaped(self) -> None:
        """Its process is gone for good, and with it the last use of its uid."""
        self.reaped = True
        if self.uid is not None and self.program.users is not None:
            self.program.users.give_back(self.uid)
            self.uid = None


def _gone(what: str) -> BunriError:
    return HostError(f"{what} has ended", layer="broker", remedy="Make a new object, and hand that over")


def start_for_service(program: Program, wish: Wish) -> BrokerProcess:
    """A broker for one service object."""
    refuse_weak_host(openat2=program.host.openat2, filters=program.host.seccomp)
    identity, taken = _subject(program, wish)
    connects = (address_of(program, *wish.connect),) if wish.connect else ()
    charge = Charge(
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        trees=(TreeGrant(wish.tree, "", wish.writable),) if wish.tree else (),
        connects=connects,
        listens=(wish.listen,) if wish.listen else (),
        sockets=(wish.socket,) if wish.socket else (),
        looks_up=wish.looks_up,
        landlock=program.host.landlock_abi,
        changes_ids=program.host.is_root,
    )
    broker = BrokerProcess(program, f"the broker of {wish.tree or wish.socket or wish.connect or 'names'}", taken)
    program.make_broker(broker, charge)
    return broker


def _subject(program: Program, wish: Wish) -> tuple[Identity, int | None]:
    """Whose rights the broker has; and the dynamic uid that was taken for it."""
    found = os.stat(wish.tree) if wish.tree else None  # FileNotFoundError is the caller's
    if program.users is None:
        return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups())), None
    if wish.user is None and found is not None:
        return Identity(found.st_uid, found.st_gid), None
    identity = resolve(wish.user or User.dynamic(), None)
    if identity is not None:
        return identity, None
    uid = program.users.take()
    return Identity(uid, uid), uid


def address_of(program: Program, host: str, port: int) -> Address:
    """A granted host and port, in numbers. HostError for a name that nobody knows."""
    return Address(host, port, addresses_of(program, host))


def addresses_of(program: Program, host: str) -> tuple[str, ...]:
    """The addresses of a host: itself, where it is one; looked up once for the whole life of the program."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    found = program.names.get(host)
    if found is None:
        answer = _look_up(program, host)  # without the lock: the supervisor, who brings the answer, may want it
        with program.lock:
            found = program.names.setdefault(host, answer)
    return found


def _look_up(program: Program, host: str) -> tuple[str, ...]:
    broker = start_for_service(program, Wish(looks_up=True))
    try:
        answer, _ = broker.ask(lambda number: AskAddresses(number, host)).result(LOOKED_UP_WITHIN)
    except (OSError, TimeoutError) as fault:
        raise HostError(
            f"{host!r} is granted and has no address ({fault})",
            promise=Promise.NETWORK,
            layer="broker",
            remedy="Grant an address, or a name that this host can look up",
        ) from None
    finally:
        broker.drop()
    return answer.texts
