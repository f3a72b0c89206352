"""The hook that chooses a checkpoint by source identities that are not trained on."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import numpy as np
from fastreid.engine.train_loop import HookBase
from fastreid.evaluation import rank
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer
from torch import Tensor

from ...data.sources import SourceImages
from ...parallel.collectives import unwrapped
from ..loading.collect_sources import BEST_SOURCE
from ..loading.extract import extract_features, extraction_config
from .stages import Stages
from .teacher_hook import TeacherHook

logger = logging.getLogger("fastreid.cc.hooks")


class SourceValidationHook(HookBase):
    """Measures CC.SOURCES.VALIDATION's identities, and keeps the best network so far.

    Every TEST.EVAL_PERIOD epochs and after the last: scalars source_validation/mAP and /Rank-1, in
    per cent. The best of the epochs with pseudo-labels is `OUTPUT_DIR/best_source/model_best.pth`,
    a checkpoint of the evaluated network that stock fastreid loads; the first of equals. Epochs of
    source labels alone do not count: nothing has been adapted there.

    In each source the first image of an identity from a camera is a query, all images the gallery,
    by the network that TEST measures and each source's own batch norm; the mean over sources is
    what counts. No label of the target is read.

    Args:
        cfg: fastreid config.
        images: the identities held out, of all sources.
        teacher: the hook of the mean teacher, if there is one.

    Attributes:
        best: mAP of the best network, in per cent, -inf before the first.
        best_epoch: its epoch, -1 before the first.
    """

    def __init__(self, cfg: Any, images: SourceImages, teacher: TeacherHook | None) -> None:
        self.cfg = extraction_config(cfg, "running", flip=cfg.TEST.FLIP.ENABLED)
        self.images, self.teacher = images, teacher
        self.first_epoch = Stages(cfg).first_labels
        self.best, self.best_epoch = -math.inf, -1

    def after_epoch(self) -> None:
        """Measures in its turn; saves what is best."""
        epoch, last = self.trainer.epoch, self.trainer.max_epoch - 1
        if (epoch + 1) % self.cfg.TEST.EVAL_PERIOD and epoch != last:
            return
        model = self.trainer.model if self.teacher is None else self.teacher.evaluated
        model = unwrapped(model)
        features = extract_features(self.cfg, model, self.images, self.images.domains, tested=True)
        precision, first = validate(features, self.images)
        scalars = {"source_validation/mAP": precision, "source_validation/Rank-1": first}
        self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)
        logger.info(f"epoch {epoch}: held-out source identities, mAP {precision:.2f}")
        if epoch >= self.first_epoch and precision > self.best:
            self.best, self.best_epoch = precision, epoch
            self._save(model)

    def _save(self, model: Any) -> None:
        """In a folder of its own: a resumed run looks for its checkpoint beside it."""
        path = os.path.join(self.cfg.OUTPUT_DIR, BEST_SOURCE)
        folder, name = os.path.split(path)
        if comm.is_main_process():
            os.makedirs(folder, exist_ok=True)
        saver = Checkpointer(model, folder, save_to_disk=comm.is_main_process())
        saver.save(name.removesuffix(".pth"), epoch=self.best_epoch, source_mAP=self.best)

    def state_dict(self) -> dict[str, float]:
        """A checkpoint's entry "cc_source_validation"."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on from `state_dict`."""
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])


def validate(features: Tensor, images: SourceImages) -> tuple[float, float]:
    """(mAP, Rank-1) in per cent of held-out images, the mean over sources.

    Args:
        features: [M, D], unit rows. images: M images, every identity seen by two cameras.
    """
    found = []
    host = features.cpu().numpy()
    for domain in np.unique(images.domains):
        own = np.flatnonzero(images.domains == domain)
        who, where, rows = images.classes[own], images.cameras[own], host[own]
        _, first = np.unique(np.stack([who, where]), axis=1, return_index=True)
        distances = 1 - rows[first] @ rows.T
        curve, precisions, _ = rank.evaluate_rank(
            distances, who[first], who, where[first], where, max_rank=50
        )
        found.append((100 * float(np.mean(precisions)), 100 * float(curve[0])))
    precision, rank_1 = np.mean(found, axis=0)
    return float(precision), float(rank_1)
