"""The hook that freezes batch norm's statistics: CC.TRAIN_BN frozen and auto."""

from __future__ import annotations

import logging
from typing import Any

from fastreid.engine.train_loop import HookBase

from ...config.checks import starts_from_weights
from ...parallel.collectives import unwrapped
from ..loading.camera_shift import IMAGES, LABELLED_BY, follows_cameras
from ..loading.extract import extract_features, extraction_config
from ..loading.target_images import ImageList
from ..seeding import sample_rows
from .pseudo_label_hook import PseudoLabelHook

logger = logging.getLogger("fastreid.cc.hooks")


class BatchNormHook(HookBase):
    """Lets the network keep the batch-norm statistics of the weights it starts from.

    A batch of few clusters has statistics of its own: a network that learns by these, and makes
    labels and is measured by their mean, may lose more than it learns. Where cameras differ,
    though, the statistics of the start are what makes images of one camera alike, and must go. So
    `auto` looks at the features of the start, once, without an identity. A checkpoint keeps what
    was decided; random weights have no statistics to keep. CC.EXTRACT.BN auto follows in training:
    labels are made by the statistics kept, else by those of each camera. A neck that the weights
    did not bring keeps mean 0 and variance 1. Scalar `cc/frozen_bn`.

    Args:
        cfg: with CC.TRAIN_BN frozen or auto.
        labelling: the hook that makes labels; its images are the target's.

    Attributes:
        is_frozen: None until it is decided.

    Cost: for auto one extraction of 2,000 images at most.
    """

    is_frozen: bool | None = None

    def __init__(self, cfg: Any, labelling: PseudoLabelHook) -> None:
        self.cfg, self.labelling = cfg, labelling
        if cfg.CC.TRAIN_BN == "frozen" or not starts_from_weights(cfg):
            self.is_frozen = cfg.CC.TRAIN_BN == "frozen"

    def before_train(self) -> None:
        """Decides, unless a checkpoint did."""
        network: Any = unwrapped(self.trainer.model)
        if self.is_frozen is None:
            images = self.labelling.images
            rows = sample_rows(len(images.paths), IMAGES, self.cfg.CC.SEED)
            some = ImageList([images.paths[row] for row in rows], images.cameras[rows])
            features = extract_features(extraction_config(self.cfg, "running"), network, some)
            self.is_frozen = not follows_cameras(features, some.cameras, self.cfg.CC.SEED)
        if self.cfg.CC.EXTRACT.BN == "auto":
            self.labelling.extract_by(LABELLED_BY[self.is_frozen])
        what = "kept as they are" if self.is_frozen else "learnt from the batches"
        logger.info(f"CC.TRAIN_BN={self.cfg.CC.TRAIN_BN}: batch norm's statistics are {what}")
        network.keeps_statistics = self.is_frozen
        network.train(network.training)

    def before_epoch(self) -> None:
        """Records what was decided."""
        frozen = float(bool(self.is_frozen))
        self.trainer.storage.put_scalar("cc/frozen_bn", frozen, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc_batch_norm"."""
        return {"is_frozen": self.is_frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what was decided."""
        self.is_frozen = state["is_frozen"]
