"""Synthetic pedestrians: the same bytes every time, a sound protocol, cameras of another form."""

import hashlib
import multiprocessing
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from histogram import evaluate_histograms
from PIL import Image

from fastreid_cc.data.synthetic import (
    STYLES,
    Pose,
    StyledOptions,
    SyntheticOptions,
    build,
    build_synthetic,
    draw_figure,
    draw_picture,
    read_market,
    sample_camera,
    sample_identity,
)

SMALL = SyntheticOptions(
    seed=5, train_ids=3, test_ids=2, cameras=3, images_per_camera=2, height=64, width=32
)


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.jpg")):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_a_rebuild_gives_the_same_bytes_even_in_another_process(tmp_path):
    here = build_synthetic(tmp_path / "a", SMALL)
    code = (
        "import sys; from fastreid_cc.data.synthetic import *;"
        f"build_synthetic(sys.argv[1], {SMALL!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")],
        check=True,
        cwd=Path(__file__).parents[1],
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
    )
    assert digest(here) == digest(tmp_path / "b" / SMALL.folder)


def test_a_picture_does_not_depend_on_how_many_others_there_are(tmp_path):
    few = build_synthetic(tmp_path, SMALL)
    more = build_synthetic(
        tmp_path,
        SyntheticOptions(
            seed=5,
            train_ids=SMALL.train_ids + 3,
            test_ids=0,
            cameras=SMALL.cameras,
            images_per_camera=SMALL.images_per_camera + 1,
            height=64,
            width=32,
        ),
    )
    for path in (few / "bounding_box_train").iterdir():
        assert path.read_bytes() == (more / "bounding_box_train" / path.name).read_bytes()


def test_another_seed_gives_other_pictures(tmp_path):
    options = [
        SyntheticOptions(seed=s, train_ids=1, test_ids=0, cameras=1, height=64, width=32)
        for s in (0, 1)
    ]
    first, second = (digest(build_synthetic(tmp_path, o)) for o in options)
    assert first != second


def test_the_protocol_is_that_of_market(tmp_path):
    folder = build_synthetic(tmp_path, SMALL)
    train, query, gallery = (
        read_market(folder / name) for name in ("bounding_box_train", "query", "bounding_box_test")
    )
    assert (len(train), len(query), len(gallery)) == (3 * 3 * 2, 2 * 3, 2 * 3)
    assert {i[1] for i in train} == {1, 2, 3}
    assert {i[1] for i in query} == {i[1] for i in gallery} == {4, 5}
    assert {i[2] for i in train} == {0, 1, 2}
    for path, person, camera in query:
        assert any(p == person and c != camera for _, p, c in gallery)
        assert re.fullmatch(r"\d{4}_c\ds1_\d{6}_00\.jpg", Path(path).name)
        with Image.open(path) as image:
            assert (image.size, image.format) == ((32, 64), "JPEG")
    assert not {Path(i[0]).name for i in query} & {Path(i[0]).name for i in gallery}


def test_training_items_carry_names_and_test_items_numbers(tmp_path):
    folder = build_synthetic(tmp_path, SMALL)
    assert read_market(folder / "bounding_box_train", "synthetic")[0][1:] == (
        "synthetic_1",
        "synthetic_0",
    )
    assert read_market(folder / "query")[0][1:] == (4, 0)


def test_one_camera_has_no_test_set(tmp_path):
    options = SyntheticOptions(train_ids=2, cameras=1, images_per_camera=2, height=64, width=32)
    folder = build_synthetic(tmp_path, options)
    assert len(read_market(folder / "bounding_box_train")) == 4
    assert not read_market(folder / "query") and not read_market(folder / "bounding_box_test")


def test_a_killed_build_leaves_no_half_data_set(tmp_path, monkeypatch):
    count = 0

    def fail(*args):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return draw_picture(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "draw_picture", fail)
        build_synthetic(tmp_path, SMALL)
    assert not list(tmp_path.iterdir())
    assert len(read_market(build_synthetic(tmp_path, SMALL) / "bounding_box_train")) == 18


