"""Shared fixtures. Tests import the slow oracles as `from oracles import ...`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).parent))
