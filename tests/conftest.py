"""Shared fixtures. Tests import the slow oracles as `from oracles import ...`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "projects" / "demo")]  # oracles; the histogram


@pytest.fixture(autouse=True)
def smallest_numbers() -> Iterator[None]:
    """Brings back numbers below 1.2e-38 after a network was built: hypothesis draws them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parts",
        metavar="MODULE[,MODULE]",
        default="",
        help="modules with parts of your own; `pytest tests/contracts` then tests only these parts",
    )
