"""`benchmarks/helped.py`: its mAP, and the tables it makes of features that lie there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/helped.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_helped", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_precision_asks_other_cameras(benchmark: Any) -> None:
    features = unit(np.array([[1, 0], [0, 1], [1, 0.1], [1, 0.2]]))
    truth, cameras = np.array([0, 0, 1, 0]), np.array([0, 1, 1, 1])
    # Image 0 asks 1, 2, 3: nearest are 2 (wrong), 3, 1. Images 1 and 3 ask 0 alone, 2 finds none.
    assert benchmark.precision(features, truth, cameras) == pytest.approx(
        100 * np.mean([(1 / 2 + 2 / 3) / 2, 1, 1])
    )
    # With one camera: 0 and 3 find 2 (wrong) in between, 1 finds 3 before 2 and 0.
    alone = [(1 / 2 + 2 / 3) / 2, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2]
    found = benchmark.precision(features, truth, np.zeros(4))
    assert found == pytest.approx(100 * np.mean(alone))


def test_tables_tell_good_runs_from_harmful_ones(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(6), 5)
    people = generator.normal(size=(6, 16))[truth]

    def seen(noise: float) -> np.ndarray:
        return unit(people + noise * generator.normal(size=(30, 16)))

    for setting, noise in {"cc": 0.3, "ecn": 2.0, "high-rate": 6.0}.items():
        found = {"test/truth": truth}
        for part in ("train", "test"):
            found[f"{part}/cameras"] = np.arange(30) % 2
            for when, amount in (("before", 0.8), ("after", noise)):
                plain = seen(amount)
                found[f"{part}/{when}/plain"] = plain
                found[f"{part}/{when}/flip"] = unit(plain + amount / 2 * seen(1))
        folder = tmp_path / "pku37" / setting
        folder.mkdir(parents=True)
        np.savez(folder / "model_final.npz", **found)
    words = [str(SCRIPT), "data", "weights", "--output", str(tmp_path), "--table-only"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(benchmark.boot, "activate", lambda: None)
    benchmark.main()
    made = {run["setting"]: run for run in json.loads((tmp_path / "results.json").read_text())}
    gains = {name: run["mAP"][1] - run["mAP"][0] for name, run in made.items()}
    assert gains["cc"] > 0 > gains["ecn"] > gains["high-rate"]
    lines = capsys.readouterr().out.splitlines()
    warned = {line.split()[1] for line in lines if line.endswith("warned")}
    assert "high-rate" in warned and "cc" not in warned
    rho = [float(line.split()[1]) for line in lines if line.startswith("kept_links ")]
    assert rho == [1.0, 1.0]  # of training images, of test images