def test_what_is_there_is_not_drawn_again(tmp_path, monkeypatch):
    folder = build_synthetic(tmp_path, SMALL)
    monkeypatch.setattr(build, "draw_picture", None)
    assert build_synthetic(tmp_path, SMALL) == folder


def test_two_processes_may_build_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.starmap(build_synthetic, [(tmp_path, SMALL)] * 2)
    assert folders[0] == folders[1]
    assert [p.name for p in tmp_path.iterdir()] == [SMALL.folder]
    assert digest(folders[0]) == digest(build_synthetic(tmp_path / "again", SMALL))


def test_the_loser_of_a_race_takes_the_winner_s_files(tmp_path, monkeypatch):
    """Another build of the same data set begins and ends while ours draws its first picture."""
    drawn = []

    def draw(*args):
        drawn.append(args)
        if len(drawn) == 1:
            assert build_synthetic(tmp_path, SMALL) == winner
        return draw_picture(*args)

    winner = tmp_path / SMALL.folder
    monkeypatch.setattr(build, "draw_picture", draw)
    assert build_synthetic(tmp_path, SMALL) == winner
    assert len(drawn) == 2 * len(list(winner.rglob("*.jpg")))
    assert [p.name for p in tmp_path.iterdir()] == [SMALL.folder]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"train_ids": 0}, "CC.SYNTHETIC.TRAIN_IDS=0"),
        ({"cameras": 10}, "CC.SYNTHETIC.CAMERAS=10"),
        ({"seed": -1}, "CC.SYNTHETIC.SEED=-1"),
        ({"images_per_camera": 1}, "CC.SYNTHETIC.IMAGES_PER_CAMERA=1"),
    ],
)
def test_options_out_of_range_are_refused_by_key(values, key):
    with pytest.raises(ValueError, match=re.escape(key)):
        SyntheticOptions(**values)


def test_the_folder_s_name_holds_every_option():
    base = SyntheticOptions()
    for name in base.__dataclass_fields__:
        other = SyntheticOptions(**{name: getattr(base, name) + 1})
        assert other.folder != base.folder, name
    assert f"v{build.VERSION}-" in base.folder


def test_tone_curves_rise():
    for seed in range(20):
        camera = sample_camera(np.random.default_rng(seed), 16, 8)
        assert (np.diff(camera.tone, axis=1) >= 0).all()
        assert camera.tone.min() >= 0 and camera.tone.max() <= 255


