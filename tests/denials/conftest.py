"""Runs in: the test process. `refused` is importable by name, also for a zygote."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
