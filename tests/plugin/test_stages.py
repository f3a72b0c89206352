"""Which epoch trains on what, as a run says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import config


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("SOLVER.MAX_EPOCH", 3), ""),
        (("SOLVER.MAX_EPOCH", 3, "CC.WARMUP.EPOCHS", 2),
         "epochs 0 to 1: every image is a class of its own (warm-up); pseudo-labels from epoch 2"),
        (("SOLVER.MAX_EPOCH", 2, "CC.WARMUP.EPOCHS", 2), "epochs 0 to 1: every image is a class"),
        (("CC.SOURCES.NAMES", "('SyntheticSource',)", "CC.SOURCES.PRETRAIN_EPOCHS", 1,
          "SOLVER.MAX_EPOCH", 3), "epoch 0: source labels; pseudo-labels from epoch 1 on"),
    ],
)  # fmt: skip
def test_a_run_says_which_epochs_have_no_pseudo_labels(
    plugin: None, tmp_path: Path, words: tuple[object, ...], told: str
) -> None:
    from fastreid_cc.plugin.trainer.stages import Stages

    found = Stages(config(tmp_path, *words)).summary()
    assert found.startswith(told) and bool(found) == bool(told)
    assert ("from epoch" in found) == ("from epoch" in told)
