"""Generated views in trainings: seen there and nowhere else, with the rows of their images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mined_runs import LABELLED
from PIL import Image
from tiny_runs import build, config

from fastreid_cc.config import faults
from fastreid_cc.data.poses import fuse

pytestmark = pytest.mark.usefixtures("plugin")
SHORT = ("SOLVER.MAX_EPOCH", 1, "CC.ITERS_PER_EPOCH", 2, "INPUT.COLOR_ROBUST.ENABLED", False)
PLAIN = (*SHORT, "INPUT.FLIP.ENABLED", False, "INPUT.PADDING.ENABLED", False)
WITH_LABELS = (
    *(LABELLED[: LABELLED.index("CC.LOSS_STAGES")]),
    *("MODEL.LOSSES.NAME", ["CrossEntropyLoss"]),
    *("DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampler", "DATALOADER.NUM_INSTANCE", 2),
)


def views_of(paths: list[str], folder: Path, levels: tuple[int, ...] = (90, 90)) -> Path:
    """Views 1, 2, … of each image, of one grey each."""
    folder.mkdir()
    for path in paths:
        for view, level in enumerate(levels, 1):
            grey = Image.new("RGB", (16, 32), (level,) * 3)
            grey.save(folder / f"{Path(path).stem}_to_{view}.png")
    return folder


def trained_on(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Trains; the batches of all steps, and whether a pixel of each image is grey."""
    seen: list[dict[str, Any]] = []
    stock = trainer.model.forward

    def forward(inputs: Any) -> Any:
        grey = (inputs["images"] == 90).flatten(1).float().mean(1) > 0.5
        rest = {key: value for key, value in inputs.items() if key != "images"}
        seen.append({"training": trainer.model.training, "grey": grey, **rest})
        return stock(inputs)

    monkeypatch.setattr(trainer.model, "forward", forward)
    trainer.train()
    return seen


@pytest.mark.parametrize("options", [(), WITH_LABELS], ids=["pseudo-labels", "labels"])
def test_views_are_trained_on_with_the_rows_of_their_images(
    options: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.target_images import collect_images

    cfg = config(tmp_path, *options, *PLAIN)
    configure_from(cfg)
    paths = collect_images(cfg).paths
    folder = views_of(paths, tmp_path / "views")
    given = ("CC.POSES.FOLDER", folder, "CC.POSES.SHOW", 1.0)
    shown = trained_on(build(config(tmp_path, *options, *PLAIN, *given)), monkeypatch)
    steps = [batch for batch in shown if batch["training"]]
    assert len(steps) == 2 and all(batch["grey"].all() for batch in steps)
    assert not any(batch["grey"].any() for batch in shown if not batch["training"])
    for batch in steps:
        rows = batch["indices"].tolist()
        assert [paths[row] for row in rows] == batch["img_paths"]


def test_fused_features_are_those_of_fuse_and_make_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import ImageList, collect_images
    from fastreid_cc.plugin.loading.view_features import joined_with_views

    cfg = config(tmp_path, *PLAIN)
    configure_from(cfg)
    images = collect_images(cfg)
    folder = views_of(images.paths, tmp_path / "views", (40, 90, 200))
    missing = folder / f"{Path(images.paths[3]).stem}_to_2.png"
    missing.unlink()
    cfg = config(tmp_path, *PLAIN, "CC.POSES.FOLDER", folder, "CC.POSES.FUSE", "mean")
    with caplog.at_level(logging.WARNING, "fastreid.cc.styles"):
        trainer = build(cfg)
    assert f"lacks 1 of {len(images.paths)} x 3 views, all of 0 images" in caplog.text
    assert trainer.data_loader.style is None
    plain = extract_features(cfg, trainer.model, images)
    views = np.full((len(images.paths), 3, plain.shape[1]), np.nan, np.float32)
    there = np.ones((len(images.paths), 3), bool)
    there[3, 1] = False
    for view in (1, 2, 3):
        rows = np.flatnonzero(there[:, view - 1])
        files = [str(folder / f"{Path(images.paths[r]).stem}_to_{view}.png") for r in rows]
        listed = ImageList(files, images.cameras[rows])
        views[rows, view - 1] = extract_features(cfg, trainer.model, listed)
    for how in ("max", "mean"):
        trainer.data_loader.views.fuse = how
        wanted = fuse(views, how, real=plain.numpy(), there=there)
        found = joined_with_views(cfg, trainer.model, trainer.data_loader, plain)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    clustered: list[torch.Tensor] = []
    hook = next(h for h in trainer._hooks if hasattr(h, "labeler"))
    stock = hook.labeler
    hook.labeler = type("L", (), {"__getattr__": lambda s, n: getattr(stock, n)})()
    type(hook.labeler).__call__ = lambda s, f, *a, **k: clustered.append(f) or stock(f, *a, **k)
    trainer.train()
    np.testing.assert_allclose(clustered[0].numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.POSES.SHOW", 0.5), "SHOW=0.5.*CC.POSES.FOLDER"),
        (("CC.POSES.SHOW", 2.0, "CC.POSES.FOLDER", "x"), "CC.POSES.SHOW=2.0"),
        (
            ("CC.POSES.SHOW", 0.5, "CC.POSES.FOLDER", "x", "CC.CAMSTYLE.MODE", "statistics"),
            "SHOW=0.5 and CC.CAMSTYLE.MODE=statistics",
        ),
        (
            ("CC.POSES.FUSE", "max", "CC.POSES.FOLDER", "x", "CC.MEMORY.NAME", "instance"),
            "FUSE=max joins what is clustered.*instance",
        ),
        (
            ("CC.ENABLED", False, "CC.POSES.FUSE", "max", "CC.POSES.FOLDER", "x"),
            "FUSE=max clusters nothing where labels are true",
        ),
        (("CC.ENABLED", False, "CC.POSES.SHOW", -1.0), "CC.POSES.SHOW=-1.0"),
    ],
)
def test_what_does_not_fit_is_one_fault(pairs: Any, words: str, tmp_path: Path) -> None:
    import re

    found = faults(config(tmp_path, *pairs))
    assert len(found) == 1 and re.search(words, found[0]), found
