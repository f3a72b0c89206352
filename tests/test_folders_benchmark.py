"""`benchmarks/folders.py`: its folds, its words, what it keeps of earlier runs, its table."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/folders.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_folders", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["benchmark_folders"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(root: Path, **changed: Any) -> argparse.Namespace:
    given = {"data": root, "weights": root / "w.pth", "output": root / "out", "trial": "recipe"}
    given |= {"sets": ["pku37"], "folds": [0, 1, 2], "seeds": [1, 2, 3], "diagonal": False}
    given |= {"rows": ["label-free"], "change": ["A", "1"], "both": ["B", "2"]}
    return argparse.Namespace(**(given | changed))


def test_every_person_is_tested_in_one_fold(benchmark: Any, tmp_path: Path) -> None:
    people = [f"{number:03d}" for number in range(1, 112, 3)]
    for name in people:
        (tmp_path / "pku37" / name).mkdir(parents=True)
    rules = [benchmark.options(tmp_path, "pku37", fold)["test_include"] for fold in range(3)]
    tested = [[name for name in people if re.search(rule, f"{name}/01_1.png")] for rule in rules]
    assert [len(names) for names in tested] == [12, 12, 13] and sum(tested, []) == people


def test_a_trial_changes_the_label_free_row_alone(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "pku37").mkdir()
    args = arguments(tmp_path, diagonal=True)
    runs = benchmark.runs_of(args)
    assert [(run.fold, run.seed) for run in runs] == [(0, 1), (1, 2), (2, 3)]
    words = benchmark.words_of(args, runs[1])
    assert words[words.index("A") + 1] == "1" and words[words.index("CC.SEED") + 1] == "2"
    assert runs[1].folder == "pku37-fold1-seed2-label-free"


def test_ended_runs_are_read_and_listed_once(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pku37").mkdir()
    args = arguments(tmp_path, seeds=[1], rows=list(benchmark.ROWS), change=[])
    figures = {"label-free": [50.0, 30.0, 60.0], "supervised": [60.0, 50.0, 90.0]}
    for run in benchmark.runs_of(args):
        folder = tmp_path / "out" / "recipe" / run.folder
        folder.mkdir(parents=True)
        (folder / "model_final.pth").touch()
        found = {"mAP": figures[run.row][run.fold], "Rank-1": 70.0}
        if run.row == "label-free":
            found |= {"start/mAP": 40.0, "cc/num_clusters": 20.0, "cc/ari": 0.5}
        lines = [{"mAP": 1.0}, found]
        (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):  # trains nothing, and a second time adds no line
        rows = list(benchmark.rows_of(args, benchmark.runs_of(args)))
        benchmark.write(tmp_path / "out" / "results.csv", rows)
    with open(tmp_path / "out" / "results.csv", newline="") as stream:
        assert [line["map"] for line in csv.DictReader(stream)] == [
            "50",
            "60",
            "30",
            "50",
            "60",
            "90",
        ]
    benchmark.print_table(rows)
    *folds, mean = capsys.readouterr().out.splitlines()
    assert [line.split()[6] for line in folds[1:]] == ["50", "-100", "40"]
    assert mean.split()[2:6] == ["40.0", "46.7", "66.7", "25"]
