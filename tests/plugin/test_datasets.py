"""The plug-in's data sets and augmentation, as stock fastreid meets them."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import config

from fastreid_cc.config import all_keys
from fastreid_cc.data.items import truth
from fastreid_cc.data.naming import FolderOptions
from fastreid_cc.data.synthetic import SyntheticOptions
from fastreid_cc.registry import keyword_arguments

TINY = {"train_ids": 3, "test_ids": 2, "cameras": 2, "images_per_camera": 2, "height": 32}


@pytest.fixture(autouse=True)
def options_as_before(plugin: None) -> Any:
    """Options of one test are not those of the next."""
    datasets = importlib.import_module("fastreid_cc.plugin.loading.datasets")
    before = dict(datasets._current)
    yield
    datasets._current.update(before)


def registry() -> Any:
    return importlib.import_module("fastreid.data.datasets").DATASET_REGISTRY


def test_the_config_reaches_the_synthetic_set(data_root: Path, tmp_path: Path) -> None:
    datasets = importlib.import_module("fastreid_cc.plugin.loading.datasets")
    cfg = config(tmp_path, "CC.SYNTHETIC.TRAIN_IDS", 3, "CC.SYNTHETIC.SEED", 9)
    datasets.configure_from(cfg)
    data = registry().get("SyntheticReID")(root=str(data_root))
    assert len(data.train) == 3 * 2 * 3 and len(data.query) == 4 * 2
    assert "seed9-ids3+4" in data.train[0][0]
    assert set(truth(data.train)) == {0, 1, 2}


def test_a_stock_supervised_loader_reads_the_synthetic_set(data_root: Path, tmp_path: Path) -> None:
    build = importlib.import_module("fastreid.data.build")
    datasets = importlib.import_module("fastreid_cc.plugin.loading.datasets")
    datasets.configure(synthetic=SyntheticOptions(**TINY, width=16))
    cfg = config(tmp_path, "DATASETS.NAMES", "('SyntheticReID',)", "CC.ENABLED", False)
    loader = build.build_reid_train_loader(cfg)
    assert loader.dataset.num_classes == 3 and loader.dataset.num_cameras == 2
    batch = next(iter(loader))
    assert batch["images"].shape == (8, 3, 32, 16)
    assert set(batch["targets"].tolist()) <= {0, 1, 2}
    test_loader, num_query = build.build_reid_test_loader(cfg, dataset_name="SyntheticReID")
    assert num_query == 4 and len(test_loader.dataset) == 8
    assert isinstance(test_loader.dataset[0]["targets"], int)


def test_a_folder_s_placeholders_are_as_many_classes_as_images(tmp_path: Path) -> None:
    """So a stock trainer sees no identity, and mixing with a stock set (strings too) works."""
    common = importlib.import_module("fastreid.data.common")
    datasets = importlib.import_module("fastreid_cc.plugin.loading.datasets")
    for i in range(4):
        Image.new("RGB", (8, 16), (i, i, i)).save(tmp_path / f"{i}.png")
    datasets.configure(folder=FolderOptions(root="."))
    data = registry().get("UnlabeledFolder")(root=str(tmp_path))
    assert common.CommDataset(data.train, None).num_classes == 4
    mixed = [*data.train, ("x.jpg", "market1501_7", "market1501_0")]
    assert common.CommDataset(mixed, None).num_classes == 5
    assert data.query == [] and data.gallery == []
    data.show_train()
    data.show_test()


def test_every_option_is_a_key_with_a_description() -> None:
    keys = all_keys()
    assert keys["CC.FOLDER.MAX_BAD_SHARE"].default == 0.05
    assert "left out" in keys["CC.FOLDER.MAX_BAD_SHARE"].help
    for name, default in keyword_arguments(SyntheticOptions).items():
        assert keys[f"CC.SYNTHETIC.{name.upper()}"].default == default


def test_lists_from_yaml_become_tuples_and_faults_name_the_key(tmp_path: Path) -> None:
    datasets = importlib.import_module("fastreid_cc.plugin.loading.datasets")
    cfg = config(
        tmp_path,
        "CC.FOLDER.ROOT",
        "r",
        "CC.FOLDER.CAMERA",
        "(.)",
        "CC.FOLDER.IDENTITY",
        "(.)",
        "CC.FOLDER.TEST_INCLUDE",
        ".",
        "CC.FOLDER.QUERY_CAMERAS",
        "[1, '02']",
    )
    datasets.configure_from(cfg)
    assert datasets._current["folder"].query_cameras == (1, "02")
    bad = config(tmp_path, "CC.FOLDER.ROOT", "r", "CC.FOLDER.CAMERA", "c(")
    with pytest.raises(ValueError, match=r"CC\.FOLDER\.CAMERA='c\('"):
        datasets.configure_from(bad)
    with pytest.raises(TypeError, match="FolderOptions"):
        datasets.configure(folder=SyntheticOptions())


def transforms(cfg: Any, is_train: bool = True) -> list[Any]:
    build = importlib.import_module("fastreid.data.build")
    return build.build_transforms(cfg, is_train).transforms


def test_augmentation_stands_before_the_tensor_and_only_in_training(tmp_path: Path) -> None:
    cfg = config(
        tmp_path,
        "INPUT.COLOR_ROBUST.ENABLED",
        True,
        "INPUT.COLOR_ROBUST.GAMMA",
        0.3,
        "INPUT.REA.ENABLED",
        True,
    )
    names = [type(step).__name__ for step in transforms(cfg)]
    assert names.index("ColorRobust") == names.index("ToTensor") - 1
    assert names.index("RandomErasing") > names.index("ToTensor")
    assert transforms(cfg)[names.index("ColorRobust")].gamma == 0.3
    assert "ColorRobust" not in [type(s).__name__ for s in transforms(cfg, is_train=False)]


def test_without_it_the_stock_images_come_out_bit_by_bit(tmp_path: Path) -> None:
    stock = importlib.import_module("fastreid.data.transforms.build").build_transforms.__wrapped__
    cfg = config(tmp_path, "INPUT.COLOR_ROBUST.ENABLED", False, "INPUT.REA.ENABLED", True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)
    results = []
    for build in (stock, importlib.import_module("fastreid.data.build").build_transforms):
        random.seed(1)
        torch.manual_seed(1)
        np.random.seed(1)
        results.append(build(cfg, True)(Image.fromarray(noise)))
    assert torch.equal(*results)


def test_augmentation_out_of_range_names_its_key(tmp_path: Path) -> None:
    cfg = config(tmp_path, "INPUT.COLOR_ROBUST.ENABLED", True, "INPUT.COLOR_ROBUST.PROB", 2.0)
    with pytest.raises(ValueError, match=r"INPUT\.COLOR_ROBUST\.PROB=2\.0"):
        transforms(cfg)


def test_every_place_in_fastreid_builds_the_same_transforms() -> None:
    build = importlib.import_module("fastreid.data.transforms.build").build_transforms
    for name in (
        "fastreid.data.transforms",
        "fastreid.data.build",
        "fastreid_cc.plugin.trainer.builders",
    ):
        assert importlib.import_module(name).build_transforms is build


def vehicles(root: Path, *names: str) -> Path:
    """A stand-in of VehicleX below `root`."""
    folder = root / "vehiclex" / "AIC20_ReID_Simulation" / "image_train"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def test_vehiclex_is_a_labelled_source_without_test_images(tmp_path: Path) -> None:
    cls = registry().get("VehicleX")
    with pytest.raises(RuntimeError, match="image_train"):
        cls(root=str(tmp_path))
    folder = vehicles(tmp_path)
    with pytest.raises(ValueError, match=r"holds no \.jpg image.*0001_c006_33\.jpg"):
        cls(root=str(tmp_path))
    vehicles(tmp_path, "0007_c036_2.jpg", "0001_c006_33.jpg", "0001_c010_4.jpg")
    data = cls(root=str(tmp_path))
    assert data.query == [] and data.gallery == []
    assert [(Path(path).name, who, camera) for path, who, camera in data.train] == [
        ("0001_c006_33.jpg", "vehiclex_1", "vehiclex_5"),
        ("0001_c010_4.jpg", "vehiclex_1", "vehiclex_9"),
        ("0007_c036_2.jpg", "vehiclex_7", "vehiclex_35"),
    ]
    (folder / "notes.jpg").touch()
    with pytest.raises(ValueError, match=r"notes\.jpg is not named like"):
        cls(root=str(tmp_path))


def test_doctor_counts_vehiclex(tmp_path: Path) -> None:
    from fastreid_cc.data.published import PUBLISHED

    (known,) = (known for known in PUBLISHED if known.name == "VehicleX")
    assert known.count(tmp_path) is None
    vehicles(tmp_path, "0001_c006_33.jpg", "0002_c006_33.jpg")
    assert known.count(tmp_path) == (2, 0, 0)
