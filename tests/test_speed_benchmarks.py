"""The benchmarks of speed run to their tables, at sizes of seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("speed.py", "extraction"), ("published", "bare forward, float32", "ours, float32")),
        (("speed.py", "denormals"), ("forward, random weights, flushed",)),
        (("beside.py",), ("choosing 128 triplets", "dcgan: drawing 64", "blend: drawing 64")),
    ],
)
def test_a_small_run_prints_its_rows(drawn: Path, words: tuple[str, ...], rows: tuple[str]) -> None:
    command = [sys.executable, str(FOLDER / words[0]), *words[1:], "--small", "--repeat", "1"]
    found = subprocess.run(
        command,
        env={**os.environ, "FASTREID_DATASETS": str(drawn)},
        capture_output=True,
        text=True,
        cwd=drawn,
    )
    assert found.returncode == 0, found.stderr
    for row in rows:
        (line,) = [line for line in found.stdout.splitlines() if line.startswith(f"| {row} ")][:1]
        assert float(line.split("|")[2].replace(",", "")) > 0
