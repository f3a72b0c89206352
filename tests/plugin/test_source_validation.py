"""Source identities that are not trained on choose a checkpoint; no label of the target does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import JOINT, watched
from test_no_label_leak import replace_identities
from test_resume import train_until
from tiny_runs import build, config, digest, metrics, plugin_at, train, weights

pytestmark = pytest.mark.usefixtures("plugin")
RUN: tuple[object, ...] = (
    *JOINT,
    "CC.SOURCES.NAMES",
    '("SyntheticSource",)',
    "CC.SOURCES.BN",
    "domain",
    "CC.SOURCES.VALIDATION",
    0.25,
    "CC.SOURCES.LOSSES",
    '("CrossEntropyLoss",)',
    "CC.SOURCES.PRETRAIN_EPOCHS",
    1,
    "SOLVER.MAX_EPOCH",
    4,
    "CC.ITERS_PER_EPOCH",
    1,
    "TEST.EVAL_PERIOD",
    1,
    "DATASETS.TESTS",
    "()",
)
BEST = "best_source/model_best.pth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """(output, trainer, batches) of a run, one epoch on the source and three of labels."""
    output = tmp_path_factory.mktemp("whole")
    with plugin_at(data_root), pytest.MonkeyPatch.context() as patch:
        trainer, batches, _ = watched(output, patch, *RUN)
    return output, trainer, batches


def curve(output: Path) -> list[float]:
    """mAP of the held-out identities after each epoch."""
    name = "source_validation/mAP"
    return list({m["iteration"]: m[name] for m in metrics(output) if name in m}.values())


def test_the_kept_network_is_the_best_on_identities_that_were_not_trained_on(whole: Any) -> None:
    output, trainer, batches = whole
    images = trainer._hooks[0].images.sources
    held_out = set(images.held_out.paths)
    assert images.num_classes == 6 and images.held_out.num_classes == 2 and len(held_out) == 12
    assert not held_out & {path for batch in batches for path in batch["img_paths"]}
    found = curve(output)
    assert len(found) == 4 and all(0 < value <= 100 for value in found)
    best = 1 + found[1:].index(max(found[1:]))  # the source epoch does not count
    kept = torch.load(output / BEST)
    assert kept["epoch"] == best and kept["source_mAP"] == pytest.approx(found[best])
    name = "model_final.pth" if best == 3 else f"model_{best:04d}.pth"
    assert digest(kept["model"]) == digest(weights(output, name))
    assert build(config(output, *RUN), resume=True).start_epoch == 4  # it was not resumed from


def test_other_identities_of_the_target_choose_the_same(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(ids: list[str]) -> list[str]:  # of the target, of which the sources are subclasses
        return ids if ids[0].startswith("synthetic_source") else ids[5:] + ids[:5]

    seen = replace_identities(monkeypatch, change)
    train(config(tmp_path, *RUN))
    assert any([i for _, i, _ in items] != ids for items, ids in seen)
    assert curve(tmp_path) == curve(whole[0])
    assert (tmp_path / BEST).read_bytes() == (whole[0] / BEST).read_bytes()


def test_a_resumed_run_remembers_the_best(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(config(tmp_path, *RUN), 2, monkeypatch)
    (tmp_path / BEST).write_bytes(b"")  # what comes after the checkpoint is written again
    resumed = build(config(tmp_path, *RUN), resume=True)
    resumed.train()
    last, other = (torch.load(o / "model_final.pth") for o in (tmp_path, whole[0]))
    assert last["cc_source_validation"] == other["cc_source_validation"]
    assert digest(last["model"]) == digest(other["model"])
    again = last["cc_source_validation"]["best_epoch"] > 1
    assert (tmp_path / BEST).read_bytes() == ((whole[0] / BEST).read_bytes() if again else b"")


def test_identities_that_are_never_measured_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CC\.SOURCES\.VALIDATION=0\.25.*TEST\.EVAL_PERIOD=0"):
        build(config(tmp_path, *RUN, "TEST.EVAL_PERIOD", 0))
