"""What is wrong with sources is said before training, with the key."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from source_runs import JOINT
from tiny_runs import build, config, train

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("CC.SOURCES.NAMES", '("SyntheticReID",)'), "in CC.SOURCES.NAMES and in DATASETS.NAMES"),
        (("CC.SOURCES.NAMES", '("SyntheticSource","SyntheticSource")'), "names a data set twice"),
        (
            ("DATASETS.NAMES", '("SyntheticReID","UnlabeledFolder")'),
            "CC.SOURCES.BN=rectified: the sets would be one target with one",
        ),
        (("CC.SOURCES.IMS_PER_BATCH", 0), "CC.SOURCES.IMS_PER_BATCH=0 must be at least 1"),
        (("CC.SOURCES.IMS_PER_BATCH", 15), "so that every step holds every domain"),
        (("CC.SOURCES.IMS_PER_BATCH", 2), "leaves one identity per step"),
        (("CC.SOURCES.IMS_PER_BATCH", 64), "8 identities fill 16 of the 64 places"),
        (("CC.SOURCES.MODE", "both"), "CC.SOURCES.MODE='both' must be one of joint, pretrain"),
        (("CC.SOURCES.BN", "own"), "CC.SOURCES.BN='own' must be one of"),
        (("CC.SOURCES.GATE_SCALE", 0.0), "CC.SOURCES.GATE_SCALE=0.0"),
        (("CC.SOURCES.SCALE", -1.0), "CC.SOURCES.SCALE=-1.0"),
        (("CC.SOURCES.LOSSES", '("MemoryContrast",)'), "go to MODEL.LOSSES.NAME"),
        (("CC.SOURCES.PRETRAIN_EPOCHS", 9), "CC.SOURCES.PRETRAIN_EPOCHS=9 must not exceed"),
        (("CC.SOURCES.PRETRAIN_EPOCHS", 1), "needs CC.SOURCES.LOSSES"),
        (
            ("CC.SOURCES.STEPS", "(5,)", "SOLVER.SCHED", "CosineAnnealingLR"),
            "CC.SOURCES.STEPS=(5,) has no",
        ),
        (("CC.SOURCES.IN_MEMORY", False), "would not use the sources' labels"),
        (("CC.SOURCES.MODE", "pretrain"), "PRETRAIN_EPOCHS 0 would not use the sources"),
        (("CC.SOURCES.MODE", "pretrain"), "CC.SOURCES.BN=rectified needs CC.SOURCES.MODE joint"),
        (("CC.WARMUP.EPOCHS", 1), "sources take the place of the warm-up"),
    ],
)
def test_faults_of_the_config_come_before_an_image_is_read(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(config(tmp_path, *JOINT, *options))


def test_several_targets_with_one_batch_norm_are_one_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As before, but for the line of the log."""
    names = ("CC.SOURCES.NAMES", '("SyntheticSource2",)', "CC.SOURCES.BN", "shared")
    targets = ("DATASETS.NAMES", '("SyntheticReID","SyntheticSource")')
    with caplog.at_level(logging.INFO, "fastreid.cc.engine"):
        trainer = build(config(tmp_path, *JOINT, *names, *targets))
    assert len(trainer._trainer.data_loader.paths) == 96
    assert "SyntheticReID, SyntheticSource are trained on as one target" in caplog.text


def change_source(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """The training items of SyntheticSource2 are changed by `change(items)`."""
    from fastreid.data.datasets import DATASET_REGISTRY

    cls = DATASET_REGISTRY.get("SyntheticSource2")
    original = cls.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._train = change(self.train)

    monkeypatch.setattr(cls, "__init__", init)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: [(p, -1, c) for p, _, c in items], "SyntheticSource2 has 48 images and 0"),
        (
            lambda items: [(p, i.replace("source2", "source"), c) for p, i, c in items],
            "SyntheticSource2 and SyntheticSource share 8 identity",
        ),
    ],
)
def test_a_source_without_labels_and_shared_identities_are_refused(
    change: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_source(monkeypatch, change)
    with pytest.raises(ValueError, match=message):
        build(config(tmp_path, *JOINT))


def test_one_camera_each_and_identities_of_mixed_types_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single camera is legal: images of a class then come from that camera."""
    change_source(
        monkeypatch,
        lambda items: [(p, int(i[-1]) if i[-1] in "123" else i, 0) for p, i, _ in items],
    )
    one = ("CC.SYNTHETIC.CAMERAS", 1, "DATASETS.TESTS", "()", "SOLVER.MAX_EPOCH", 1)
    trainer = train(config(tmp_path, *JOINT, *one))
    assert trainer._hooks[0].images.sources.num_classes == 16
    assert len(set(trainer._hooks[0].images.sources.cameras)) == 2


def test_no_source_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Keys of sources without a source change neither network nor checkpoint."""
    options = ("CC.SOURCES.BN", "rectified", "CC.SOURCES.PRETRAIN_EPOCHS", 1)
    train(config(tmp_path / "a", *options))
    train(config(tmp_path / "b"))
    a, b = ((tmp_path / n / "model_final.pth").read_bytes() for n in "ab")
    assert a == b
