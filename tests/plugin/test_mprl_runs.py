"""Trainings with MpRL: which images it sees, that it acts on them, and that SCALE 0 does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from source_runs import watched
from tiny_runs import ROOT, config, digest, pairs, plugin_at, train, weights

from fastreid_cc.config import faults
from fastreid_cc.generators.base import Photos
from fastreid_cc.generators.blend import Blend
from fastreid_cc.losses.mprl import MpRL, graded_labels

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


#: The paper's form: a labelled source, and images without labels beside it.
CLASSES: tuple[object, ...] = (
    "MODEL.LOSSES.NAME",
    "('MpRL',)",
    "MODEL.LOSSES.MpRL.OVER",
    "classes",
    "CC.SOURCES.NAMES",
    "('SyntheticSource',)",
    "CC.SOURCES.MODE",
    "joint",
    "CC.SOURCES.IMS_PER_BATCH",
    8,
    "CC.SOURCES.NUM_INSTANCE",
    2,
    "CC.SOURCES.LOSSES",
    "('CrossEntropyLoss',)",
    "CC.SOURCES.IN_MEMORY",
    False,
    "CC.MEMORY.NAME",
    "instance",
    "DATALOADER.NUM_INSTANCE",
    1,
    "SOLVER.MAX_EPOCH",
    1,
)


def test_images_without_labels_are_graded_over_the_sources_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, seen = MpRL.compute, []

    def spy(self: Any, batch: Any, memory: Any) -> Any:
        loss = stock(self, batch, memory)
        seen.append((batch.class_logits, torch.autograd.grad(loss, batch.class_logits)[0]))
        return stock(self, batch, memory)

    monkeypatch.setattr(MpRL, "compute", spy)
    trainer, batches, losses = watched(tmp_path, monkeypatch, *CLASSES)
    classes = trainer.cfg.MODEL.HEADS.NUM_CLASSES
    assert (
        classes == 8 and [set(found) for found in losses] == [{"loss_mprl", "loss_cls_source"}] * 2
    )
    for logits, gradient in seen:
        assert logits.shape == (8, classes)  # the target's part of the batch
        wanted = (logits.softmax(1) - graded_labels(logits)) / 8
        torch.testing.assert_close(gradient, wanted)
    assert trainer.model.step.last_batch is None and len(batches[0]["domains"]) == 16


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.SOURCES.BN", "domain"), ("CC.SOURCES.BN=domain", "Set it shared")),
        (("CC.SOURCES.LOSSES", "('TripletLoss',)"), ("CrossEntropyLoss in CC.SOURCES.LOSSES",)),
    ],
)
def test_labelled_classes_need_a_classifier_and_one_batch_norm(
    pairs: tuple[object, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    found = [fault for fault in faults(config(tmp_path, *CLASSES, *pairs)) if "MpRL" in fault]
    assert len(found) == 1 and all(word in found[0] for word in words), found


def test_labelled_folders_are_classes_too(tmp_path: Path) -> None:
    node = "CC.SOURCES.FOLDERS.SHOP"
    shop = ("CC.SOURCES.NAMES", "()", f"{node}.ROOT", "/data", f"{node}.IDENTITY", "folder:0")
    found = faults(config(tmp_path, *CLASSES, *shop))
    assert not [fault for fault in found if "MpRL" in fault], found


@pytest.fixture(scope="module")
def experiment(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Row -> (losses and batches of a step, weights) of configs/demo/mprl with blends."""
    found, output = {}, tmp_path_factory.mktemp("experiment")
    with plugin_at(data_root):
        from fastreid.config import get_cfg

        from fastreid_cc.plugin.loading.datasets import configure_from
        from fastreid_cc.plugin.loading.target_images import collect_images

        configure_from(config(output))
        blend = Blend(height=32, width=16)
        blend.prepare(Photos(collect_images(config(output)).paths), seed=1)
        (output / "images").mkdir()
        for made in blend.draw(range(10)):
            Image.fromarray(made.pixels).save(output / "images" / made.name)
        for row in ("ce", "weight-0", "rank"):
            cfg = get_cfg()
            cfg.merge_from_file(str(ROOT / f"configs/demo/mprl/{row}.yml"))
            own = ("CC.SOURCES.PRETRAIN_EPOCHS", min(1, cfg.CC.SOURCES.PRETRAIN_EPOCHS))
            own += ("CC.FOLDER.ROOT", output / "images")
            cfg.merge_from_list(pairs(output / row, *TINY, *own))
            with pytest.MonkeyPatch.context() as patch:
                seen = spied(patch)
                train(cfg)
            found[row] = seen, weights(output / row)
    return found


#: Of the experiment's rows: one epoch of two steps, 8 images of the source and 8 generated ones.
TINY: tuple[object, ...] = (
    "CC.SOURCES.IMS_PER_BATCH",
    8,
    "CC.SOURCES.NUM_INSTANCE",
    2,
    "DATALOADER.NUM_INSTANCE",
    1,
    "SOLVER.AMP.ENABLED",
    False,
    "DATASETS.TESTS",
    "()",
    "SOLVER.MAX_EPOCH",
    1,
    "CC.COMPARE_IMAGES",
    0,
)


def spied(patch: pytest.MonkeyPatch) -> list[tuple[dict[str, float], list[int]]]:
    """(losses, the domain of each image) of every step to come."""
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    stock, seen = ClusterContrast.train_step, []

    def train_step(self: Any, inputs: Any, step: Any) -> Any:
        found, batch = stock(self, inputs, step)
        seen.append(({k: float(v.detach()) for k, v in found.items()}, inputs["domains"].tolist()))
        return found, batch

    patch.setattr(ClusterContrast, "train_step", train_step)
    return seen


def test_the_rows_of_the_experiment_see_what_they_say(experiment: dict[str, Any]) -> None:
    assert [domains for _, domains in experiment["ce"][0]] == [[1] * 8] * 2
    for row in ("weight-0", "rank"):
        steps = experiment[row][0]
        assert [sorted(domains) for _, domains in steps] == [[0] * 8 + [1] * 8] * 2
    assert [set(losses) for losses, _ in experiment["ce"][0]] == [{"loss_cls_source"}] * 2
    assert all(losses["loss_mprl"] > 0 for losses, _ in experiment["rank"][0])
    assert not any(losses.get("loss_mprl", 0) for losses, _ in experiment["weight-0"][0])


def test_generated_images_move_batch_norm_and_at_a_weight_the_classifier(
    experiment: dict[str, Any],
) -> None:
    found = {row: digest(state) for row, (_, state) in experiment.items()}
    assert len(set(found.values())) == 3
    first = {row: steps[0][0]["loss_cls_source"] for row, (steps, _) in experiment.items()}
    assert first["weight-0"] == first["rank"] != first["ce"]  # by the statistics of the batch
