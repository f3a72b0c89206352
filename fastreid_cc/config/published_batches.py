"""How large a batch is, and how many images share a batch-norm statistic; against the papers'.

The commonest cause of figures that are not reached: the authors trained over four GPUs under
DataParallel, where batch norm sees a quarter of the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..data.published import PUBLISHED as DATA_SETS
from .source_folders import source_names


class Setting(NamedTuple):
    """A batch over all processes, images per cluster in it, images per batch-norm statistic."""

    batch: int
    instances: int
    per_statistic: int

    def __str__(self) -> str:
        return (
            f"{self.batch} images = {self.batch // self.instances} clusters x {self.instances},"
            f" batch norm over {self.per_statistic}"
        )


#: method -> who published it, and the batch they trained with
PUBLISHED = {
    "cluster": ("Cluster Contrast (arXiv:2103.11568, four GPUs)", Setting(256, 16, 64)),
    "cluster, CLIP": (
        "Cluster Contrast on CLIP (arXiv:2310.17218, one GPU)",
        Setting(256, 16, 256),
    ),
    "hybrid": ("SpCL (arXiv:2006.02713, four GPUs)", Setting(64, 4, 16)),
}


def images_per_statistic(images: int, samples_per_bn: int) -> int:
    """Images that share a statistic in a process's batch, as `batch_norm` cuts it.

    Args:
        images: of one process, in one step.
        samples_per_bn: CC.SAMPLES_PER_BN; 0 = all.
    Returns:
        The size of a chunk; of the smaller ones where chunks differ by one.
    """
    return images // max(1, round(images / samples_per_bn)) if samples_per_bn else images


def setting_line(setting: Setting, processes: int) -> str:
    """One line: the batch, the part of each process, and what batch norm sees."""
    part = setting.batch // processes
    each = f"; each of {processes} processes {part // setting.instances} x {setting.instances}"
    return f"batches of {setting}{each * (processes > 1)}"


def is_published_method(cfg: Any) -> bool:
    """Whether a run is one whose published figures it can be measured by.

    That is the plain method on public data sets: no other loss, warm-up or batch norm by domain.
    """
    return (
        {*cfg.DATASETS.NAMES} <= {known.name for known in DATA_SETS}
        and tuple(cfg.MODEL.LOSSES.NAME) == ("MemoryContrast",)
        and not cfg.CC.WARMUP.EPOCHS
        and not (source_names(cfg) and cfg.CC.SOURCES.BN != "shared")
    )


def method_of(cfg: Any) -> str:
    """Name of a run's method in `PUBLISHED`: its memory, and a network that fastreid lacks."""
    networks = {"build_clip_backbone": ", CLIP", "build_timm_backbone": ", timm"}
    return str(cfg.CC.MEMORY.NAME) + networks.get(cfg.MODEL.BACKBONE.NAME, "")


def difference_from_published(method: str, setting: Setting) -> str:
    """How a run's batch differs from the published one; "" if it does not, or none is known."""
    if method not in PUBLISHED or setting == PUBLISHED[method][1]:
        return ""
    name, published = PUBLISHED[method]
    return (
        f"{name} was published with batches of {published}. This run: {setting}. Its figures may"
        " not be reached: SOLVER.IMS_PER_BATCH, DATALOADER.NUM_INSTANCE, CC.SAMPLES_PER_BN and the"
        " number of processes decide, see docs/choosing.md."
    )
