"""Shared fixtures. Tests import the slow oracles as `from oracles import ...`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "projects" / "demo")]  # oracles; the histogram
