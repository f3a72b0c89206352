"""Labelled folders as sources: CC.SOURCES.FOLDERS.<NAME>, beside or instead of data sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from source_runs import JOINT, watched
from tiny_runs import build, config, metrics, train

pytestmark = pytest.mark.usefixtures("plugin")
IDENTITY = r"^(\d+)_c"


def draw(folder: Path, people: int, seed: int, *, cameras: int = 2, images: int = 3) -> Path:
    """Crops <person>_c<camera>_<shot>.png: a colour for each person, with noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for person in range(people):
        colour = rng.integers(0, 256, 3)
        for camera in range(cameras):
            for shot in range(images):
                noise = rng.integers(-40, 41, (32, 16, 3))
                picture = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
                picture.save(folder / f"{person:02d}_c{camera}_{shot}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled folders, shop and yard, and an unlabelled one."""
    root = tmp_path_factory.mktemp("source_folders")
    draw(root / "shop", 8, 1)
    draw(root / "yard", 6, 2)
    draw(root / "unlabelled", 8, 3)
    return root


def folder(name: str, root: Path, *more: object) -> tuple[object, ...]:
    """Pairs that make a folder a source."""
    node = f"CC.SOURCES.FOLDERS.{name}"
    rules = (f"{node}.IDENTITY", IDENTITY, f"{node}.CAMERA", r"_c(\d)_")
    return (f"{node}.ROOT", root, *rules, *more)


def target(folders: Path) -> tuple[object, ...]:
    """Pairs that make the unlabelled folder the target."""
    sets = ("DATASETS.NAMES", "('UnlabeledFolder',)", "DATASETS.TESTS", "()")
    return (*sets, "CC.FOLDER.ROOT", folders / "unlabelled", "CC.FOLDER.CAMERA", r"_c(\d)_")


@pytest.fixture
def registered(folders: Path) -> Iterator[None]:
    """The same labelled images as data sets SHOP and YARD of fastreid, with other words for who."""
    from fastreid.data.datasets import DATASET_REGISTRY
    from fastreid.data.datasets.bases import ImageDataset

    def data_set(name: str) -> type:
        def init(self: Any, root: str = "", **kwargs: Any) -> None:
            paths = sorted((folders / name.lower()).glob("*.png"))
            items = [(str(p), f"{name} {p.name[:2]}", f"{name} {p.name[3:5]}") for p in paths]
            ImageDataset.__init__(self, items, [], [], **kwargs)

        return type(name, (ImageDataset,), {"__init__": init})

    for name in ("SHOP", "YARD"):
        DATASET_REGISTRY.register(data_set(name))
    yield
    for name in ("SHOP", "YARD"):
        del DATASET_REGISTRY._obj_map[name]


def test_two_folders_train_as_two_registered_data_sets_do_to_the_byte(
    tmp_path: Path, folders: Path, registered: None
) -> None:
    """RDSBN with SpCL's memory: domains, classes, cameras, fingerprints are the same."""
    common = (*JOINT, *target(folders), "SOLVER.MAX_EPOCH", 2, "CC.SOURCES.NAMES")
    train(config(tmp_path / "a", *common, "('SHOP','YARD')"))
    both = (*folder("YARD", folders / "yard"), *folder("SHOP", folders / "shop"))
    train(config(tmp_path / "b", *common, "()", *both))
    a, b = ((tmp_path / name / "model_final.pth").read_bytes() for name in "ab")
    assert a == b
    with pytest.raises(ValueError, match=r"sources SHOP, YARD; CC\.SOURCES holds YARD\."):
        build(config(tmp_path / "b", *common, "('YARD',)"), resume=True)


def test_the_shipped_config_learns_from_one_folder_and_then_from_the_other(
    tmp_path: Path,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import tiny_runs

    shipped = tiny_runs.ROOT / "configs" / "OwnImages" / "uda_pretrain-cc_osnet_x0_25.yml"
    monkeypatch.setattr(tiny_runs, "YAML", shipped)
    words = (*folder("SOURCE", folders / "shop"), *target(folders), "SOLVER.MAX_EPOCH", 3)
    words += ("CC.SOURCES.PRETRAIN_EPOCHS", 1, "CC.SOURCES.IMS_PER_BATCH", 8)
    with caplog.at_level(logging.INFO, "fastreid.cc"):
        trainer, batches, losses = watched(tmp_path, monkeypatch, *words)
    assert "labelled sources: SOURCE: 48 images of 8 identities by 2 cameras" in caplog.text
    assert "epoch 0: source labels; pseudo-labels from epoch 1 on" in caplog.text
    for batch, found in zip(batches, losses, strict=True):
        is_source = "loss_cls_source" in found
        assert is_source == all("/shop/" in path for path in batch["img_paths"])
        assert is_source != all("/unlabelled/" in path for path in batch["img_paths"])
    assert ["loss_cls_source" in found for found in losses] == [True] * 2 + [False] * 4
    assert trainer._hooks[0].images.sources.cameras.min() == 2  # above the target's 0 and 1
    assert any("cc/num_clusters" in line for line in metrics(tmp_path))


def collected(cfg: Any) -> Any:
    from fastreid_cc.plugin.loading.collect_sources import collect_sources
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.target_images import collect_images

    configure_from(cfg)
    return collect_sources(cfg, collect_images(cfg))


def test_folders_come_after_data_sets_in_the_order_of_their_names(
    tmp_path: Path, folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One identity's name in two folders is two individuals; test and unnamed images stay out."""
    more = ("CC.SOURCES.FOLDERS.YARD.TEST_INCLUDE", "^0[45]_")
    words = (*JOINT, *target(folders), "CC.SOURCES.NAMES", "('SyntheticSource',)")
    words += (*folder("YARD", folders / "yard", *more), *folder("SHOP", folders / "shop"))
    words += ("CC.SOURCES.FOLDERS.SHOP.IDENTITY", r"^(\d*[1-7])_c")
    found = collected(config(tmp_path, *words))
    assert found.names == ("SyntheticSource", "SHOP", "YARD")
    classes = [len(np.unique(found.classes[found.domains == d])) for d in (1, 2, 3)]
    assert classes == [8, 7, 4] and found.num_classes == 19
    assert "SHOP: 6 of 48 images have no identity: left out" in caplog.text
    assert not any("/yard/04" in path for path in found.paths)


def test_a_folder_keeps_its_fingerprint_when_it_moves_and_loses_it_when_it_changes(
    tmp_path: Path, folders: Path
) -> None:
    def prints(root: Path, *more: object) -> dict[str, str]:
        cfg = config(tmp_path, *JOINT, *target(folders), "CC.SOURCES.NAMES", "()")
        cfg = cfg.clone()
        cfg.defrost()
        cfg.merge_from_list(list(map(str, folder("SHOP", root, *more))))
        return collected(cfg).fingerprints()

    here, moved = prints(folders / "shop"), draw(tmp_path / "moved", 8, 1)
    assert list(here) == ["SHOP"] and prints(moved) == here
    assert prints(moved, "CC.SOURCES.FOLDERS.SHOP.IDENTITY", r"^\d(\d)_c") == here
    assert prints(moved, "CC.SOURCES.FOLDERS.SHOP.EXCLUDE", "^03_c0_1") != here
    assert prints(moved, "CC.SOURCES.FOLDERS.SHOP.IDENTITY", r"^\d+_(c\d_\d)") != here


def test_identities_of_a_folder_are_held_out_for_validation(tmp_path: Path, folders: Path) -> None:
    words = (*JOINT, *target(folders), "CC.SOURCES.NAMES", "()", *folder("SHOP", folders / "shop"))
    found = collected(config(tmp_path, *words, "CC.SOURCES.VALIDATION", 0.25))
    assert (found.num_classes, found.held_out.num_classes) == (6, 2)
    assert not set(found.paths) & set(found.held_out.paths)


def test_a_yaml_names_folders_and_a_pair_changes_one_of_their_keys(tmp_path: Path) -> None:
    from fastreid.config import get_cfg

    (tmp_path / "base.yml").write_text(
        "CC: {SOURCES: {FOLDERS: {SHOP: {ROOT: a, CAMERA: '_c(\\d)_'}, YARD: {ROOT: b}}}}\n"
    )
    (tmp_path / "leaf.yml").write_text(
        "_BASE_: base.yml\nCC: {SOURCES: {FOLDERS: {YARD: {ROOT: c, QUERY_CAMERAS: ['1']}}}}\n"
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "leaf.yml"))
    cfg.merge_from_list(["CC.SOURCES.FOLDERS.SHOP.IDENTITY", r"(\d+)\b_"])
    found = cfg.CC.SOURCES.FOLDERS
    assert (found.SHOP.ROOT, found.SHOP.CAMERA, found.SHOP.IDENTITY) == (
        "a",
        r"_c(\d)_",
        r"(\d+)\b_",
    )
    assert (found.YARD.ROOT, found.YARD.QUERY_CAMERAS) == ("c", ("1",))
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    assert dict(again.CC.SOURCES.FOLDERS) == {}  # the defaults hold no folder of another config
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again == cfg


def test_unreadable_images_of_a_source_are_reported_with_its_key(tmp_path: Path) -> None:
    root = draw(tmp_path / "torn", 8, 1)
    for path in sorted(root.iterdir())[:5]:
        path.write_bytes(b"")
    words = (*JOINT, "CC.SOURCES.NAMES", "()", *folder("SHOP", root))
    with pytest.raises(ValueError, match=r"more than CC\.SOURCES\.FOLDERS\.SHOP\.MAX_BAD_SHARE"):
        collected(config(tmp_path, *words))
