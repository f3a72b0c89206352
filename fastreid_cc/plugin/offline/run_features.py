"""Features by a run's final network: of its own images for `fastreid_cc.report`, or of any.

Built from what lies in OUTPUT_DIR: config.yaml and the newest whole checkpoint. One process, no
training state, nothing written.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.engine.defaults import DefaultTrainer
from torch import nn

from ...errors import ClearError, WrongUse, printable
from ...labeling.answers import Answers, names_below, read_answers
from ...labeling.links import Links
from ...report.runs import Clustered, RunFeatures, TestSet
from ..checkpoint_files import is_whole
from ..loading.camera_features import by_camera, extracted_as_tested
from ..loading.camera_shift import LABELLED_BY
from ..loading.datasets import configure_from
from ..loading.extract import extract_features, extraction_config
from ..loading.target_images import ImageList, collect_images
from ..seeding import seed_globals
from ..trainer.builders import build_linker
from ..trainer.checkpoint_state import labels_of, restore_cuts
from .run_folder import find_checkpoint, find_weights, load_weights, read_checkpoint, read_config

logger = logging.getLogger("fastreid.cc.report")


def load_network(cfg: Any, checkpoint: Path) -> nn.Module:
    """The network a run measured, in evaluation mode.

    That is the mean teacher where CC.TEACHER.EVALUATE says so and its own checkpoint is there.

    Raises:
        BadConfig, UnreadableFile: if weights are missing or do not fit.
    """
    model = DefaultTrainer.build_model(cfg)
    teacher = checkpoint.parent / "teacher" / "model_final.pth"
    measures_teacher = cfg.CC.TEACHER.ENABLED and cfg.CC.TEACHER.EVALUATE
    load_weights(model, teacher if measures_teacher and is_whole(str(teacher)) else checkpoint)
    return model.eval()


def collect(folder: Path, *, device: str = "") -> RunFeatures:
    """Features of training images (with their last labels) and of the test sets.

    Args:
        folder: OUTPUT_DIR of a run.
        device: to extract on; "" = the run's, or the CPU where that is not there.

    What cannot be had becomes a note: data that moved, a checkpoint that is missing or torn.

    Cost: one extraction of the training images, if there are labels, and one of every test set.
    """
    notes: list[str] = []
    built = _try(lambda: _build(folder, device), "images", notes)
    if built is None:
        return RunFeatures(notes=notes)
    cfg, checkpoint, model = built
    configure_from(cfg, draw=False)
    if checkpoint.name != "model_final.pth":
        notes.append(f"The run has not ended: images and features are those of {checkpoint.name}.")
    clustered = _try(lambda: _clustered(cfg, model, checkpoint), "training images", notes)
    tests = []
    for name in cfg.DATASETS.TESTS:
        found = _try(lambda name=name: _test_set(cfg, model, name), f"test images of {name}", notes)
        tests += [found] if found is not None else []
    return RunFeatures(clustered, tests, notes)


def embed(
    source: str, paths: Sequence[str], *, pairs: Sequence[str], checkpoint: str, batch: int
) -> tuple[np.ndarray, str]:
    """Features of any images, and the checkpoint they are by.

    Args:
        source: OUTPUT_DIR of a run; a config file or a shipped config with MODEL.WEIGHTS.
        paths: of N images.
        pairs: config keys on top of it.
        checkpoint: file in the run's folder; "" = the newest whole one.
        batch: images at a time.

    Returns:
        f32 [N, D], unit rows, as evaluation compares them (TEST.FLIP counts); a path.
    """
    cfg = read_config(source, [*pairs, "MODEL.BACKBONE.PRETRAIN", "False"])
    model, weights = _network(source, cfg, checkpoint)
    return _as_tested(cfg, model, paths, batch), weights


def tested_sets(
    source: str, *, pairs: Sequence[str], checkpoint: str, untrained: bool = False
) -> tuple[list[TestSet], str]:
    """Features of all test sets of a run or config, and what they are by.

    Args:
        source, pairs, checkpoint: as in `embed`.
        untrained: by the random weights that a training with its CC.SEED starts from.

    Raises:
        WrongUse: if no test set has both query and gallery images.
    """
    random = ["MODEL.WEIGHTS", ""] if untrained else []
    cfg = read_config(source, [*pairs, "MODEL.BACKBONE.PRETRAIN", "False", *random])
    if untrained:
        seed_globals(cfg.CC.SEED)
        model, by = DefaultTrainer.build_model(cfg).eval(), f"random weights, CC.SEED {cfg.CC.SEED}"
    else:
        model, by = _network(source, cfg, checkpoint)
    configure_from(cfg, draw=False)
    found = [_test_set(cfg, model, name) for name in cfg.DATASETS.TESTS]
    sets = [one for one in found if one is not None]
    if not sets:
        names = ", ".join(cfg.DATASETS.TESTS) or "()"
        raise WrongUse(f"DATASETS.TESTS={names} holds no query and gallery images to measure with.")
    return sets, by


def training_features(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Features f32 [N, D] of a run's training images, and its last labels i64 [N] if it has any.

    No identity is read.

    Raises:
        BadConfig, UnreadableFile, WrongUse: if weights or labels are missing or do not fit.
    """
    cfg, checkpoint, model = _build(folder, "")
    configure_from(cfg, draw=False)
    images = collect_images(cfg)._replace(truth=None)
    labels = labels_of(read_checkpoint(checkpoint).get("cc"), images.paths)
    features = extract_features(cfg, model, images).cpu().numpy()
    return features, None if labels is None else labels.labels


