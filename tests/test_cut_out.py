"""Cut-out grows by its schedule, transforms are asked for their epoch, ratios are kept."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import Compose

from fastreid_cc.data.augment import rectangle
from fastreid_cc.data.cut_out import CutOut
from fastreid_cc.data.epoch_transform import EpochTransform, knows_epoch, transform_at
from fastreid_cc.data.fit_and_pad import FitAndPad, refuse_one_ratio
from fastreid_cc.errors import BadConfig


def covered(cut_out: CutOut, times: int = 400) -> np.ndarray:
    """Shares of a picture that patches covered."""
    random.seed(0)
    blank = Image.new("RGB", (40, 80), (300 // 2, 7, 9))
    shares = []
    for _ in range(times):
        pixels = np.asarray(cut_out(blank))
        changed = (pixels != np.asarray(blank)).any(2)
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        shares.append(0 if not len(rows) else np.ptp(rows + 1) * np.ptp(columns + 1) / 3200)
    return np.array(shares)


def test_the_largest_patch_of_each_epoch_is_that_of_the_schedule() -> None:
    largest = []
    for epoch in range(5):
        shares = covered(CutOut(prob=1.0).at_epoch(epoch, 5))
        wanted = 0.1 + 0.3 * epoch / 4
        assert 0.85 * wanted < shares.max() < 1.1 * wanted, (epoch, shares.max())
        largest.append(shares.max())
    assert largest == sorted(largest)


def test_one_epoch_has_the_first_area_and_a_shrinking_schedule_is_legal() -> None:
    assert CutOut().at_epoch(0, 1).area == 0.1
    assert [CutOut(area=1.0, last_area=0.0).at_epoch(e, 3).area for e in range(3)] == [1, 0.5, 0]


def test_the_share_of_patched_images_and_none_at_all() -> None:
    assert 0.4 < (covered(CutOut()) > 0).mean() < 0.6
    for off in (CutOut(prob=0.0), CutOut(area=0.0)):
        image = Image.new("RGB", (8, 8))
        assert off(image) is image


def test_the_patch_is_noise_and_the_input_stays() -> None:
    random.seed(1)
    pixels = np.full((64, 32, 3), 128, np.uint8)
    found = CutOut(prob=1.0, area=0.5)(pixels)
    assert isinstance(found, np.ndarray) and (pixels == 128).all()
    patch = found[(found != 128).any(2)]
    assert len(np.unique(patch)) > 100 and 110 < patch.mean() < 145


def test_a_rectangle_lies_within_the_picture() -> None:
    random.seed(0)
    for _ in range(300):
        rows, columns = rectangle(7, 5, 1.0)
        assert 0 <= rows.start < rows.stop <= 7 and 0 <= columns.start < columns.stop <= 5


class Count:
    """A transform of one's own that knows the epoch."""

    def __init__(self, told: Any = None) -> None:
        self.told = told

    def at_epoch(self, epoch: int, num_epochs: int) -> Count:
        return Count((epoch, num_epochs))

    def __call__(self, image: Any) -> Any:
        return image, self.told


def test_any_step_with_at_epoch_is_asked_and_the_list_stays() -> None:
    steps = Compose([str.upper, Count()])
    assert isinstance(steps.transforms[1], EpochTransform) and knows_epoch(steps)
    assert transform_at(steps, 3, 9)("a") == ("A", (3, 9))
    assert steps("a") == ("A", None)
    plain = Compose([str.upper])
    assert transform_at(plain, 3, 9) is plain and not knows_epoch(plain)


# ---- fit and pad -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (7, 7), (1, 300), (300, 1)])
def test_an_image_keeps_its_ratio_and_the_rest_is_the_fill(size: tuple[int, int]) -> None:
    found = FitAndPad((64, 32), (1, 2, 3))(Image.new("RGB", size, (255, 255, 255)))
    assert found.size == (32, 64)
    white = (np.asarray(found) == 255).all(2)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    scale = min(32 / size[0], 64 / size[1])
    assert abs(len(columns) - max(1, size[0] * scale)) <= 0.5
    assert abs(len(rows) - max(1, size[1] * scale)) <= 0.5
    assert (np.asarray(found)[~white] == (1, 2, 3)).all()
    assert abs(rows[0] - (63 - rows[-1])) <= 1 and abs(columns[0] - (31 - columns[-1])) <= 1


def test_an_image_of_the_frames_ratio_is_resized_as_without_it() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (128, 64, 3), np.uint8))
    plain = image.resize((32, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(FitAndPad((64, 32), (0, 0, 0))(image)), np.asarray(plain))
    assert FitAndPad((64, 32), (0, 0, 0))(image.convert("L")).mode == "RGB"


def test_ratios_that_do_not_vary_are_refused_with_counts(tmp_path: Path) -> None:
    paths = []
    for i in range(300):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("L", (48, 128)).save(paths[-1])
    with pytest.raises(BadConfig, match="all of the 256 images looked at, of 300, have one ratio"):
        refuse_one_ratio(paths, (416, 208))
    Image.new("L", (60, 128)).save(paths[-1])
    refuse_one_ratio(paths, (416, 208))


def test_the_example_of_the_docs_is_a_transform_that_knows_the_epoch() -> None:
    page = (Path(__file__).parents[1] / "docs/adding-a-part.md").read_text("utf-8")
    (source,) = re.findall(r"^```python\n(class Fading:.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102  ours
    steps = Compose([names["Fading"]()])
    first, last = (transform_at(steps, epoch, 4)(Image.new("L", (1, 1))) for epoch in (0, 3))
    assert (first.getpixel((0, 0)), last.getpixel((0, 0))) == (64, 16)
