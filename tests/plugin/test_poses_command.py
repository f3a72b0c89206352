"""`poses`: what it writes and prints, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import answer

from fastreid_cc.data.poses import draw_skeleton, fuse, pose_map, read_poses, write_coco
from fastreid_cc.data.synthetic import SyntheticOptions, synthetic_poses
from fastreid_cc.report.ranking import rank
from fastreid_cc.report.runs import TestSet

pytestmark = pytest.mark.usefixtures("plugin")
SIZES = {"TRAIN_IDS": 8, "TEST_IDS": 2, "CAMERAS": 2, "IMAGES_PER_CAMERA": 2, "HEIGHT": 32}
WORLD = SyntheticOptions(**{k.lower(): v for k, v in SIZES.items()}, width=16, seed=7)
SET = [
    w
    for k, v in {**SIZES, "WIDTH": 16, "SEED": 7}.items()
    for w in ("--set", f"CC.SYNTHETIC.{k}", v)
]


def run(capsys: Any, *words: object) -> tuple[int, str, str]:
    return answer(capsys, "poses", *words)


def test_the_world_s_poses_and_views_are_written(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "world"
    status, said, err = run(capsys, "world", "quick/usl_tiny", "--views", "--out", out, *SET)
    assert status == 0, err
    wanted, found = synthetic_poses(WORLD), read_poses(out / "poses.json").of
    assert set(found) == set(wanted) and f"{len(wanted)} poses of {WORLD.folder}" in said
    stem = "0009_c2s1_000002_00"  # of a test person
    assert np.allclose(found[stem][:, :2], wanted[stem][:, :2], atol=0.006)
    assert list(read_poses(out / "canonical.json").of) == [str(k) for k in range(1, 9)]
    views = {path.name for path in (out / "views").iterdir()}
    assert views == {f"{stem}_to_{k}.jpg" for stem in wanted for k in range(1, 9)}
    near = [line.split()[2] for line in said.splitlines()[2:10]]
    assert len(set(near)) == 8 and all(int(name[:4]) <= 8 for name in near)  # none of a test person
    with Image.open(out / "views" / f"{stem}_to_1.jpg") as image:
        assert image.size == (16, 32)


def test_drawings_and_maps_are_of_the_pictures_size(tmp_path: Path, capsys: Any) -> None:
    poses = synthetic_poses(WORLD)
    write_coco(tmp_path / "poses.json", [(f"{stem}.jpg", p) for stem, p in poses.items()])
    found, stem = read_poses(tmp_path / "poses.json").of, min(poses)
    out = tmp_path / "drawn"
    words = ("render", tmp_path / "poses.json", "--out", out, "--size", 32, 16, "--maps")
    assert run(capsys, *words)[0] == 0
    with Image.open(out / f"{stem}.png") as image:
        assert image.tobytes() == draw_skeleton(found[stem], (32, 16)).tobytes()
    maps = np.load(out / f"{stem}.npy")
    assert np.abs(maps - pose_map(found[stem], (32, 16))).max() < 1e-3
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (32, 64), (9, 9, 9)).save(pictures / f"{stem}.png")
    over = tmp_path / "over"
    assert run(capsys, *words[:2], "--out", over, "--images", pictures)[0] == 0
    assert {p.name for p in over.iterdir()} == {f"{stem}.png", "sheet.png"}
    with Image.open(over / f"{stem}.png") as image:
        assert image.size == (64, 128) and image.getpixel((0, 0)) == (9, 9, 9)


def test_faults_of_the_command_line_say_what_to_do(tmp_path: Path, capsys: Any) -> None:
    poses = synthetic_poses(WORLD)
    write_coco(tmp_path / "poses.json", [("a.jpg", next(iter(poses.values())))])
    (tmp_path / "empty").mkdir()
    given = tmp_path / "poses.json"
    for words, message in (
        (("canonical", tmp_path / "no.json", "--out", tmp_path / "o"), "no such file or folder"),
        (("canonical", given, "--out", tmp_path / "o"), "1 different poses show neck and hip"),
        (("canonical", given, "--out", given), "poses.json: File exists"),
        (("canonical", given, "--seed", -1, "--out", tmp_path / "o"), "--seed must be 0"),
        (
            ("render", given, "--images", tmp_path / "empty", "--out", tmp_path / "o"),
            "no image that has a pose; looked for names like a.jpg",
        ),
    ):
        status, _, err = run(capsys, *words)
        assert status == 2 and message in err, err


def test_fuse_measures_every_way_and_keeps_the_views_features(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.offline import view_features

    rng, network = np.random.default_rng(0), tmp_path / "B"
    network.mkdir()
    (network / "model_final.pth").write_bytes(b"weights")
    paths = [str(tmp_path / f"{i}.jpg") for i in range(12)]
    views = tmp_path / "views"
    views.mkdir()
    for name in [f"{i}_to_{k}.png" for i in range(12) for k in (1, 2)][:-1]:
        Image.new("RGB", (2, 2)).save(views / name)
    real = rng.normal(size=(12, 5)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    ids, cameras = np.arange(12) % 3, np.repeat([0, 1], 6)
    test = TestSet("Tests", paths, ids, cameras, real, 6)
    asked: list[list[str]] = []

    def embed(source: str, wanted: list[str], **rest: Any) -> tuple[np.ndarray, str]:
        assert source == str(network)
        asked.append(wanted)
        seeds = [sum(map(ord, Path(path).name)) for path in wanted]
        return np.stack([np.random.default_rng(s).normal(size=5) for s in seeds]), "B"

    monkeypatch.setattr(view_features, "tested_sets", lambda run, **rest: ([test], run))
    monkeypatch.setattr(view_features, "embed", embed)
    words = (
        "fuse",
        "A",
        "--other",
        network,
        "--views",
        views,
        "--cache",
        tmp_path / "c.npz",
        "--json",
    )
    status, said, err = run(capsys, *words)
    assert status == 0, err
    told = json.loads(said)["Tests"]
    assert (told["views"], told["missing_views"]) == (2, 1)
    assert asked[0][-2:] == [str(views / "11_to_1.png"), paths[11]]  # the image for the missing one
    of_views = embed(str(network), asked[0])[0].reshape(12, 2, 5)
    assert list(told["rows"]) == ["images alone"] + [
        f"{what}, {how}"
        for what in ("views alone", "images and views")
        for how in ("max", "mean", "concat")
    ]
    joined = {"images alone": real}
    joined["views alone, mean"] = fuse(of_views, "mean")
    joined["images and views, concat"] = fuse(of_views, "concat", real=real)
    for row, features in joined.items():
        wanted = rank(TestSet("", paths, ids, cameras, features, 6))
        assert told["rows"][row]["mAP"] == pytest.approx(wanted.mean_precision)
        assert told["rows"][row]["rank1"] == pytest.approx(wanted.rank1)
    calls = len(asked)
    assert run(capsys, *words)[1] == said and len(asked) == calls
    Image.new("RGB", (2, 2)).save(views / "11_to_2.png")  # another file: asked again
    assert json.loads(run(capsys, *words)[1])["Tests"]["missing_views"] == 0
    assert len(asked) == calls + 1
    (network / "model_final.pth").write_bytes(b"other weights")
    assert run(capsys, *words)[0] == 0 and len(asked) == calls + 2
