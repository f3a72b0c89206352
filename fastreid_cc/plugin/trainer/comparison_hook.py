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
from .kept_start import NAME, KeptStart, kept_message
from .run_log import log_results
from .stages import Stages
from .teacher_hook import TeacherHook

logger = logging.getLogger("fastreid.cc.hooks")
KEPT = f". Worse: model_final.pth holds the weights of the start, {NAME} what was trained"


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

    With CC.KEEP_START a network that is worse is not the result: at the end of the last epoch,
    before it is measured and saved, it gets its weights of the start again.

    Attributes:
        before, after: None until they are known.
        is_kept: whether the start was put back.
    """

    before: float | None = None
    after: float | None = None
    is_kept = False

    def __init__(self, cfg: Any, images: TargetImages, teacher: TeacherHook | None) -> None:
        self.cfg, self.teacher = cfg.clone(), teacher
        self.cfg.defrost()
        self.cfg.CC.EXTRACT.BN, self.cfg.CC.EXTRACT.FLIP = cfg.TEST.BN, False
        self.first_epoch = Stages(cfg).source
        self.images = sample(images, cfg.CC.COMPARE_IMAGES, cfg.CC.SEED)
        self.start = KeptStart(cfg.OUTPUT_DIR, teacher) if cfg.CC.KEEP_START else None

    def before_epoch(self) -> None:
        """Measures before the first epoch on the target; comes after what adapts batch norm."""
        if self.trainer.epoch == self.first_epoch and self.before is None:
            self.before = self._measure("start/mirror_rank")
            if self.start is not None:
                self.start.remember(self.trainer.model)

    def after_epoch(self) -> None:
        """With CC.KEEP_START, after the last epoch: measures, and puts the start back if worse."""
        is_last = self.trainer.epoch + 1 == self.trainer.max_epoch
        if not is_last or self.start is None or self.start.state is None or self.before is None:
            return
        self.after = self._measure("mirror_rank")
        self.is_kept = is_worse(self.before, self.after)
        if self.is_kept:
            if self.cfg.CC.EVAL_BEFORE and self.cfg.DATASETS.TESTS:
                log_results(self.trainer, "trained", self.trainer.test(self.cfg, self._network))
            self.start.put_back(self.trainer.model)
            logger.warning(kept_message(self.before, self.after))
        self.start.state = None
        self.trainer.storage.put_scalar("kept_start", float(self.is_kept), smoothing_hint=False)

    def after_train(self) -> None:
        """Measures and compares, unless training broke off or its start is unknown."""
        if self.trainer.iter < self.trainer.max_iter or self.before is None or self.is_kept:
            return
        self.after = self._measure("mirror_rank")
        if comm.is_main_process() and is_worse(self.before, self.after):
            logger.warning(warning(self.before, self.after))

    def said(self) -> str:
        """The comparison in a line, "" if there is none."""
        if self.before is None or self.after is None:
            return ""
        return sentence(self.before, self.after) + (KEPT if self.is_kept else "")

    @property
    def _network(self) -> Any:
        """What evaluation measures."""
        return self.trainer.model if self.teacher is None else self.teacher.evaluated

    def _measure(self, name: str) -> float:
        model = unwrapped(self._network)
        features, mirrored = (
            extract_features(self.cfg, shown, self.images, tested=True).cpu().numpy()
            for shown in (model, Mirrored(model))
        )
        found = view_rank(features, mirrored)
        self.trainer.storage.iter = self.trainer.iter  # else the writer takes it for written
        self.trainer.storage.put_scalar(name, found, smoothing_hint=False)
        return found

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc_comparison": the figure of the start, and its weights."""
        found: dict[str, Any] = {"before": self.before}
        if self.start is not None and self.start.state is not None:
            found["start"] = self.start.state
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.before = None if state["before"] is None else float(state["before"])
        if self.start is not None:
            self.start.state = state.get("start")


def sample(images: TargetImages | ImageList, count: int, seed: int) -> ImageList:
    """`count` of the images, drawn by `seed`, in data-set order; all if there are no more."""
    rows = np.arange(len(images.paths))
    if len(rows) > count:
        generator = np.random.default_rng(seed_words(seed))
        rows = np.sort(generator.choice(rows, count, replace=False))
    return ImageList([images.paths[row] for row in rows], images.cameras[rows])
