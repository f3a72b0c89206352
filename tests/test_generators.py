"""Blends, DCGAN and pose transfer: what they make of which images, and that training acts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastreid_cc.data.people import people_of
from fastreid_cc.errors import BadConfig, MissingData
from fastreid_cc.generators.adversarial import Average, set_rate
from fastreid_cc.generators.base import Photos, to_pixels, to_tensor
from fastreid_cc.generators.blend import Blend
from fastreid_cc.generators.dcgan import DCGAN
from fastreid_cc.generators.pose_transfer import PoseTransfer
from fastreid_cc.networks.image_translation import PatchJudge, ResidualTranslator

PEOPLE = np.array([0, 0, 0, 1, 1, 2, -1])


def files(folder: Path, colours: np.ndarray, height: int = 32, width: int = 24) -> list[str]:
    """An image of one colour each, with two rows of its own."""
    paths = []
    for i, colour in enumerate(colours):
        pixels = np.tile(np.uint8(colour), (height, width, 1))
        pixels[i : i + 2] = 255 - pixels[0, 0]
        paths.append(str(folder / f"{i:02d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    colours = np.random.default_rng(1).integers(0, 256, (7, 3))
    return files(tmp_path, colours)


def a_pose(x: float) -> np.ndarray:
    """A standing figure leaning by x, seen whole, in pixels of 32x24."""
    rows = np.linspace(2, 30, 18)
    return np.stack([12 + x + 3 * np.sin(rows + x), rows, np.ones(18)], 1).astype(np.float32)


def poses_of(paths: list[str]) -> dict[str, np.ndarray]:
    return {path: a_pose(i - 3) for i, path in enumerate(paths)}


@pytest.mark.parametrize("mode", ["mix", "paste"])
def test_a_blend_is_of_two_people_in_the_share_it_says(paths: list[str], mode: str) -> None:
    blend = Blend(mode=mode, height=32, width=24)
    photos = Photos(paths, PEOPLE)
    blend.prepare(photos, seed=5)
    shares = []
    for made in blend.draw(range(40)):
        first, second = (paths.index(path) for path in made.origins)
        assert PEOPLE[first] != PEOPLE[second] and min(PEOPLE[[first, second]]) >= 0
        a, b = photos.pixels([first, second], 32, 24).astype(float)
        share = float(made.note.split()[0])
        shares.append(share)
        if mode == "mix":
            assert np.abs(made.pixels - (a + share * (b - a))).max() < 0.7
        else:
            taken = (made.pixels != a).any(-1)
            assert (made.pixels[taken] == b[taken]).all() and taken.mean() <= share + 5e-4
            rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
            box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / taken.size
            assert box == pytest.approx(share, abs=0.1)
    assert min(shares) > 0.27 and max(shares) < 0.73 and np.ptp(shares) > 0.2


def test_without_people_any_two_images_are_blended(paths: list[str]) -> None:
    blend = Blend(height=32, width=24)
    blend.prepare(Photos(paths), seed=5)
    assert {paths.index(o) for d in blend.draw(range(40)) for o in d.origins} == set(range(7))
    blend = Blend()
    with pytest.raises(BadConfig, match=r"found 3 images, 2 of them of people known, of 1 person"):
        blend.prepare(Photos(paths[:3], np.array([4, 4, -1])), seed=5)


def test_pixels_come_back_and_a_damaged_image_is_named(paths: list[str], tmp_path: Path) -> None:
    pixels = Photos(paths).pixels([3, 1], 32, 24)
    assert (to_pixels(to_tensor(pixels, torch.device("cpu"))) == pixels).all()
    Path(paths[2]).write_bytes(b"no image")
    with pytest.raises(MissingData, match=r"02\.png cannot be read"):
        Photos(paths).pixels([2], 32, 24)


def test_people_are_those_of_a_table_or_of_a_rule(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("t1/a.png", "t1/b.png", "t2/a.png", "x.png")]
    assert people_of(paths, "folder:0", "K").tolist() == [0, 0, 1, -1]
    assert people_of(paths, "([ab]).png$", "K").tolist() == [0, 1, 0, -1]
    table = tmp_path / "clusters.csv"
    table.write_text(f"image,cluster,camera\n{paths[2]},7,0\n{paths[0]},3,0\n{paths[1]},-1,0\n")
    assert people_of(paths, str(table), "K").tolist() == [0, -1, 1, -1]
    for by, words in (
        ("track(\\d+)", "names nobody on 4 images, e.g. 't1/a.png'"),
        ("a(b", "no regex"),
        (str(tmp_path / "none.csv"), "No such file"),
        (paths[0].replace("png", "csv"), "No such file"),
    ):
        with pytest.raises(BadConfig, match=words):
            people_of(paths, by, "CC.GENERATE.PEOPLE")
    table.write_text("image,label\na,1\n")
    with pytest.raises(BadConfig, match="columns image and cluster"):
        people_of(paths, str(table), "K")


def test_dcgan_learns_the_colour_of_its_images(tmp_path: Path) -> None:
    red = files(tmp_path, np.full((8, 3), (230, 40, 40)), 32, 16)
    gan = DCGAN(height=32, width=16, channels=4, noise=8, batch=8, steps=60, rate=0.005)
    gan.prepare(Photos(red), seed=1)
    gan.drawing.momentum = 0.5
    start = np.stack([d.pixels for d in gan.draw(range(8))]).mean((0, 1, 2))
    for step in range(30):
        gan.train_step(step)
    end = np.stack([d.pixels for d in gan.draw(range(8))]).mean((0, 1, 2))
    assert np.ptp(start) < 30 < 60 < end[0] - end[1:].mean()


def test_sizes_that_cannot_be_halved_are_refused(paths: list[str]) -> None:
    photos = Photos(paths, PEOPLE, poses_of(paths))
    with pytest.raises(BadConfig, match=r"DCGAN.HEIGHT=40, WIDTH=16.*multiples of 16"):
        DCGAN(height=40, width=16, batch=2).prepare(photos, seed=1)
    with pytest.raises(BadConfig, match=r"POSE_TRANSFER.HEIGHT=34, WIDTH=24.*multiples of 4"):
        PoseTransfer(height=34, width=24).prepare(photos, seed=1)


def test_the_average_forgets_its_start_and_the_rate_falls_to_zero() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
        average = Average(network, 0.999)
        network.weight.fill_(1.0)
    expected = 0.0
    for step in range(3):
        average.follow(network, step)
        old = (1 + step) / (10 + step)
        expected = old * expected + 1 - old
    assert average.network.weight.item() == pytest.approx(expected) and expected > 0.99
    optimizer = torch.optim.SGD(network.parameters(), lr=9.0)
    found = []
    for step in (0, 50, 75, 99):
        set_rate(optimizer, 0.2, step, 100)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.2, 0.2, 0.1, 0.004])


@pytest.mark.parametrize(
    ("channels", "blocks", "millions"),
    [(64, 9, 11.39), (32, 6, 1.97), (32, 9, 2.86), (16, 4, 0.35)],
)
def test_the_translator_has_the_published_size(channels: int, blocks: int, millions: float) -> None:
    with torch.device("meta"):
        network = ResidualTranslator(6, channels, blocks)
    count = sum(weight.numel() for weight in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.011)


@pytest.mark.parametrize("size", [(32, 24), (64, 32), (112, 55), (56, 56), (128, 64)])
def test_the_judge_of_patches_takes_narrow_pictures(size: tuple[int, int]) -> None:
    scores = PatchJudge(2, size)(torch.randn(2, 3, *size))
    published = [side // 8 - 6 for side in size]  # without borders, from 56 pixels on
    assert scores.shape[2:] == tuple(published if min(size) >= 56 else (s // 8 - 2 for s in size))
    assert scores.shape[:2] == (2, 1) and scores.std() > 0


def a_transfer(paths: list[str], **arguments: object) -> PoseTransfer:
    small = {"height": 32, "width": 24, "channels": 8, "blocks": 1, "views": 2, "batch": 2}
    made = PoseTransfer(**{**small, **arguments})  # type: ignore[arg-type]
    made.prepare(Photos(paths, PEOPLE, poses_of(paths)), seed=2)
    return made


def test_pairs_are_of_one_person_and_their_targets_have_poses(paths: list[str]) -> None:
    made = PoseTransfer(height=32, width=24, channels=1, blocks=0, views=2)
    poses = poses_of(paths)
    del poses[paths[1]]
    made.prepare(Photos(paths, PEOPLE, poses), seed=2)
    assert {tuple(pair) for pair in made.found.tolist()} == {
        (1, 0), (2, 0), (0, 2), (1, 2), (3, 4), (4, 3),
    }  # fmt: skip
    few = a_transfer(paths, pairs=2).found
    assert len(few) == 4 and (PEOPLE[few[:, 0]] == PEOPLE[few[:, 1]]).all()
    with pytest.raises(
        BadConfig, match=r"no such pair among 2 images of 2 people known, 2 of them"
    ):
        PoseTransfer(views=1).prepare(Photos([paths[0], paths[3]], np.array([0, 1]), poses), seed=2)
    twice = Photos([paths[0], paths[0].replace("00.png", "sub/00.png")], np.zeros(2, int), poses)
    with pytest.raises(BadConfig, match="2 images are called '00'"):
        PoseTransfer().prepare(twice, seed=2)


@pytest.mark.parametrize("pose", ["skeleton", "maps"])
def test_the_losses_of_a_step_are_those_of_the_formula(paths: list[str], pose: str) -> None:
    made = a_transfer(paths, pose=pose, steps=10)
    chosen = made.found[made.drawn(0).integers(len(made.found), size=2)]
    source, target = (to_tensor(made.photos.pixels(rows, 32, 24), made.device) for rows in chosen.T)
    maps = made._maps(np.stack([made.poses[row] for row in chosen[:, 1].tolist()]))
    assert maps.shape == (2, 3 if pose == "skeleton" else 18, 32, 24)
    assert float(maps.min()) == -1 and 0.5 < float(maps.max()) <= 1
    with torch.no_grad():
        picture = made.maker(torch.cat([source, maps], 1))
        judged = (made.judge(source) - 1).square().mean() + made.judge(picture).square().mean()
    told = made.train_step(0)
    with torch.no_grad():
        fooled = (made.judge(picture) - 1).square().mean()  # by the judge that has just learnt
    torch.testing.assert_close(told["L1"], F.l1_loss(picture, target))
    torch.testing.assert_close(told["judge"], judged)
    torch.testing.assert_close(told["maker"], fooled)


def test_pose_transfer_learns_pairs_better_than_copying_and_looks_at_the_pose(
    paths: list[str],
) -> None:
    """By heart to L1 .05 takes 1,400 steps of 64x32, see PoseTransfer. Here a few dozen."""
    made = a_transfer(paths[:3], steps=80, batch=6, rate=0.003)
    source, target = (made.photos.pixels(rows, 32, 24) / 127.5 for rows in made.found.T)
    losses = [float(made.train_step(step)["L1"]) for step in range(40)]
    assert losses[-1] < 0.5 * losses[0] and losses[-1] < np.abs(source - target).mean()
    one, other = made.draw([0, 1])
    assert [one.name, other.name] == ["00_to_1.png", "00_to_2.png"] and one.origins == (paths[0],)
    assert (one.pixels != other.pixels).any()


def test_a_trained_one_makes_views_of_images_without_people_and_poses(paths: list[str]) -> None:
    made = a_transfer(paths, steps=4)
    made.train_step(0)
    other = PoseTransfer(height=32, width=24, channels=8, blocks=1, views=2)
    other.prepare(Photos(paths[:1], shown=paths[5:]), seed=9, learns=False)
    other.load_state_dict(made.state_dict())
    assert other.capacity == 6 and [d.name for d in other.draw([2, 5])] == [
        "05_to_1.png",
        "06_to_2.png",
    ]
    for mine, theirs in zip(other.draw([0, 3]), made.draw([0, 11]), strict=True):
        assert mine.name == theirs.name and (mine.pixels == theirs.pixels).all()
    with pytest.raises(ValueError, match="2 canonical poses, wanted 3"):
        third = PoseTransfer(height=32, width=24, channels=8, blocks=1, views=3)
        third.prepare(Photos(paths), seed=9, learns=False)
        third.load_state_dict(made.state_dict())
