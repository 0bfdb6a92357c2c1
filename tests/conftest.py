"""Runs in: the test process. What all tests share; each part's own fixtures stand in its own folder."""

from __future__ import annotations

import os
import platform
import signal

import pytest
from hypothesis import settings

# Without a deadline: other work on the machine must not fail a property. Without a database: the code may be read-only.
settings.register_profile("house", deadline=None, database=None, derandomize=True, max_examples=100)
settings.load_profile("house")

# As in a terminal: who is started in the background of a script, and so are his tests, ignores it from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    return f"Linux {platform.release()} {platform.machine()}, uid {os.getuid()}"
