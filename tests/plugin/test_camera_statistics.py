"""CC.TRAIN_BN, CC.EXTRACT.BN, TEST.BN: whose statistics batch norm has; frozen ones, auto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import build, command, config, digest, metrics, run, torchrun, train, weights
from torch import nn

from fastreid_cc.errors import BadConfig
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


STARTED = ("MODEL.BACKBONE.PRETRAIN", True, "CC.COMPARE_IMAGES", 0)


def statistics(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if "running" in name or "num_b" in name}


@pytest.fixture
def start(plugin: Any, tmp_path: Path) -> tuple[object, ...]:
    """Pairs of a run that starts from weights whose statistics are no defaults."""
    train(config(tmp_path / "start"))
    path = tmp_path / "start/model_final.pth"
    state = torch.load(path)["model"]
    found = {name[9:]: value for name, value in state.items() if name.startswith("backbone.")}
    torch.save(found, tmp_path / "start.pth")
    return (*STARTED, "MODEL.BACKBONE.PRETRAIN_PATH", str(tmp_path / "start.pth"))


def test_frozen_statistics_stay_and_the_rest_learns(
    start: tuple[object, ...], tmp_path: Path
) -> None:
    runs = {}
    for name in ("batch", "frozen"):
        cfg = config(tmp_path / name, *start, "CC.TRAIN_BN", name)
        trainer = build(cfg)
        before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        trainer.train()
        after = trainer.model.state_dict()
        runs[name] = after
        stay = digest(statistics(before)) == digest(statistics(after))
        assert stay is (name == "frozen")
        assert not torch.equal(
            before["backbone.conv1.conv.weight"], after["backbone.conv1.conv.weight"]
        )
        assert not torch.equal(
            before["backbone.conv1.bn.weight"], after["backbone.conv1.bn.weight"]
        )
    assert digest(runs["batch"]) != digest(runs["frozen"])


@pytest.mark.parametrize(
    ("share", "is_frozen"), [(0.95, True), (0.7, False), (float("nan"), False)]
)
def test_auto_freezes_where_features_do_not_follow_the_camera(
    share: float,
    is_frozen: bool,
    start: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it does then are the bytes of the run that was told so, labels and weights."""
    from fastreid_cc.plugin.loading import camera_shift

    monkeypatch.setattr(camera_shift, "cross_camera_share", lambda *_: share)
    told = ("frozen", "running") if is_frozen else ("batch", "camera")
    for name, (trained, extracted) in {"auto": ("auto", "auto"), "told": told}.items():
        keys = ("CC.TRAIN_BN", trained, "CC.EXTRACT.BN", extracted)
        train(config(tmp_path / name, *start, *keys))
    assert digest(weights(tmp_path / "auto")) == digest(weights(tmp_path / "told"))
    (decided,) = {
        line["cc/frozen_bn"] for line in metrics(tmp_path / "auto") if "cc/frozen_bn" in line
    }
    assert decided == is_frozen
    # a finished run's features are by what was decided, whatever would be now
    from fastreid_cc.plugin.offline.run_features import training_features

    monkeypatch.setattr(camera_shift, "cross_camera_share", lambda *_: 0.7 if is_frozen else 0.95)
    one, other = (training_features(tmp_path / name)[0] for name in ("auto", "told"))
    assert np.array_equal(one, other)


def test_what_auto_decided_outlives_a_resume(
    start: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of the second call would decide otherwise."""
    from fastreid_cc.plugin.trainer import batch_norm_hook

    asked = []

    def follows(*_: Any) -> bool:
        asked.append(1)
        return len(asked) % 2 == 0  # asked once it freezes, asked again it would not

    monkeypatch.setattr(batch_norm_hook, "follows_cameras", follows)
    keys = ("CC.TRAIN_BN", "frozen", "SOLVER.MAX_EPOCH", 2)
    train(config(tmp_path / "whole", *start, *keys))
    keys = ("CC.TRAIN_BN", "auto", "SOLVER.MAX_EPOCH", 2)
    first = build(config(tmp_path / "parts", *start, *keys))
    first.max_epoch = 1
    first.train()
    second = build(config(tmp_path / "parts", *start, *keys))
    second.resume_or_load(resume=True)
    second.train()
    assert len(asked) == 1
    assert digest(weights(tmp_path / "whole")) == digest(weights(tmp_path / "parts"))


def test_with_frozen_statistics_two_processes_train_what_one_does(
    start: tuple[object, ...], tmp_path: Path, data_root: Path
) -> None:
    """Nothing of a batch depends on its other images any more, whichever process has them."""
    keys = ("CC.TRAIN_BN", "frozen", "SOLVER.OPT", "SGD", "SOLVER.MAX_EPOCH", 1)
    line = command(tmp_path / "two", *start, *keys)
    done = run(data_root, torchrun(line))
    assert done.returncode == 0, done.stdout
    train(config(tmp_path / "one", *start, *keys))
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-4, atol=1e-4, msg=name)


def test_neighbours_say_whether_features_follow_the_camera() -> None:
    from fastreid_cc.plugin.loading.camera_shift import follows_cameras

    generator = np.random.default_rng(0)
    cameras = np.arange(120) % 3
    people = torch.from_numpy(generator.normal(size=(120, 8))).float()
    shifted = people + 9 * torch.eye(8)[cameras]
    unit = torch.nn.functional.normalize
    assert not follows_cameras(unit(people), cameras, 0)
    assert follows_cameras(unit(shifted), cameras, 0)
    assert follows_cameras(unit(people), np.zeros(120, dtype=np.int64), 0)


def test_random_weights_have_no_statistics_to_keep(plugin: Any, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="MODEL.WEIGHTS"):
        build(config(tmp_path, "CC.TRAIN_BN", "frozen"))
    for name in ("auto", "batch"):
        train(config(tmp_path / name, "CC.TRAIN_BN", name, "CC.COMPARE_IMAGES", 0))
    assert digest(weights(tmp_path / "auto")) == digest(weights(tmp_path / "batch"))
