"""ECN, ECN+GPP and camera styles inside stock training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from source_runs import JOINT, watched
from test_resume import same_end
from tiny_runs import build, config

from fastreid_cc.labeling import PseudoLabeler

pytestmark = pytest.mark.usefixtures("plugin")
ECN: tuple[object, ...] = (
    *JOINT,
    "CC.SOURCES.NAMES",
    '("SyntheticSource",)',
    "CC.SOURCES.IN_MEMORY",
    False,
    "CC.SOURCES.LOSSES",
    '("CrossEntropyLoss",)',
    "CC.SOURCES.SCALE",
    0.7,
    "CC.MEMORY.NAME",
    "instance",
    "CC.REFINE.NAMES",
    "()",
    "MODEL.LOSSES.NAME",
    '("ECN",)',
    "MODEL.LOSSES.ECN.SCALE",
    0.3,
    "MODEL.LOSSES.ECN.START_EPOCH",
    1,
    "CC.CAMSTYLE.MODE",
    "statistics",
)
GPP: tuple[object, ...] = (
    *ECN,
    "MODEL.LOSSES.NAME",
    '("GraphPositives",)',
    "MODEL.LOSSES.GraphPositives.FEATURE_SIZE",
    128,
    "MODEL.LOSSES.GraphPositives.CANDIDATES",
    10,
    "MODEL.LOSSES.GraphPositives.HIDDEN",
    16,
    "MODEL.LOSSES.GraphPositives.START_EPOCH",
    1,
    "CC.MEMORY.INSTANCE.SOURCE_ROWS",
    True,
)


def test_ecn_needs_no_clusters_and_no_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    extracted: list[Any] = []
    original = hooks.extract_features
    monkeypatch.setattr(hooks, "extract_features", lambda *a: extracted.append(a) or original(*a))
    monkeypatch.setattr(PseudoLabeler, "__call__", None)
    trainer, batches, losses = watched(tmp_path, monkeypatch, *ECN)
    assert len(extracted) == 1  # the size of the features, once
    assert all(set(found) == {"loss_cls_source", "loss_ecn"} for found in losses)
    assert losses[0]["loss_ecn"] == pytest.approx(0.3 * np.log(48), rel=1e-5)
    memory, seen = trainer._hooks[0].memory, {int(i) for b in batches for i in b["indices"][:8]}
    assert {int(i) for i in memory.rows.any(1).nonzero()} == seen
    assert memory.current_momentum == pytest.approx(0.02)


def test_gpp_keeps_source_rows_and_trains_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batches, losses = watched(tmp_path, monkeypatch, *GPP)
    assert set(losses[-1]) == {
        "loss_cls_source",
        "loss_graph_positives",
        "loss_graph_positives_source",
    }
    hook = trainer._hooks[0]
    rows = {int(i) for b in batches for i in b["indices"][8:]}
    assert {int(i) for i in hook.memory.source_rows.any(1).nonzero()} == rows
    assert np.array_equal(hook.memory.source_classes, hook.images.sources.classes)
    state = trainer.model.state_dict()
    start = build(config(tmp_path / "start", *GPP)).model.state_dict()
    moved = [k for k in state if "GraphPositives" in k and not torch.equal(state[k], start[k])]
    assert len(moved) == 6


def test_gpp_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_end(tmp_path, monkeypatch, 3, *GPP)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.MEMORY.INSTANCE.SOURCE_ROWS", False), "SOURCE_ROWS True"),
        (("CC.SOURCES.IN_MEMORY", True), "IN_MEMORY False"),
        (("MODEL.LOSSES.GraphPositives.FEATURE_SIZE", 64), "FEATURE_SIZE=64.*128"),
        (("CC.CAMSTYLE.MODE", "cyclegan"), "CC.CAMSTYLE.MODE='cyclegan'.*statistics"),
    ],
)
def test_what_does_not_fit_is_a_fault(pairs: Any, words: str, tmp_path: Path) -> None:
    from fastreid_cc.config import faults

    found = faults(config(tmp_path, *GPP, *pairs))
    assert len(found) == 1
    assert re.search(words, found[0]), found[0]


def test_styled_images_are_the_target_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a folder whose transfers are one grey, some target pixels become grey, no source's."""
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    images = build(config(tmp_path / "list", *ECN)).data_loader
    folder = tmp_path / "camstyle"
    folder.mkdir()
    for path in [*images.paths, *images.sources.paths]:
        grey = Image.new("RGB", (16, 32), (90, 90, 90))
        grey.save(folder / f"{Path(path).stem}_fake_1to2.png")
    pixels: list[Any] = []
    stock = ClusterContrast.preprocess_image

    def preprocess(self: Any, inputs: Any) -> Any:
        if self.training:
            pixels.append((inputs["images"].clone(), inputs["domains"]))
        return stock(self, inputs)

    monkeypatch.setattr(ClusterContrast, "preprocess_image", preprocess)
    plain = (
        "INPUT.COLOR_ROBUST.ENABLED",
        False,
        "CC.CAMSTYLE.MODE",
        "folder",
        "CC.CAMSTYLE.FOLDER",
        folder,
    )
    build(config(tmp_path / "run", *ECN, *plain)).train()
    grey = torch.cat([(x == 90).flatten(1).float().mean(1) > 0.5 for x, _ in pixels])
    domains = torch.cat([d for _, d in pixels])
    assert 0.2 < grey[domains == 0].float().mean() < 0.8
    assert not grey[domains > 0].any()
