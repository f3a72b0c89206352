"""What the final network of a run says of its images, for `fastreid_cc.report`.

Built from what lies in OUTPUT_DIR: config.yaml and the last whole checkpoint. One process, no
training state, nothing written.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.config import get_cfg
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.engine.defaults import DefaultTrainer
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from ..errors import ClearError
from ..report.runs import Clustered, Evidence, TestSet
from .compat.checkpoint import is_whole
from .datasets import configure_from
from .engine import collect_images
from .extract import extract_features
from .loaders import UnlabeledLoader

logger = logging.getLogger("fastreid.cc.report")


def load_config(folder: Path, device: str = "") -> Any:
    """The frozen config of a run, for one process on `device` ("" = the run's, or the CPU).

    Raises:
        ClearError: if config.yaml is missing, or holds keys that this version does not know.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ClearError(f"{path} is missing; without it the network cannot be built.")
    cfg = get_cfg()
    try:
        cfg.merge_from_file(str(path))
    except Exception as error:  # yaml and yacs raise many kinds
        raise ClearError(f"{path} does not fit this version: {error}") from error
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.WEIGHTS = ""
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, 4)
    wanted = device or cfg.MODEL.DEVICE
    cfg.MODEL.DEVICE = wanted if torch.cuda.is_available() or wanted == "cpu" else "cpu"
    cfg.freeze()
    return cfg


def last_checkpoint(folder: Path) -> Path:
    """model_final.pth if it is whole, else the newest whole one.

    Raises:
        ClearError: if there is none.
    """
    final = folder / "model_final.pth"
    others = sorted(folder.glob("*.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in [final, *others]:
        if path.is_file() and is_whole(str(path)):
            return path
    raise ClearError(f"{folder} holds no whole checkpoint (*.pth).")


def load_network(cfg: Any, checkpoint: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network a run measured, and what else its checkpoint holds.

    That is the mean teacher where CC.TEACHER.EVALUATE says so and its own checkpoint is there.
    """
    model = DefaultTrainer.build_model(cfg)
    rest = Checkpointer(model).load(str(checkpoint))
    teacher = checkpoint.parent / "teacher" / "model_final.pth"
    if cfg.CC.TEACHER.ENABLED and cfg.CC.TEACHER.EVALUATE and is_whole(str(teacher)):
        Checkpointer(model).load(str(teacher))
    return model.eval(), rest


def collect(folder: Path, *, device: str = "") -> Evidence:
    """Features of training images (with their last labels) and of the test sets.

    What cannot be had becomes a note: data that moved, a checkpoint that is missing or torn.

    Cost: one extraction of the training images, if there are labels, and one of every test set.
    """
    notes: list[str] = []
    try:
        cfg = load_config(folder, device)
        checkpoint = last_checkpoint(folder)
        model, rest = load_network(cfg, checkpoint)
    except (ClearError, OSError, KeyError, ValueError, RuntimeError) as error:
        return Evidence(notes=[f"No images: {_text(error)}"])
    configure_from(cfg)
    if checkpoint.name != "model_final.pth":
        notes.append(f"The run has not ended: images and features are those of {checkpoint.name}.")
    clustered = _try(lambda: _clustered(cfg, model, rest.get("cc", {})), "training images", notes)
    tests = []
    for name in cfg.DATASETS.TESTS:
        found = _try(lambda name=name: _test_set(cfg, model, name), f"test images of {name}", notes)
        tests += [found] if found is not None else []
    return Evidence(clustered, tests, notes)


def _try(make: Any, what: str, notes: list[str]) -> Any:
    try:
        return make()
    except Exception as error:  # noqa: BLE001  data sets raise anything; the page says it
        notes.append(f"No {what}: {_text(error)}")
        logger.warning(notes[-1])
        return None


def _text(error: Exception) -> str:
    lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).splitlines()
    return lines[0] if lines else type(error).__name__


def _clustered(cfg: Any, model: nn.Module, state: dict[str, Any]) -> Clustered | None:
    labels = state.get("labels")
    if labels is None:
        return None
    items, truth = collect_images(cfg)
    if len(items) != len(labels):
        raise ValueError(
            f"the checkpoint labels {len(labels):,} images, DATASETS.NAMES now has {len(items):,}."
        )
    images = UnlabeledLoader(items, truth, 0)
    features = extract_features(cfg, model, images)
    return Clustered(images.paths, images.cameras, labels.numpy(), features.numpy(), truth)


def _test_set(cfg: Any, model: nn.Module, name: str) -> TestSet | None:
    """Query and gallery as stock evaluation sees them: running statistics, TEST.FLIP."""
    data = DATASET_REGISTRY.get(name)(root=data_build._root)
    items = [*data.query, *data.gallery]
    if not data.query or not data.gallery:
        return None
    cfg = cfg.clone()
    cfg.defrost()
    cfg.CC.EXTRACT.BN, cfg.CC.EXTRACT.FLIP = "running", cfg.TEST.FLIP.ENABLED
    cfg.CC.EXTRACT.IMS_PER_BATCH = cfg.TEST.IMS_PER_BATCH
    images = UnlabeledLoader([(item[0], 0) for item in items], None, 0)
    features = extract_features(cfg, model, images)
    return TestSet(
        name, images.paths, np.array([int(item[1]) for item in items]),
        np.array([int(item[2]) for item in items]), features.numpy(), len(data.query),
    )  # fmt: skip
