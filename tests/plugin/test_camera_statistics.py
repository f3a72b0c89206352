"""CC.TRAIN_BN camera and TEST.BN camera: each camera's images have statistics of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_runs import build, config, digest, train, weights
from torch import nn

from fastreid_cc.networks.camera_batch_norm import groups_of, split_by_camera


def test_each_camera_is_normalised_alone_and_few_images_together() -> None:
    torch.manual_seed(0)
    cameras = torch.tensor([0, 1] * 10 + [2, 3] * 3 + [2, 3, 4])  # 10, 10, and 4, 4, 1 together
    x = torch.randn(len(cameras), 3, 2, 2) + cameras[:, None, None, None] * 5.0
    model = nn.Sequential(nn.BatchNorm2d(3))
    told = split_by_camera(model)
    order, sizes = groups_of(cameras)
    assert sizes == [10, 10, 9] and sorted(order.tolist()) == list(range(29))
    with told.of(sizes):
        found = model(x[order])
    for group in (cameras == 0, cameras == 1, cameras >= 2):
        torch.testing.assert_close(found[group[order]], nn.BatchNorm2d(3)(x[group]))
    assert not torch.allclose(found, nn.BatchNorm2d(3)(x)[order])
    torch.testing.assert_close(model(x), nn.BatchNorm2d(3)(x))  # outside: the whole batch
    assert groups_of(cameras[:5])[1] == [5]  # 3 and 2: too few for any


def test_training_by_camera_trains_otherwise(plugin: Any, tmp_path: Path) -> None:
    batch = ("SOLVER.IMS_PER_BATCH", 24, "CC.COMPARE_IMAGES", 0)
    for name in ("batch", "camera"):
        train(config(tmp_path / name, *batch, "CC.TRAIN_BN", name))
    one, other = (weights(tmp_path / name) for name in ("batch", "camera"))
    assert one.keys() == other.keys() and digest(one) != digest(other)


def test_evaluation_by_camera_is_extraction_by_camera(plugin: Any, tmp_path: Path) -> None:
    from fastreid.engine.defaults import DefaultTrainer

    from fastreid_cc.plugin.loading.camera_features import by_camera
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import ImageList

    found = {}
    for bn in ("running", "camera"):
        trainer = build(config(tmp_path / bn, "TEST.BN", bn, "CC.EXTRACT.BN", "camera"))
        found[bn] = DefaultTrainer.test(trainer.cfg, trainer.model)
    assert found["camera"]["mAP"] != found["running"]["mAP"]
    data = trainer.build_test_loader(trainer.cfg, trainer.cfg.DATASETS.TESTS[0])[0].dataset
    items = sorted({item[0]: item for item in data.img_items}.values())
    paths, cameras = [item[0] for item in items], np.array([item[2] for item in items])
    expected = extract_features(trainer.cfg, trainer.model, ImageList(paths, cameras), tested=True)
    split = type("Split", (), {"query": items[:3], "gallery": items[3:]})()
    model = by_camera(trainer.cfg, trainer.model, split)
    chosen = [5, 0, 5]
    torch.testing.assert_close(model({"img_paths": [paths[i] for i in chosen]}), expected[chosen])