def test_no_gamma_gain_and_bias_undoes_a_camera():
    """The training augmentation is of that form; were the cameras too, it would know the answer."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0.05, 0.8, (400, 3)).astype(np.float32)
    residuals = []
    for seed in range(8):
        camera = sample_camera(np.random.default_rng(seed), 16, 8)
        mixed = np.clip(colours @ camera.matrix.T, 0, 1)
        for c in range(3):
            seen = camera.tone[c][(mixed[:, c] * 1023).astype(int)] / 255
            fits = []
            for gamma in np.geomspace(0.25, 4, 41):
                design = np.stack([colours[:, c] ** gamma, np.ones(400)], 1)
                solution, *_ = np.linalg.lstsq(design, seen, rcond=None)
                fits.append(np.sqrt(np.mean((design @ solution - seen) ** 2)))
            residuals.append(min(fits))
    assert np.mean(residuals) > 0.02  # of full scale; 0 if the form were the same


def test_the_view_decides_what_is_seen():
    person = replace(
        sample_identity(np.random.default_rng(11)), bag="backpack", bag_colour=(255, 0, 0)
    )
    red, body = {}, {}
    for view in (0.0, 90.0, 180.0, 270.0):
        layer = np.asarray(draw_figure(person, Pose(view, 0, 0, 0, 0.9, 0.5, 0.05), 128, 64))
        red[view] = ((layer[..., 0] > 200) & (layer[..., 1:3] < 60).all(-1)).sum()
        body[view] = (layer[24:64, :, 3] > 128).sum()
    assert red[180.0] > 2 * max(red[90.0], red[270.0]) > 0
    assert red[180.0] > 2 * red[0.0]
    assert max(body[90.0], body[270.0]) < body[0.0]  # narrower from the side


def test_the_person_differs_more_between_people_than_between_poses():
    """In one camera, over the middle of the body, the mean of what a matcher could use."""
    camera = sample_camera(np.random.default_rng([0, 2, 1]), 64, 32)
    pictures = np.stack(
        [
            np.stack(
                [
                    np.asarray(draw_picture(person, camera, np.random.default_rng([p, k]), 64, 32))[
                        16:32, 12:20
                    ].mean((0, 1))
                    for k in range(8)
                ]
            )
            for p, person in ((p, sample_identity(np.random.default_rng(p))) for p in range(24))
        ]
    )
    within = pictures.std(1).mean()
    between = pictures.mean(1).std(0).mean()
    assert between > within


@pytest.fixture(scope="module")
def default_set(tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("data"), SyntheticOptions(seed=0))


def test_no_colour_histogram_reaches_thirty_map(default_set):
    result = evaluate_histograms(
        read_market(default_set / "query"), read_market(default_set / "bounding_box_test")
    )
    assert result.best.mAP < 30, result.name
    assert result.best.mAP > 10  # colours do say something


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    """Small sets of the target's world and of the two source styles."""
    root = tmp_path_factory.mktemp("styles")
    options = [SMALL, *(StyledOptions.beside(SMALL, look) for look in ("studio", "dusk"))]
    return options, [build_synthetic(root, o) for o in options]


def test_a_source_is_another_world_of_the_same_size(styled):
    options, folders = styled
    assert len({folder.name for folder in folders}) == 3
    assert len({o.seed for o in options}) == 3
    counts = [len(list(folder.rglob("*.jpg"))) for folder in folders]
    assert counts == [3 * 3 * 2 + 2 * 3 * 2] * 3
    assert options[1].folder.endswith("-studio")


def test_styles_differ_in_cameras_clothes_and_place():
    found = []
    for name in ("", "studio", "dusk"):
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        cameras = [sample_camera(r, 16, 8, (i + 1) / 8, STYLES[name]) for i, r in enumerate(rngs)]
        colours = np.array([sample_identity(r, STYLES[name]).upper_colour for r in rngs * 8])
        found.append(
            {
                "apart": np.stack([c.matrix for c in cameras]).std(0).mean(),
                "sharp": np.mean([c.resolution for c in cameras]),
                "views": np.ptp([c.view for c in cameras]),
                "bright": colours.mean(),
                "size": np.mean([c.size for c in cameras]),
            }
        )
    world, studio, dusk = found
    assert studio["apart"] < 0.5 * world["apart"]  # cameras that are alike
    assert studio["sharp"] > world["sharp"] > dusk["sharp"]
    assert studio["views"] < 0.5 * world["views"]
    assert studio["bright"] > world["bright"] > dusk["bright"]
    assert dusk["size"] < world["size"]


def test_bytes_of_the_target_s_world_stay_as_recorded(styled):
    """Another digest means other pictures: then VERSION has to rise."""
    person = sample_identity(np.random.default_rng(3))
    camera = sample_camera(np.random.default_rng(4), 32, 16, 0.5)
    picture = np.asarray(draw_picture(person, camera, np.random.default_rng(5), 32, 16))
    assert hashlib.sha256(repr(person).encode()).hexdigest()[:16] == "a17c681936444ea3"
    assert picture.mean((0, 1)) == pytest.approx([54.5625, 62.328125, 52.967], abs=0.2)
