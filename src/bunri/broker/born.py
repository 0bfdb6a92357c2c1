"""Runs in: a broker's process, from its fork from the base zygote until it serves."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from bunri.broker.confining import confine_broker, take_hold
from bunri.broker.helper import Helper
from bunri.broker.messages import BrokerFailed, BrokerReady, Charge, Word, encode
from bunri.broker.supervise import Supervisor
from bunri.confine import StepFailed


def be_broker(control: socket.socket, charge: Charge, handed: Sequence[int]) -> NoReturn:
    """Take hold, give up the rest, say so, serve. No exception leaves it: above it is the base zygote's code."""
    try:
        _become(control, charge, handed)
    except StepFailed as fault:
        _say(control, BrokerFailed(str(fault), fault.step, fault.errno))
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        _say(control, BrokerFailed(f"{where}{fault.strerror}", "", fault.errno or 0))
    except BaseException as fault:
        sys.excepthook(type(fault), fault, fault.__traceback__)
    finally:
        os._exit(1)


def _become(control: socket.socket, charge: Charge, handed: Sequence[int]) -> NoReturn:
    held = take_hold(charge)
    if charge.transparent:
        listener, memory = handed
        work: Helper | Supervisor = Supervisor(control, charge, held, listener, memory)
    else:
        "".encode("idna")  # a name is encoded by it before it is looked up; later it could not be imported
        work = Helper(control, charge, held)
    confine_broker(charge, held, (control.fileno(), *handed))
    _say(control, BrokerReady(os.getpid()))
    work.run()


def _say(control: socket.socket, word: Word) -> None:
    control.send(encode(word), socket.MSG_NOSIGNAL)
