"""Mends of fastreid's other bugs, each of which FASTREID_CC_WITHOUT_REPAIRS switches off by name.

Trainings, evaluations and label-free runs go through without any of them, with fastreid's bugs.
"""

from __future__ import annotations

from ..patching import shims_of

#: In the order they are applied.
REPAIRS = shims_of(
    __name__,
    *("config_files", "loaders", "images", "samplers", "pretrained_weights", "model_building"),
    *("schedules", "evaluation", "checkpoints", "full_disk", "metrics_files", "end_of_training"),
    *("profiling_and_averaging", "torchrun"),
)
