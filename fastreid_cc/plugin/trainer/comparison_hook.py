"""The hook that says without identities whether the trained network is worse than at the start."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ...labels.feature_figures import view_rank
from ...labels.helped import is_worse, sentence, warning
from ...parallel.collectives import unwrapped
from ..loading.extract import Mirrored, extract_features
from ..loading.target_images import ImageList, TargetImages
from ..seeding import seed_words
from .stages import Stages
from .teacher_hook import TeacherHook

logger = logging.getLogger("fastreid.cc.hooks")


class ComparisonHook(HookBase):
    """How surely the target's images are found by their mirror images, before and after.

    By the network that TEST measures and its statistics, without TEST.FLIP. Before is what
    label-free training starts from: after the epochs of source labels, where there are any.
    Scalars `start/mirror_rank` and `mirror_rank`; a warning at the end if it fell. No label, true
    or made, is read, and nothing that trains sees a figure.

    Cost: at the start and at the end the extraction of CC.COMPARE_IMAGES images, at most, and of
    their mirror images, and for N of them N^2 D multiplications on the CPU of every process.

    Args:
        cfg: fastreid config with CC.ENABLED.
        images: the target's.
        teacher: the hook of the mean teacher, if there is one.

    Attributes:
        before, after: None until they are known.
    """

    before: float | None = None
    after: float | None = None

    def __init__(self, cfg: Any, images: TargetImages, teacher: TeacherHook | None) -> None:
        self.cfg, self.teacher = cfg.clone(), teacher
        self.cfg.defrost()
        self.cfg.CC.EXTRACT.BN, self.cfg.CC.EXTRACT.FLIP = "running", False
        self.first_epoch = Stages(cfg).source
        self.images = sample(images, cfg.CC.COMPARE_IMAGES, cfg.CC.SEED)

    def before_epoch(self) -> None:
        """Measures before the first epoch on the target; comes after what adapts batch norm."""
        if self.trainer.epoch == self.first_epoch and self.before is None:
            self.before = self._measure("start/mirror_rank")

    def after_train(self) -> None:
        """Measures and compares, unless training broke off or its start is unknown."""
        if self.trainer.iter < self.trainer.max_iter or self.before is None:
            return
        self.after = self._measure("mirror_rank")
        if comm.is_main_process() and is_worse(self.before, self.after):
            logger.warning(warning(self.before, self.after))

    def said(self) -> str:
        """The comparison in a line, "" if there is none."""
        if self.before is None or self.after is None:
            return ""
        return sentence(self.before, self.after)

    def _measure(self, name: str) -> float:
        model = unwrapped(self.trainer.model if self.teacher is None else self.teacher.evaluated)
        features, mirrored = (
            extract_features(self.cfg, shown, self.images, tested=True).cpu().numpy()
            for shown in (model, Mirrored(model))
        )
        found = view_rank(features, mirrored)
        self.trainer.storage.iter = self.trainer.iter  # else the writer takes it for written
        self.trainer.storage.put_scalar(name, found, smoothing_hint=False)
        return found

    def state_dict(self) -> dict[str, float | None]:
        """A checkpoint's entry "cc_comparison": the figure of the start."""
        return {"before": self.before}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Goes on from `state_dict`."""
        self.before = None if state["before"] is None else float(state["before"])


def sample(images: TargetImages | ImageList, count: int, seed: int) -> ImageList:
    """`count` of the images, drawn by `seed`, in data-set order; all if there are no more."""
    rows = np.arange(len(images.paths))
    if len(rows) > count:
        generator = np.random.default_rng(seed_words(seed))
        rows = np.sort(generator.choice(rows, count, replace=False))
    return ImageList([images.paths[row] for row in rows], images.cameras[rows])
