"""The folder of `generate`: cut off anywhere it goes on to the same bytes; what it refuses."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_cc.errors import BadConfig, ClearError, UnreadableFile, Unwritable, WrongUse
from fastreid_cc.generators import workshop
from fastreid_cc.generators.base import Photos
from fastreid_cc.generators.blend import Blend
from fastreid_cc.generators.dcgan import DCGAN


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    rng, paths = np.random.default_rng(0), []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(paths[-1])
    return Photos(paths)


def a_gan(photos: Photos, channels: int = 2) -> DCGAN:
    made = DCGAN(height=32, width=16, channels=channels, noise=4, batch=2, steps=4)
    made.prepare(photos, seed=1)
    return made


def a_blend(photos: Photos) -> Blend:
    made = Blend(height=32, width=16)
    made.prepare(photos, seed=1)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Killed(BaseException):
    """Ends a call as a signal does."""


def test_a_training_cut_off_after_any_step_goes_on_to_the_same_weights(
    photos: Photos, tmp_path: Path
) -> None:
    def kill(at: int) -> Any:
        def after(step: int) -> None:
            if step == at:
                raise Killed

        return after

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    gan = a_gan(photos)
    found = workshop.train(gan, whole)
    assert set(found) == {"judge", "maker"} and all(np.isfinite(v) for v in found.values())
    for at in (1, 2):  # the step that was cut off is made again
        with pytest.raises(Killed):
            workshop.train(a_gan(photos), parts, every=0.0, after_step=kill(at))
    made = []
    last = a_gan(photos)
    workshop.train(last, parts, every=0.0, after_step=made.append)
    assert made == [2, 3]
    assert torch.equal(gan.maker[1].weight, last.maker[1].weight)
    assert (gan.draw([5])[0].pixels == last.draw([5])[0].pixels).all()
    workshop.train(a_gan(photos), parts, after_step=made.append)
    assert made == [2, 3]  # nothing is left to do


def test_writing_cut_off_shows_no_image_and_goes_on_without_drawing_whole_chunks_again(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "CHUNK", 2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    workshop.write(a_blend(photos), whole, 5)
    cut, drawn, stock = a_blend(photos), [], Blend.draw

    def draw(self: Any, numbers: Any) -> Any:
        drawn.append(list(numbers))
        if len(drawn) == 2:
            raise Killed
        return stock(self, numbers)

    monkeypatch.setattr(Blend, "draw", draw)
    with pytest.raises(Killed):
        workshop.write(cut, parts, 5)
    assert not (parts / "images").exists() and not (parts / "origins.csv").exists()
    workshop.write(a_blend(photos), parts, 5)
    assert drawn == [[0, 1], [2, 3], [2, 3], [4]]
    assert content(parts / "images") == content(whole / "images")
    lines = (parts / "origins.csv").read_text().splitlines()
    assert len(lines) == 6 and lines[0] == "image,made of,how"
    for line in lines[1:]:
        image, origins, how = line.split(",")
        assert Path(image).is_file() and len(origins.split(" | ")) == 2 and "of the second" in how
    assert sorted(p.name for p in (parts / "images").iterdir()) == [
        f"blend_{i:07d}.png" for i in range(5)
    ]


def test_a_folder_is_for_one_order(tmp_path: Path) -> None:
    out, order = tmp_path / "out", {"CC.SEED": 1, "--count": 5, "sizes": (1, 2)}
    assert not workshop.claim(out, order) and not workshop.claim(out, order)
    with pytest.raises(WrongUse, match=r"holds other images: --count differ"):
        workshop.claim(out, {**order, "--count": 6})
    (out / "images").mkdir()
    assert workshop.claim(out, order)
    (out / "generate.json").write_text("[1")
    with pytest.raises(WrongUse, match=r"--count, CC\.SEED, sizes differ"):
        workshop.claim(out, order)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    with pytest.raises(WrongUse, match="holds files, but no generate.json"):
        workshop.claim(tmp_path / "mine", order)


def test_a_full_disk_is_told_before_and_amid_the_work(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    workshop.require_room(tmp_path, 2, 32 * 16)
    with pytest.raises(Unwritable, match=r"9 images take up to 0\.0 MB, and 0\.0 MB are free"):
        workshop.require_room(tmp_path, 9, 32 * 16)

    def full(self: Any, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(Unwritable, match=r"No space left.*give the same command again"):
        with workshop.room_in(tmp_path):
            workshop.write(a_blend(photos), tmp_path, 3)
    with pytest.raises(RuntimeError, match="another fault"), workshop.room_in(tmp_path):
        raise RuntimeError("another fault")


def test_a_loss_that_is_not_finite_ends_the_training_and_is_not_saved(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DCGAN, "train_step", lambda self, step: {"judge": torch.tensor(np.nan)})
    with pytest.raises(ClearError, match=r"diverged before step 4, judge=nan.*CC.GENERATE.DCGAN"):
        workshop.train(a_gan(photos), tmp_path, every=0.0)
    assert not (tmp_path / "checkpoint.pth").exists()


def test_a_checkpoint_that_is_damaged_or_of_other_networks_is_refused(
    photos: Photos, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth"
    workshop.save(a_gan(photos), path, 3)
    with pytest.raises(BadConfig, match="does not fit the keys of CC.GENERATE.DCGAN"):
        workshop.restore(a_gan(photos, channels=3), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableFile, match="damaged or no checkpoint"):
        workshop.restore(a_gan(photos), path)


def test_the_picture_shows_real_images_above_made_ones(photos: Photos, tmp_path: Path) -> None:
    for made, rows in ((a_gan(photos), 2), (a_blend(photos), 3)):
        workshop.compare(made, photos, tmp_path / "beside.png", columns=3)
        picture = np.asarray(Image.open(tmp_path / "beside.png"))
        assert picture.shape == (4 * rows * (32 + 4), 4 * 3 * (16 + 4), 3)  # four times as large
        first = made.draw([0])[0]
        above = photos.paths.index(first.origins[0]) if first.origins else 0
        assert (picture[: 4 * 32 : 4, : 4 * 16 : 4] == photos.pixels([above], 32, 16)[0]).all()
        below = picture[4 * (rows - 1) * 36 :: 4][:32, : 4 * 16 : 4]
        assert (below == made.draw([0, 1, 2])[0].pixels).all()
