"""The images of the target, in the place of the stock training loader until labels exist."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from torch.utils.data import Dataset

from ...data.fit_and_pad import refuse_one_ratio
from ...data.generated_views import ViewFolder
from ...data.items import cameras, sort_items, truth
from ...data.sources import SourceImages
from ...data.tracks import Tracks, tracks_of
from ...errors import BadConfig
from .camera_styles import camera_style, generated_views
from .collect_sources import collect_sources
from .dataset import ContrastDataset, build_loader

logger = logging.getLogger("fastreid.cc.engine")


class ImageList(NamedTuple):
    """Images of a config in data-set order.

    Args:
        paths: of N images.
        cameras: i64 [N].
        truth: i64 [N] identities for the log, None if unknown; nothing else reads them.
        tracks: their tracklets, None if none is known.
    """

    paths: list[str]
    cameras: np.ndarray
    truth: np.ndarray | None = None
    tracks: Tracks | None = None


class Extent(Dataset):
    """As long as an epoch. fastreid reads its length and the number of labelled classes."""

    def __init__(self, length: int, num_classes: int) -> None:
        self.length, self.num_classes = length, num_classes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        raise IndexError("No epoch has begun: the hook swaps the loader in before the first one.")


class TargetImages:
    """Stands where the stock training loader would, until pseudo-labels exist.

    Args:
        images: the target's.
        epoch_images: images trained on per epoch, over all processes, without those of sources.
        sources: the labelled images that train along, or None.
        style: shows an image otherwise, see `camera_styles`; None = images stay as they are.
        views: generated views, which labels are made from too; None = images alone.
    """

    def __init__(
        self,
        images: ImageList,
        epoch_images: int,
        sources: SourceImages | None = None,
        style: Any = None,
        views: ViewFolder | None = None,
    ) -> None:
        self.paths, self.cameras, self.truth, self.tracks = images
        self.sources, self.style, self.views = sources, style, views
        self.dataset = Extent(epoch_images, 0 if sources is None else sources.num_classes)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


def collect_images(cfg: Any) -> ImageList:
    """Every image of DATASETS.NAMES, sorted by path.

    Cameras are numbered over all data sets, so two sets never share one. A data set may tell
    tracklets in an attribute `tracks`, path -> (tracklet with its camera, time or nan).
    """
    listed: list[tuple[str, Any, str]] = []
    tracks: dict[str, tuple[str, float]] = {}
    for name in cfg.DATASETS.NAMES:
        data = DATASET_REGISTRY.get(name)(root=data_build._root)
        listed += [(path, identity, f"{name}/{camera}") for path, identity, camera in data.train]
        told = getattr(data, "tracks", {}).items()
        tracks |= {path: (f"{name}/{tracklet}", time) for path, (tracklet, time) in told}
    items = sort_items(listed)
    paths = [item[0] for item in items]
    return ImageList(paths, cameras(items), truth(items), tracks_of(paths, tracks))


def test_paths(cfg: Any) -> list[str]:
    """Every query and gallery image of DATASETS.TESTS, sorted by path; no label is read."""
    found: set[str] = set()
    for name in cfg.DATASETS.TESTS:
        data = DATASET_REGISTRY.get(name)(root=data_build._root)
        found |= {item[0] for item in (*data.query, *data.gallery)}
    return sorted(found)


def target_images(cfg: Any) -> TargetImages:
    """The target's images, the labelled sources and the camera styles of a config.

    Raises:
        ValueError: if there are fewer images than a batch holds; see `collect_sources` and
            `camera_style`.
    """
    images = collect_images(cfg)
    batch, count = cfg.SOLVER.IMS_PER_BATCH, len(images.paths)
    refuse_too_few(cfg, count)
    if cfg.INPUT.KEEP_RATIO:
        refuse_one_ratio(images.paths, cfg.INPUT.SIZE_TRAIN)
    iters = cfg.CC.ITERS_PER_EPOCH or count // batch
    names = ", ".join(cfg.DATASETS.NAMES)
    logger.info(f"{count:,} images without labels from {names}")
    sources = collect_sources(cfg, images)
    if sources is not None and len(cfg.DATASETS.NAMES) > 1:
        logger.info(f"{names} are trained on as one target: one labelling, one batch norm")
    views = generated_views(cfg, images.paths)
    style = camera_style(cfg, images.paths, images.cameras)
    if views is not None and views.show > 0:
        style = views
    fused = views if views is not None and views.fuse != "off" else None
    return TargetImages(images, iters * batch, sources, style, fused)


def refuse_too_few(cfg: Any, count: int) -> None:
    """Raises BadConfig if a target of `count` images fills no step of an epoch."""
    batch = cfg.SOLVER.IMS_PER_BATCH
    if not count or not (cfg.CC.ITERS_PER_EPOCH or count // batch):
        raise BadConfig(
            f"DATASETS.NAMES={tuple(cfg.DATASETS.NAMES)} holds {count} images, fewer than one"
            f" batch of SOLVER.IMS_PER_BATCH={batch}. Lower it, or set CC.ITERS_PER_EPOCH."
        )


class ImageStream:
    """Endless random batches without labels, for PreciseBN."""

    def __init__(self, cfg: Any) -> None:
        paths, cameras = collect_images(cfg)[:2]
        rows = np.random.default_rng(cfg.CC.SEED).permutation(len(paths))
        batch = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        targets, transform = np.zeros(len(paths), np.int64), build_transforms(cfg, is_train=True)
        dataset = ContrastDataset(paths, cameras, targets, transform, (cfg.CC.SEED,))
        batches = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
        self.loader = build_loader(dataset, batches, num_workers=0)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.loader