class Labelled(NamedTuple):
    """A run's training images as its last labelling left them, and what is known of them.

    Args:
        images: with features; no identity.
        names: of the images, as a table of answers calls them.
        file: CC.LINKS.FILE.
        answers: what it says, None without.
        links: of tracklets and answers, None without any.
    """

    images: Clustered
    names: list[str]
    file: str
    answers: Answers | None
    links: Links | None


def labelled_images(folder: Path, pairs: Sequence[str] = (), *, device: str = "") -> Labelled:
    """A run's training images with features, last labels and links.

    Args:
        folder: OUTPUT_DIR of a run.
        pairs: config keys on top of its own.
        device: to extract on; "" = the run's.

    Raises:
        BadConfig, UnreadableFile, WrongUse: if weights are missing or do not fit.
        ClearError: if there are no labels.
    """
    cfg, checkpoint, model = _build(folder, device, pairs)
    configure_from(cfg, draw=False)
    found = _clustered(cfg, model, checkpoint)
    if found is None:
        raise ClearError(
            f"{printable(checkpoint)} holds no pseudo-labels: the run was not label-free, or was"
            " saved before its first labelling."
        )
    root = Path(data_build._root, Path(cfg.CC.FOLDER.ROOT).expanduser()).absolute()
    names, file = names_below(root, found.paths), cfg.CC.LINKS.FILE
    linker = build_linker(cfg, collect_images(cfg))
    restore_cuts(read_checkpoint(checkpoint)["cc"], linker)
    links = None if linker is None else linker(torch.from_numpy(found.features))
    answers = read_answers(file, names) if file else None
    return Labelled(replace(found, truth=None), names, file, answers, links)


def _network(source: str, cfg: Any, checkpoint: str) -> tuple[nn.Module, str]:
    """The network of a run's folder or of a config's MODEL.WEIGHTS, and the checkpoint's path."""
    if Path(source).is_dir():
        weights = find_checkpoint(source, checkpoint)
        return load_network(cfg, weights), str(weights)
    weights = find_weights(source, cfg)
    model = DefaultTrainer.build_model(cfg).eval()
    load_weights(model, weights)
    return model, str(weights)


def _as_tested(cfg: Any, model: nn.Module, paths: Sequence[str], batch: int) -> np.ndarray:
    """Features f32 [N, D] as stock evaluation takes them, with running statistics."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.BN, cfg.CC.EXTRACT.IMS_PER_BATCH = "running", batch
    images = ImageList(list(paths), np.zeros(len(paths), np.int64))
    return extracted_as_tested(cfg, model, images).cpu().numpy()


def _build(folder: Path, device: str, pairs: Sequence[str] = ()) -> tuple[Any, Path, nn.Module]:
    own = ["MODEL.BACKBONE.PRETRAIN", "False", "MODEL.WEIGHTS", ""]
    cfg = read_config(folder, [*pairs, *own, *(["MODEL.DEVICE", device] if device else [])])
    checkpoint = find_checkpoint(folder)
    decided = read_checkpoint(checkpoint).get("cc_batch_norm")
    if decided is not None and cfg.CC.EXTRACT.BN == "auto":
        cfg = extraction_config(cfg, LABELLED_BY[decided["is_frozen"]])
    return cfg, checkpoint, load_network(cfg, checkpoint)


def _try(make: Any, what: str, notes: list[str]) -> Any:
    try:
        return make()
    except Exception as error:  # noqa: BLE001  data sets raise anything; the page says it
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        notes.append(f"No {what}: {reason}")
        logger.warning(notes[-1])
        return None


def _clustered(cfg: Any, model: nn.Module, checkpoint: Path) -> Clustered | None:
    state = read_checkpoint(checkpoint).get("cc")
    if state is None:
        return None
    images = collect_images(cfg)
    if (labels := labels_of(state, images.paths)) is None:
        return None
    features = extract_features(cfg, model, images).cpu().numpy()
    return Clustered(images.paths, images.cameras, labels.labels, features, images.truth)


def _test_set(cfg: Any, model: nn.Module, name: str) -> TestSet | None:
    """Query and gallery as stock evaluation sees them."""
    data = DATASET_REGISTRY.get(name)(root=data_build._root)
    items = [*data.query, *data.gallery]
    if not data.query or not data.gallery:
        return None
    paths = [item[0] for item in items]
    if cfg.TEST.BN == "camera":
        found = by_camera(cfg, model, data)
        features = found({"img_paths": paths}).cpu().numpy()
    else:
        features = _as_tested(cfg, model, paths, cfg.TEST.IMS_PER_BATCH)
    return TestSet(
        name,
        paths,
        np.array([int(item[1]) for item in items]),
        np.array([int(item[2]) for item in items]),
        features,
        len(data.query),
    )
