"""Shared fixtures. Tests import the slow oracles as `from oracles import ...`."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "projects" / "demo")]  # oracles; the histogram


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parts",
        metavar="MODULE[,MODULE]",
        default="",
        help="modules with parts of your own; `pytest tests/contracts` then tests only these parts",
    )
