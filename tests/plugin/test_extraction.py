"""Extraction shows every image once, one camera at a time where batch statistics stand for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny_runs import config, train

pytestmark = pytest.mark.usefixtures("plugin")

CAMERAS = np.repeat([0, 2, 5], [11, 4, 30])


@pytest.mark.parametrize("per_camera", [False, True])
def test_every_row_is_in_exactly_one_batch_of_bounded_size(per_camera: bool) -> None:
    from fastreid_cc.plugin.loading.extract import extraction_batches

    batches = extraction_batches(CAMERAS, 8, per_camera=per_camera, seed=0)
    assert sorted(np.concatenate(batches)) == list(range(45))
    assert max(len(batch) for batch in batches) <= 8


def test_batches_of_one_camera_are_near_equal_and_not_in_the_order_of_the_folder() -> None:
    from fastreid_cc.plugin.loading.extract import extraction_batches

    batches = extraction_batches(CAMERAS, 8, per_camera=True, seed=0)
    for batch in batches:
        assert len(set(CAMERAS[batch])) == 1
    assert [len(batch) for batch in batches] == [6, 5, 4, 8, 8, 7, 7]
    assert any((np.diff(batch) < 0).any() for batch in batches)
    again = extraction_batches(CAMERAS, 8, per_camera=True, seed=0)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_a_camera_with_a_single_image_has_the_statistics_of_training(tmp_path: Path) -> None:
    """One image has no statistics; torch refuses to normalise it by its own."""
    from fastreid.modeling.meta_arch import build_model
    from PIL import Image

    from fastreid_cc.plugin.loading.extract import extract_features

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), dtype=np.uint8)
    paths = [str(tmp_path / f"{row}.png") for row in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    images = SimpleNamespace(paths=paths, cameras=np.array([0, 0, 1, 0, 0]))
    found = {}
    model = build_model(config(tmp_path))
    for statistics in ("running", "camera"):
        cfg = config(tmp_path, "CC.EXTRACT.BN", statistics)
        found[statistics] = extract_features(cfg, model, images)
    is_same = torch.isclose(found["camera"], found["running"], atol=1e-6).all(dim=1)
    assert is_same.tolist() == [False, False, True, False, False]


def test_a_loader_has_no_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch warns of more: a false alarm on a small machine under the stock 8."""
    from fastreid_cc.plugin.loading import dataset

    batches = [np.array([row]) for row in range(6)]
    for cores, workers, expected in ((2, 8, 2), (32, 8, 6), (32, 3, 3), (2, 0, 0)):
        monkeypatch.setattr(dataset, "cores", lambda cores=cores: cores, raising=False)
        assert dataset.build_loader(list(range(6)), batches, workers).num_workers == expected


def test_features_stay_on_the_device_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, from which nothing can be copied to the CPU."""
    from fastreid_cc.plugin.loading import extract

    class Network(torch.nn.Linear):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.empty(len(batch["images"]), self.out_features, device=self.weight.device)

    def read(cfg: Any, images: Any, batches: Any, *rest: Any) -> Iterator[dict[str, torch.Tensor]]:
        yield from ({"images": torch.zeros(len(batch), 3, 8, 4)} for batch in batches)

    monkeypatch.setattr(extract, "_read", read)
    images = SimpleNamespace(paths=[str(row) for row in range(45)], cameras=CAMERAS)
    network = Network(2, 7, device="meta")
    features = extract.extract_features(config(tmp_path), network, images)
    assert features.device == network.weight.device and features.shape == (45, 7)


class Elsewhere(torch.Tensor):
    """Stands for a tensor on another device: notes when it is brought to the CPU."""

    heard: ClassVar[list[str]] = []

    def cpu(self, *args: Any, **more: Any) -> torch.Tensor:
        self.heard.append("cpu")
        return super().cpu(*args, **more).as_subclass(torch.Tensor)


def test_the_neighbour_search_gets_the_features_before_they_are_brought_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.labeling.neighbors.exact import ExactKNN
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    extracted, searched = hooks.extract_features, ExactKNN.search

    def elsewhere(*args: Any) -> torch.Tensor:
        Elsewhere.heard.append("extracted")
        return extracted(*args).as_subclass(Elsewhere)

    def search(self: Any, features: torch.Tensor, *rest: Any, **more: Any) -> Any:
        Elsewhere.heard.append(f"searched {type(features).__name__}")
        return searched(self, features.as_subclass(torch.Tensor), *rest, **more)

    monkeypatch.setattr(hooks, "extract_features", elsewhere)
    monkeypatch.setattr(ExactKNN, "search", search)
    train(config(tmp_path, "CC.LABELS.PERIOD", 1))
    heard = Elsewhere.heard
    assert heard[:3] == ["extracted", "searched Elsewhere", "cpu"]  # the distance's
    assert heard.count("searched Elsewhere") == heard.count("extracted") == 2
    assert all(heard[at + 1][:8] == "searched" for at, x in enumerate(heard) if x == "extracted")
