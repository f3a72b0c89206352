"""Images with true labels, where epochs need loaders of their own.

fastreid's loader runs through the whole training: its workers know no epoch, and what they draw
depends on their number. Transforms that know the epoch, and mined triplets, need an epoch's loader
that is made when it begins; all else about labelled training stays fastreid's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from fastreid.data import build as data_build
from fastreid.data.common import CommDataset
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm

from ...config import is_mined
from ...data.epoch_transform import knows_epoch, transform_at
from ...data.items import sort_items
from ...data.samplers import augmentation_slots
from ..seeding import random_state
from .camera_styles import generated_views
from .dataset import ContrastDataset, build_loader
from .target_images import Extent, refuse_too_few


def needs_epoch_loaders(cfg: Any) -> bool:
    """Whether a training with true labels cannot do with fastreid's own loader."""
    is_asked = is_mined(cfg) or cfg.CC.POSES.SHOW > 0
    return is_asked or knows_epoch(build_transforms(cfg, is_train=True))


class LabelledImages:
    """Stands where the stock training loader would, as `TargetImages` does without labels.

    Rows are sorted by path. Batches are drawn by DATALOADER.SAMPLER_TRAIN, fastreid's own, started
    anew in every epoch from CC.SEED and the epoch; augmentation depends on these and the place in
    the epoch. So neither the number of workers nor a resume changes a byte.

    Attributes:
        paths: of N images. cameras: i64 [N]. targets: i64 [N], class of each image.
        transform: of training images.
        style: generated views of the images, or None; as `TargetImages` has it.
    """

    def __init__(self, cfg: Any) -> None:
        items: list[Any] = []
        for name in cfg.DATASETS.NAMES:
            data = DATASET_REGISTRY.get(name)(
                root=data_build._root, combineall=cfg.DATASETS.COMBINEALL
            )
            if comm.is_main_process():
                data.show_train()
            items += data.train
        self._listed = CommDataset(sort_items(items), relabel=True)
        self.paths = [item[0] for item in self._listed.img_items]
        classes, cameras = self._listed.pid_dict, self._listed.cam_dict
        self.targets = np.array([classes[item[1]] for item in self._listed.img_items], np.int64)
        self.cameras = np.array([cameras[item[2]] for item in self._listed.img_items], np.int64)
        self.transform = build_transforms(cfg, is_train=True)
        self.style = generated_views(cfg, self.paths)
        refuse_too_few(cfg, len(self.paths))
        batch = cfg.SOLVER.IMS_PER_BATCH
        steps = cfg.CC.ITERS_PER_EPOCH or len(self.paths) // batch
        self.dataset = Extent(steps * batch, self._listed.num_classes)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def epoch_loader(self, cfg: Any, epoch: int) -> Any:
        """The loader of an epoch: this process's share of its batches."""
        size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        steps = len(self.dataset) // cfg.SOLVER.IMS_PER_BATCH
        with random_state(cfg.CC.SEED, epoch):  # samplers draw from the global generators
            sampler = data_build._train_loader_from_config(
                cfg, train_set=self._listed, transforms=self.transform
            )["sampler"]
            drawn = list(itertools.islice(iter(sampler), steps * size))
        batches = list(np.array(drawn, np.int64).reshape(steps, size))
        where = augmentation_slots([size], steps, comm.get_rank(), comm.get_world_size())
        dataset = ContrastDataset(
            self.paths,
            self.cameras,
            self.targets,
            transform_at(self.transform, epoch, cfg.SOLVER.MAX_EPOCH),
            (cfg.CC.SEED, epoch),
            style=self.style,
        )
        return build_loader(dataset, batches, cfg.DATALOADER.NUM_WORKERS, where)
