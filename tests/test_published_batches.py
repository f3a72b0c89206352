"""What is said of the batch at the start: its parts, batch norm's share, and how papers had it."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from fastreid_cc.config.published_batches import (
    Setting,
    difference_from_published,
    images_per_statistic,
    is_published_method,
    method_of,
    setting_line,
)
from fastreid_cc.config.shipped import PREFIX, config_files
from fastreid_cc.networks.ghost_batch_norm import split_batch_norm

PUBLISHED = Setting(256, 16, 64)


@pytest.mark.parametrize(
    ("images", "samples", "expected"),
    [(256, 64, 64), (64, 64, 64), (32, 64, 32), (256, 0, 256), (128, 48, 42), (100, 64, 50)],
)
def test_images_per_statistic_are_what_batch_norm_does(
    images: int, samples: int, expected: int
) -> None:
    """Counted by the layer itself: a batch whose images are one-hot has the mean 1 / chunk."""
    assert images_per_statistic(images, samples) == expected
    layer = nn.Sequential(nn.BatchNorm1d(images, affine=False, momentum=1.0))
    split_batch_norm(layer, samples)
    layer(torch.eye(images))
    sizes = 1 / layer[0].running_mean[layer[0].running_mean > 0]  # of the first chunk
    assert 0 <= sizes.round().long().unique().item() - expected <= 1


def test_the_line_tells_the_batch_and_the_part_of_a_process() -> None:
    line = "batches of 256 images = 16 clusters x 16, batch norm over 64"
    assert setting_line(PUBLISHED, 1) == line
    assert setting_line(PUBLISHED, 4) == f"{line}; each of 4 processes 4 x 16"


def test_the_published_setting_is_silent_on_any_number_of_processes() -> None:
    for processes in (1, 2, 4):
        setting = Setting(256, 16, images_per_statistic(256 // processes, 64))
        assert difference_from_published("cluster", setting) == ""
    assert difference_from_published("hybrid", Setting(64, 4, 16)) == ""
    assert difference_from_published("instance", Setting(8, 4, 8)) == ""  # none is known


@pytest.mark.parametrize(
    "setting",
    [Setting(256, 16, 32), Setting(256, 16, 256), Setting(64, 16, 64), Setting(256, 8, 64)],
)
def test_any_departure_is_told_with_both_settings(setting: Setting) -> None:
    found = difference_from_published("cluster", setting)
    assert str(PUBLISHED) in found and str(setting) in found
    assert "CC.SAMPLES_PER_BN" in found


def test_only_runs_that_published_figures_exist_for_are_measured_by_them() -> None:
    """A user saw the warning on every shipped config for own images, and on the demo."""
    importlib.import_module("fastreid_cc.plugin")
    from fastreid.config import get_cfg

    told = []
    for name in config_files():
        if name.startswith(
            ("DukeMTMC", "MSMT17", "VeRi", "VehicleID", "PersonX", "UDA/m", "UDA/p")
        ):
            continue  # as Market1501 and UDA/duke-market
        cfg = get_cfg()
        cfg.merge_from_file(PREFIX + name)
        batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
        setting = Setting(batch, instances, images_per_statistic(batch, cfg.CC.SAMPLES_PER_BN))
        if difference_from_published(method_of(cfg), setting) and is_published_method(cfg):
            told.append(name)
    assert told == ["Base-USL.yml"]  # no method of its own
