"""Features of all unlabelled images, in data-set order, sharded over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from torch import Tensor, nn
from tqdm import tqdm

from ...networks.domain_batch_norm import reestimate_statistics
from ...networks.ghost_batch_norm import batch_statistics
from ...parallel.collectives import gather_objects
from ...parallel.consistency import share_buffers
from ..compat import close_loader
from .camera_shift import follows_cameras
from .dataset import ContrastDataset, build_loader


def extraction_batches(
    cameras: np.ndarray, batch_size: int, *, per_camera: bool, seed: int
) -> list[np.ndarray]:
    """Splits all rows into batches, each row in exactly one.

    Args:
        cameras: i64 [N].
        batch_size: images per batch at most.
        per_camera: batches hold one camera each, near-equal in size and shuffled, since their
            statistics stand for the camera's and a folder's order may follow identities.
        seed: of that shuffle.
    """
    groups = [np.arange(len(cameras))]
    if per_camera:
        generator = np.random.default_rng(seed)
        groups = [
            generator.permutation(np.flatnonzero(cameras == camera))
            for camera in np.unique(cameras)
        ]
    batches: list[np.ndarray] = []
    for group in groups:
        batches += np.array_split(group, -(-len(group) // batch_size))
    return batches


class Images(Protocol):
    """What extraction needs: the target's images, or those of the sources."""

    @property
    def paths(self) -> Sequence[str]:
        """Of N images."""

    @property
    def cameras(self) -> np.ndarray:
        """i64 [N]."""


@torch.no_grad()
def extract_features(
    cfg: Any,
    model: nn.Module,
    images: Images,
    domains: np.ndarray | None = None,
    *,
    tested: bool = False,
) -> Tensor:
    """Unit-length features f32 [N, D] of all images by the model in eval mode, on its device.

    What a memory is compared with, the neck's; or what is `tested`, by MODEL.HEADS.TEST_FEAT.
    `domains`, i64 [N], chooses the batch norm of each image; None = the target's.
    With CC.EXTRACT.BN "camera" batch norm uses the statistics of each camera's batches; running
    statistics stay as they are, and are what a camera with a single image gets: one image has no
    statistics. "auto" does so where features by running statistics follow the camera, at twice the
    cost, and gives these elsewhere. CC.EXTRACT.FLIP averages with the mirror image. The model's
    mode is put back. Every process gives its share of the batches and gets all rows; the batches
    are the same for any number of processes, and so are their statistics.
    """
    if cfg.CC.EXTRACT.BN == "auto":
        running = extraction_config(cfg, "running")
        features = extract_features(running, model, images, domains, tested=tested)
        if not follows_cameras(features, images.cameras, cfg.CC.SEED):
            return features
        cfg = extraction_config(cfg, "camera")
    share_buffers(model)
    per_camera = cfg.CC.EXTRACT.BN == "camera"
    batches = extraction_batches(
        images.cameras,
        cfg.CC.EXTRACT.IMS_PER_BATCH,
        per_camera=per_camera,
        seed=cfg.CC.SEED,
    )
    mine = batches[comm.get_rank() :: comm.get_world_size()]
    parts = []
    with _evaluating(model):
        for batch in _read(cfg, images, mine, "extracting features", domains):
            by_batch = per_camera and len(batch["images"]) > 1
            with batch_statistics(model) if by_batch else nullcontext():
                parts.append(_forward(model, batch, tested, flip=cfg.CC.EXTRACT.FLIP))
    found = list(zip(mine, parts, strict=True))
    device = next(model.parameters()).device
    if comm.get_world_size() > 1:  # between processes features travel by the CPU
        own = [(rows, part.cpu()) for rows, part in found]
        found = [pair for pairs in gather_objects(own) for pair in pairs]
    size = found[0][1].shape[1]
    features = torch.empty(len(images.paths), size, dtype=torch.float32, device=device)
    for rows, part in found:
        features[torch.from_numpy(rows)] = part.to(device)
    return features


def extraction_config(cfg: Any, statistics: str, *, flip: bool | None = None) -> Any:
    """A config whose CC.EXTRACT.BN is `statistics`, and CC.EXTRACT.FLIP `flip` (None: as it is)."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.CC.EXTRACT.BN = statistics
    if flip is not None:
        cfg.CC.EXTRACT.FLIP = flip
    cfg.freeze()
    return cfg


class Mirrored(nn.Module):
    """A network that is shown the mirror images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # extraction puts back the mode that it found

    def forward(self, batch: dict[str, Any]) -> Any:
        """What the network makes of a batch whose images are mirrored."""
        return self.model({**batch, "images": batch["images"].flip(dims=[3])})


@torch.no_grad()
def reestimate_target_statistics(cfg: Any, model: nn.Module, images: Images) -> None:
    """Sets the running statistics of the target's batch norm from its images, once through all.

    Batches are shuffled by CC.SEED. Every process passes all images, so all get the same.
    """
    rows = np.random.default_rng(cfg.CC.SEED).permutation(len(images.paths))
    batches = np.array_split(rows, -(-len(rows) // cfg.CC.EXTRACT.IMS_PER_BATCH))
    with _evaluating(model), reestimate_statistics(model):
        for batch in _read(cfg, images, batches, "statistics of the target"):
            model({"images": batch["images"], "for_memory": True})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _read(
    cfg: Any,
    images: Images,
    batches: list[np.ndarray],
    what: str,
    domains: np.ndarray | None = None,
) -> Iterator[dict[str, Any]]:
    """The images of `batches` as in a test, under a progress bar."""
    dataset = ContrastDataset(
        images.paths,
        images.cameras,
        np.zeros(len(images.paths), dtype=np.int64),
        build_transforms(cfg, is_train=False),
        (cfg.CC.SEED,),
        domains=domains,
    )
    loader = build_loader(dataset, batches, cfg.DATALOADER.NUM_WORKERS)
    try:
        yield from tqdm(
            loader,
            what,
            total=len(batches),
            leave=False,
            disable=None if comm.is_main_process() else True,
        )
    finally:
        close_loader(loader)


def _forward(model: nn.Module, batch: dict[str, Any], tested: bool, *, flip: bool) -> Tensor:
    pixels = batch["images"]
    rest = {key: batch[key] for key in ("domains",) if key in batch} | {"for_memory": not tested}
    copy = pixels.clone() if flip else pixels  # fastreid normalises in place
    feature = model({"images": copy, **rest})
    if flip:
        feature = feature + model({"images": pixels.flip(dims=[3]), **rest})
    return F.normalize(feature.float())
