"""The hook that says without identities whether the trained network is worse than at the start."""

from __future__ import annotations

import logging
from typing import Any

import torch
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from torch import Tensor

from ...labels.feature_figures import view_rank
from ...labels.helped import is_worse, sentence, warning
from ...parallel.collectives import unwrapped
from ..loading.extract import Mirrored, extract_features, extraction_config
from ..loading.target_images import ImageList
from ..seeding import sample_rows
from .kept_start import NAME, KeptStart, kept_message
from .pseudo_label_hook import PseudoLabelHook
from .run_log import log_results
from .stages import Stages
from .teacher_hook import TeacherHook

logger = logging.getLogger("fastreid.cc.hooks")
KEPT = f". Worse: model_final.pth holds the weights of the start, {NAME} what was trained"


class ComparisonHook(HookBase):
    """How surely the target's images are found by their mirror images, before and after.

    By the network that TEST measures and its statistics, without TEST.FLIP. Images of one cluster
    of the last labelling are not told apart: a network that has learnt to make them alike did what
    it should, and both networks are measured so. Before is what label-free training starts from:
    after the epochs of source labels, where there are any. Scalars `start/mirror_rank` and
    `mirror_rank`; a warning at the end if it fell. No identity is read, and nothing that trains
    sees a figure.

    With CC.KEEP_START a network that is worse is not the result: at the end of the last epoch,
    before it is measured and saved, it gets its weights of the start again.

    Cost: at the start and at the end the extraction of CC.COMPARE_IMAGES images, at most, and of
    their mirror images, and for N of them N^2 D multiplications on the CPU of every process. The
    2·N·D features of the start lie in memory, and in checkpoints, until then.

    Args:
        cfg: fastreid config with CC.ENABLED.
        labelling: the hook that makes labels; its images are the target's.
        teacher: the hook of the mean teacher, if there is one.

    Attributes:
        start_features: of the images and of their mirror images, f32 [2, N, D]; None until the
            start.
        before, after: None until training has ended.
        is_kept: whether the start was put back.
    """

    start_features: Tensor | None = None
    before: float | None = None
    after: float | None = None
    is_kept = False

    def __init__(self, cfg: Any, labelling: PseudoLabelHook, teacher: TeacherHook | None) -> None:
        self.cfg = extraction_config(cfg, cfg.TEST.BN, flip=False)
        self.labelling, self.teacher = labelling, teacher
        self.first_epoch = Stages(cfg).source
        images = labelling.images
        self.rows = sample_rows(len(images.paths), cfg.CC.COMPARE_IMAGES, cfg.CC.SEED)
        self.images = ImageList([images.paths[r] for r in self.rows], images.cameras[self.rows])
        self.start = KeptStart(cfg.OUTPUT_DIR, teacher) if cfg.CC.KEEP_START else None

    def before_epoch(self) -> None:
        """Looks before the first epoch on the target; comes after what adapts batch norm."""
        if self.trainer.epoch == self.first_epoch and self.start_features is None:
            self.start_features = self._features()
            if self.start is not None:
                self.start.remember(self.trainer.model)

    def after_epoch(self) -> None:
        """With CC.KEEP_START, after the last epoch: measures, and puts the start back if worse."""
        is_last = self.trainer.epoch + 1 == self.trainer.max_epoch
        if not is_last or self.start is None or self.start.state is None:
            return
        found = self._compare()
        if found is not None and is_worse(*found):
            self.is_kept = True
            if self.cfg.CC.EVAL_BEFORE and self.cfg.DATASETS.TESTS:
                log_results(self.trainer, "trained", self.trainer.test(self.cfg, self._network))
            self.start.put_back(self.trainer.model)
            logger.warning(kept_message(*found))
        self.start.state = None
        self.trainer.storage.put_scalar("kept_start", float(self.is_kept), smoothing_hint=False)

    def after_train(self) -> None:
        """Measures and compares, unless training broke off or its start is unknown."""
        if self.trainer.iter < self.trainer.max_iter or self.is_kept:
            return
        found = self._compare()
        if found is not None and is_worse(*found) and comm.is_main_process():
            logger.warning(warning(*found))

    def said(self) -> str:
        """The comparison in a line, "" if there is none."""
        if self.before is None or self.after is None:
            return ""
        return sentence(self.before, self.after) + (KEPT if self.is_kept else "")

    @property
    def _network(self) -> Any:
        """What evaluation measures."""
        return self.trainer.model if self.teacher is None else self.teacher.evaluated

    def _compare(self) -> tuple[float, float] | None:
        """The figure before and after; None if no start is known."""
        if self.start_features is None:
            return None
        labels = self.labelling.labels
        groups = None if labels is None else labels.labels[self.rows]
        pairs = (self.start_features.numpy(), self._features().numpy())
        before, after = (view_rank(plain, mirrored, groups) for plain, mirrored in pairs)
        self.before, self.after = before, after
        self.trainer.storage.iter = self.trainer.iter  # else the writer takes it for written
        both = {"start/mirror_rank": before, "mirror_rank": after}
        self.trainer.storage.put_scalars(**both, smoothing_hint=False)
        return before, after

    def _features(self) -> Tensor:
        model = unwrapped(self._network)
        seen = (model, Mirrored(model))
        return torch.stack(
            [extract_features(self.cfg, shown, self.images, tested=True).cpu() for shown in seen]
        )

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc_comparison": features of the start, and its weights."""
        found: dict[str, Any] = {"features": self.start_features}
        if self.start is not None and self.start.state is not None:
            found["start"] = self.start.state
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`; without a comparison from one of an older version."""
        self.start_features = state.get("features")
        if self.start is not None:
            self.start.state = state.get("start")
