"""Runs in: a process of its own for each test. How a zygote ends."""

from __future__ import annotations

import subprocess
import sys

_LEFT_UNREAD = """
import os, socket
from bunri.process.keeper import Keeper
from bunri.process.messages import Ended

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
zygote = Keeper(theirs, os.pidfd_open(os.getppid()))
zygote.say(Ended(1, code=0))
ours.close()
zygote.run()
"""


def test_a_zygote_whose_monitor_left_its_words_unread_ends_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", _LEFT_UNREAD], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
