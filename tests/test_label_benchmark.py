import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/labels.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_labels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dense_procedure_and_the_engine_give_the_same_labels(benchmark):
    features, truth = benchmark.planted(500, 48, 30, 1.0)
    dense, stages = benchmark.dense(features)
    ours, _ = benchmark.engine(features, benchmark.ExactKNN())
    np.testing.assert_array_equal(ours, dense)
    assert dense.max() > 10 and set(stages) == {"neighbors", "distance", "cluster"}
    assert (np.diff(truth) >= 0).all()


def test_the_report_holds_ratio_agreement_and_floor(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / "b.json"
    words = ["labels.py", "--images", "400", "--size", "32", "--repeat", "1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"exact float32", "exact bfloat16", "dense"}
    for name in ("exact float32", "exact bfloat16"):
        assert rows[name]["agreement"] == 1.0 and rows[name]["floor"] > 0
        assert rows[name]["ratio"] > 0 and rows[name]["peak_mb"] >= 0
    assert "labels equal to the dense ones" in capsys.readouterr().out
