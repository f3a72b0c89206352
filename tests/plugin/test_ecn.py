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
from tiny_runs import build, config, metrics, train

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.structures import Batch

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


def test_epochs_of_ecn_count_from_the_first_with_pseudo_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """START_EPOCH 1 after an epoch of source labels: neighbours in the second labelled epoch."""
    growth = ("CC.MEMORY.INSTANCE.MOMENTUM_GROWTH", 0.5)
    trainer, _, _ = watched(tmp_path, monkeypatch, *ECN, *growth, "CC.SOURCES.PRETRAIN_EPOCHS", 1)
    assert trainer._hooks[0].memory.current_momentum == 0.5
    logged = [line for line in metrics(tmp_path) if "cc/positives_per_image" in line]
    assert [line["iteration"] for line in logged] == [5]
    assert 0 < logged[0]["cc/positives_per_image"] <= 6
    assert all(0 <= logged[0][f"cc/positives_{name}"] <= 1 for name in ("recall", "precision"))


def test_uniform_sampling_draws_source_images_not_identities(tmp_path: Path) -> None:
    """More than one image of the 8 identities in a step of 12: by identity that cannot be."""
    from fastreid_cc.plugin.loading.epoch_loader import epoch_loader

    options = ("CC.SOURCES.SAMPLER", "uniform", "CC.SOURCES.NUM_INSTANCE", 1)
    cfg = config(tmp_path, *ECN, *options, "CC.SOURCES.IMS_PER_BATCH", 12, "CC.ITERS_PER_EPOCH", 8)
    images = build(cfg).data_loader
    loader = epoch_loader(cfg, images, np.arange(48), lambda image: torch.zeros(3), 0, "source")
    drawn = np.concatenate([batch["indices"].numpy() for batch in loader])
    assert np.bincount(drawn, minlength=48).tolist() == [2] * 48


def test_gpp_learns_its_graph_while_source_labels_are_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer.positives_hook import PositivesHook

    graphs: list[Any] = []
    monkeypatch.setattr(PositivesHook, "before_epoch", lambda hook: graphs.append(graph(hook)))
    trainer, batches, losses = watched(tmp_path, monkeypatch, *GPP, "CC.SOURCES.PRETRAIN_EPOCHS", 1)
    source = {"loss_cls_source", "loss_graph_positives_source"}
    assert [set(found) for found in losses[:2]] == [source] * 2
    assert set(losses[-1]) == source | {"loss_graph_positives"}
    start, after_sources, _ = graphs
    assert all(not torch.equal(a, b) for a, b in zip(start, after_sources, strict=True))
    hook = trainer._hooks[0]
    rows = {int(i) for b in batches for i in b["indices"][b["domains"] > 0]}
    assert {int(i) for i in hook.memory.source_rows.any(1).nonzero()} == rows
    assert np.array_equal(hook.memory.source_classes, hook.images.sources.classes)
    logged = {name for line in metrics(tmp_path) for name in line if "positives" in name}
    assert {"cc/source_positives_recall", "cc/positives_per_image"} <= logged


def graph(hook: Any) -> list[torch.Tensor]:
    loss = hook.trainer.model.registered_losses["GraphPositives"]
    return [parameter.detach().clone() for parameter in loss.parameters()]


def test_the_graph_learns_at_a_rate_and_by_a_factor_of_its_own(tmp_path: Path) -> None:
    """Also where label-free training begins and rates start anew."""
    options = ("CC.SOURCES.PRETRAIN_EPOCHS", 1, "MODEL.LOSSES.GraphPositives.LR_FACTOR", 4.0)
    options += ("MODEL.LOSSES.GraphPositives.GRAPH_SCALE", 2.0, "SOLVER.MAX_EPOCH", 2)
    options += (
        "CC.MEMORY.INSTANCE.INIT",
        "features",
        "SOLVER.SCHED",
        "MultiStepLR",
        "SOLVER.STEPS",
        "[40]",
    )
    trainer = train(config(tmp_path, *GPP, *options))
    model, base = trainer.model, trainer.cfg.SOLVER.BASE_LR
    loss = model.registered_losses["GraphPositives"]
    size = sum(parameter.numel() for parameter in loss.parameters())
    rates = {g["params"][0].numel(): g["initial_lr"] for g in trainer.optimizer.param_groups}
    assert rates.pop(size) == pytest.approx(4 * base)
    assert set(rates.values()) == {base}
    assert all(g["lr"] == g["initial_lr"] for g in trainer.optimizer.param_groups)
    rows = model.step.memory.source_rows
    assert rows.any(
        1
    ).all()  # of all source images, as those of the target, not of the batches' alone
    index = torch.arange(4)
    classes = model.step.memory.source_classes[index]
    batch = Batch.of(rows[index], classes, indices=index, domains=torch.ones_like(index))
    found = model.registered({}, batch, model.step)["loss_graph_positives_source"]
    torch.testing.assert_close(found, 2 * loss(batch, model.step.memory))


def test_rows_of_sources_are_where_the_network_is_if_cuda_is_asked_for_and_missing(
    tmp_path: Path,
) -> None:
    """fastreid's default device; it failed at the first epoch of source labels."""
    options = ("MODEL.DEVICE", "cuda", "CC.SOURCES.PRETRAIN_EPOCHS", 1, "SOLVER.MAX_EPOCH", 1)
    trainer = train(config(tmp_path, *GPP, *options, "CC.ITERS_PER_EPOCH", 1))
    assert trainer.model.step.memory.source_rows.device == trainer.model.device


@pytest.mark.parametrize(("sources", "iteration"), [(0, 3), (2, 3)], ids=["labels", "sources"])
def test_gpp_resumes_to_the_same_bytes(
    sources: int, iteration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-epoch of the labelled epochs, and in the second epoch of source labels."""
    same_end(tmp_path, monkeypatch, iteration, *GPP, "CC.SOURCES.PRETRAIN_EPOCHS", sources)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.MEMORY.INSTANCE.SOURCE_ROWS", False), "SOURCE_ROWS True"),
        (("CC.SOURCES.IN_MEMORY", True), "IN_MEMORY False"),
        (("MODEL.LOSSES.GraphPositives.FEATURE_SIZE", 64), "FEATURE_SIZE=64.*128"),
        (("CC.SOURCES.SAMPLER", "uniform"), "SAMPLER=uniform.*NUM_INSTANCE=2"),
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
