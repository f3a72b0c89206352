"""Camera styles: each camera as often, ready-made images where they are, statistics elsewhere."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreid_cc.data.camera_style import StyleFolder, StyleStatistics


def picture(path: Path, level: tuple[int, int, int], spread: int = 20, seed: int = 0) -> str:
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, (64, 32, 3))
    Image.fromarray(np.clip(np.array(level) + noise, 0, 255).astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def shots(tmp_path: Path) -> list[str]:
    folder = tmp_path / "real"
    folder.mkdir()
    levels = [(60, 80, 100), (150, 120, 90), (200, 200, 100)]
    return [
        picture(folder / f"{i // 3:04d}_c{i % 3 + 1}s1_{i:06d}_00.png", levels[i % 3], seed=i)
        for i in range(9)
    ]


def fakes(tmp_path: Path, names: list[str]) -> str:
    folder = tmp_path / "camstyle"
    folder.mkdir()
    for n, name in enumerate(names):
        picture(folder / f"{name}.png", (n + 1, 0, 0), spread=0)
    return str(folder)


@pytest.mark.parametrize("form", ["{stem}_fake_1to{c}", "{stem}_fake_{c}"])
def test_real_and_transfers_come_equally_often(form: str, tmp_path: Path, shots: list[str]) -> None:
    stem = Path(shots[0]).stem
    names = [form.format(stem=stem, c=c) for c in (2, 3)] + [f"{stem}_fake_1to1", "other_fake_2"]
    style = StyleFolder(fakes(tmp_path, names), shots)
    assert style.num_without == 8
    image = Image.open(shots[0]).convert("RGB")
    random.seed(0)
    drawn = [np.asarray(style(image, shots[0], 0))[0, 0, 0] for _ in range(900)]
    counts = [drawn.count(level) for level in (1, 2)]
    assert all(240 < count < 360 for count in counts)
    assert sum(counts) + drawn.count(np.asarray(image)[0, 0, 0]) == 900
    assert style(image, shots[1], 1) is image  # no transfer of this one


def test_a_transfer_takes_the_size_of_its_image(tmp_path: Path, shots: list[str]) -> None:
    style = StyleFolder(fakes(tmp_path, [f"{Path(shots[0]).stem}_fake_1to2"]), shots[:1])
    image = Image.open(shots[0]).resize((20, 30))
    random.seed(0)
    assert {style(image, shots[0], 0).size for _ in range(8)} == {(20, 30)}


def test_a_folder_without_transfers_says_what_names_it_wants(
    tmp_path: Path, shots: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"0000_c1s1_000000_00_fake_1to2\.jpg.*statistics"):
        StyleFolder(fakes(tmp_path, ["other_fake_1to2"]), shots)
    with pytest.raises(ValueError, match=r"CC\.CAMSTYLE\.FOLDER='' is no folder"):
        StyleFolder("", shots)


def test_statistics_carry_an_image_to_the_mean_and_spread_of_another_camera(
    shots: list[str],
) -> None:
    style = StyleStatistics(shots, np.arange(9) % 3)
    image = Image.open(shots[0]).convert("RGB")
    random.seed(1)
    means = np.array(
        [np.asarray(style(image, shots[0], 0), dtype=float).mean((0, 1)) for _ in range(300)]
    )
    wanted = np.array([(60, 80, 100), (150, 120, 90), (200, 200, 100)])
    nearest = np.abs(means[:, None] - wanted).max(2)  # [300, 3]
    assert nearest.min(1).max() < 6
    assert np.bincount(nearest.argmin(1), minlength=3).min() > 70


def test_one_camera_or_an_unknown_one_leaves_images_alone(shots: list[str]) -> None:
    image = Image.open(shots[0]).convert("RGB")
    assert StyleStatistics(shots, np.zeros(9, dtype=np.int64))(image, shots[0], 0) is image
    assert StyleStatistics(shots, np.arange(9) % 3)(image, shots[0], 7) is image
    with pytest.raises(ValueError, match=r"CC\.CAMSTYLE\.IMAGES_PER_CAMERA=0"):
        StyleStatistics(shots, np.arange(9), images_per_camera=0)


def test_the_same_seed_gives_the_same_bytes_and_the_input_stays(shots: list[str]) -> None:
    image = Image.open(shots[0]).convert("RGB")
    before = image.tobytes()
    found = []
    for _ in range(2):
        style = StyleStatistics(shots, np.arange(9) % 3, images_per_camera=2, seed=3)
        random.seed(5)
        found.append([style(image, shots[0], 0).tobytes() for _ in range(5)])
    assert found[0] == found[1] and len(set(found[0])) > 1
    assert image.tobytes() == before
