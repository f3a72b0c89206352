"""What fastreid looks up by name, and the names there are: for checks, and for `config`."""

from __future__ import annotations

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.layers import pooling
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import optim


def stock_names() -> dict[str, tuple[str, ...]]:
    """Key -> the names it takes, those of parts from outside included; of lists, of each entry."""
    datasets = DATASET_REGISTRY._obj_map
    optimizers = [name for name, kind in vars(optim).items() if isinstance(kind, type)]
    found = {
        "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY._obj_map,
        "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY._obj_map,
        "MODEL.HEADS.NAME": REID_HEADS_REGISTRY._obj_map,
        "MODEL.HEADS.POOL_LAYER": pooling.__all__,
        "MODEL.HEADS.NECK_FEAT": ("before", "after"),
        "SOLVER.OPT": optimizers,
        "SOLVER.SCHED": ("MultiStepLR", "CosineAnnealingLR"),
        "DATASETS.NAMES": datasets,
        "DATASETS.TESTS": datasets,
        "CC.SOURCES.NAMES": datasets,
    }
    return {key: tuple(sorted(names)) for key, names in found.items()}
