"""Runs in: the test process. The programs are importable by name, also for a zygote."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "programs"), str(HERE)]
