"""projects/demo: trainings side by side, a shared warm-up, and the tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import plugin_at

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "configs/quick/usl_tiny.yml"
SHORT = ("CC.ITERS_PER_EPOCH", "3", "SOLVER.WARMUP_ITERS", "2")


@pytest.fixture
def demo(data_root, monkeypatch):
    """The demo's modules, with data sets in the tests' folder."""
    monkeypatch.syspath_prepend(str(ROOT / "projects/demo"))
    monkeypatch.setenv("FASTREID_DATASETS", str(data_root))
    with plugin_at(data_root):
        import compare
        import trainings

        yield trainings, compare
    for name in ("trainings", "compare"):
        sys.modules.pop(name)


def test_a_shared_warm_up_gives_the_bytes_of_the_whole_run(demo, tmp_path):
    trainings, compare = demo
    spcl = tmp_path / "spcl.yml"
    parts = "{MEMORY: {NAME: hybrid}, REFINE: {NAMES: [self_paced]}}"
    spcl.write_text(f"_BASE_: {QUICK}\nCC: {parts}\n")
    first, second = compare.plan([QUICK, spcl], range(1, 2), tmp_path)
    assert [t.name for t in first] == ["usl_tiny seed 1"]
    assert [t.name for t in second] == ["spcl seed 1"]
    short = lambda t: trainings.Training(  # noqa: E731
        t.name, t.config, t.output, (*t.options, *SHORT), t.start
    )
    trainings.run_all([short(t) for t in first], 2)  # as many threads each as below
    alone = trainings.Training("alone", spcl, tmp_path / "alone", ("CC.SEED", "1", *SHORT))
    found = trainings.run_all([*map(short, second), alone], 2)
    assert found["alone"]["mAP"] == found["spcl seed 1"]["mAP"]
    weights = [
        torch.load(tmp_path / folder / "model_final.pth")["model"]
        for folder in ("spcl/seed1", "alone")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "±" not in compare.table(compare.summarise([spcl], range(1, 2), tmp_path))


def test_a_training_that_fails_says_why_and_ends_the_others(demo, tmp_path):
    trainings, _ = demo
    broken = trainings.Training("broken", QUICK, tmp_path / "b", ("CC.LABELS.PERIOD", "0"))
    other = trainings.Training("other", QUICK, tmp_path / "o")
    with pytest.raises(RuntimeError, match=r"broken failed[\s\S]*CC.LABELS.PERIOD=0"):
        trainings.run_all([broken, other], 2)
    assert not (tmp_path / "o" / "model_final.pth").exists()


def test_another_warm_up_is_not_shared(demo, tmp_path):
    _, compare = demo
    longer = tmp_path / "longer.yml"
    longer.write_text(f"_BASE_: {QUICK}\nCC: {{WARMUP: {{EPOCHS: 1}}}}\n")
    first, second = compare.plan([QUICK, longer], range(1, 2), tmp_path)
    assert len(first) == 2
    assert not second
