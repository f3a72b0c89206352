"""Trainings with MpRL: which images it sees, that it acts on them, and that SCALE 0 does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import config, digest, train, weights

from fastreid_cc.config import faults
from fastreid_cc.losses.mprl import MpRL

pytestmark = pytest.mark.usefixtures("plugin")
#: Half of the images are un-clustered; 4 of a batch's 12 are such.
OUTLIERS: tuple[object, ...] = (
    "CC.SAMPLER.OUTLIERS_PER_BATCH",
    4,
    "SOLVER.IMS_PER_BATCH",
    12,
    "CC.CLUSTER.DBSCAN.EPS",
    0.45,
    "CC.COLLAPSE.EPS_BOUND",
    0.0,
)
MPRL = ("MODEL.LOSSES.NAME", "('MemoryContrast', 'MpRL')", *OUTLIERS)


def test_un_clustered_images_of_a_batch_and_no_others_learn_graded_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, seen = MpRL.compute, []

    def spy(self: Any, batch: Any, memory: Any) -> Any:
        loss = stock(self, batch, memory)
        (pull,) = torch.autograd.grad(loss, batch.features, retain_graph=True)
        seen.append((batch.targets < 0, pull.any(1)))
        return loss

    monkeypatch.setattr(MpRL, "compute", spy)
    trainer = train(config(tmp_path, *MPRL))
    assert len(seen) == 4 and all(torch.equal(free, pulled) for free, pulled in seen)
    assert [int(free.sum()) for free, _ in seen] == [4] * 4
    assert trainer.storage.history("loss_mprl").latest() > 0.5


def test_a_scale_of_0_gives_the_bytes_of_a_batch_without_the_loss(tmp_path: Path) -> None:
    runs = {
        "off": (*MPRL, "MODEL.LOSSES.MpRL.SCALE", 0.0),
        "without": OUTLIERS,
        "on": (*MPRL, "MODEL.LOSSES.MpRL.SCALE", 0.5),
    }
    found = {}
    for name, options in runs.items():
        train(config(tmp_path / name, *options, "SOLVER.MAX_EPOCH", 1))
        found[name] = digest(weights(tmp_path / name))
    assert found["off"] == found["without"] != found["on"]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (
            ("CC.SAMPLER.OUTLIERS_PER_BATCH", 0),
            ("MODEL.LOSSES.MpRL", "OUTLIERS_PER_BATCH=0", "to 4"),
        ),
        (("CC.LABELS.OUTLIERS", "singleton"), ("MpRL has nothing", "CC.LABELS.OUTLIERS=singleton")),
        (("CC.MEMORY.NAME", "hybrid"), ("MpRL has nothing", "CC.MEMORY.NAME=hybrid")),
        (("MODEL.LOSSES.MpRL.SCHEME", "static"), ("MODEL.LOSSES.MpRL.SCHEME='static'", "argsort")),
    ],
)
def test_a_config_in_which_it_would_see_no_image_is_a_fault(
    pairs: tuple[object, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    (found,) = faults(config(tmp_path, *MPRL, *pairs))
    assert all(word in found for word in words), found
