"""`crops`: from clips and their texts to a folder that `CC.FOLDER` reads; what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastreid_cc import __main__ as cli
from fastreid_cc.data.clips import open_clip, read_boxes, write
from fastreid_cc.data.naming import Rule, list_images
from fastreid_cc.data.synthetic import ClipOptions, write_clips

SMALL = ("--min-height", "30", "--min-width", "8")  # the people of the tiny clips are small


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_clips(ClipOptions(seed=7, people=4, frames=60, passes=1, height=120, width=200), folder)
    return folder


@pytest.fixture(autouse=True)
def imports() -> Any:
    before = os.environ.get("FASTREID_CC_IMPORT")
    yield
    os.environ.pop("FASTREID_CC_IMPORT", None)
    if before is not None:
        os.environ["FASTREID_CC_IMPORT"] = before


def run(capsys: Any, *words: object) -> tuple[int, str, str]:
    status = cli.run_command("crops", [str(word) for word in words], [])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def both(world: Path) -> list[Path]:
    return [world / name for name in ("cam1.mp4", "cam1.txt", "cam2.mp4", "cam2.txt")]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_clips_become_crops_whose_names_say_camera_tracklet_and_frame(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "crops"
    status, said, err = run(capsys, *both(world), "--out", out, "--per-tracklet", 4, *SMALL)
    assert status == 0 and err == "", err
    rows = rows_of(out / "crops.csv")
    names = list_images(out)
    assert sorted(row["image"] for row in rows) == names and f"{len(names)} crops" in said
    camera, tracklet = Rule("camera", "folder:0"), Rule("tracklet", r"_(t\d+)_")
    time = Rule("time", r"_f(\d+)")
    clips = {
        name: dict(open_clip(world / f"{name}.mp4").frames(range(60))) for name in ("cam1", "cam2")
    }
    lines = {name: (world / f"{name}.txt").read_text().splitlines() for name in clips}
    for row in rows:
        name = row["image"]
        assert camera(name) == row["camera"]
        assert tracklet(name) == f"t{int(row['tracklet']):05d}" and row["tracklet"] == row["id"]
        assert int(time(name) or 0) == int(row["frame"])
        x, y, w, h = (int(row[key]) for key in ("x", "y", "width", "height"))
        picture = clips[row["camera"]][int(row["frame"]) - 1]  # the text counts from 1
        with Image.open(out / name) as image:
            assert image.size == (w, h)
            difference = np.abs(np.asarray(image, int) - picture[y : y + h, x : x + w])
        assert difference.mean() < 3  # JPEG
        assert any(line.startswith(f"{row['frame']},{row['id']},") for line in lines[row["camera"]])
        assert float(row["covered"]) <= 0.3 and float(row["seconds"]) == pytest.approx(
            (int(row["frame"]) - 1) / 15, abs=1e-3
        )
    counts = {}
    for row in rows:
        key = row["camera"], row["tracklet"]
        counts[key] = counts.get(key, 0) + 1
    assert max(counts.values()) == 4 and len(counts) >= 6
    truth = {(row["camera"], row["tracklet"]): row["identity"]
             for row in rows_of(world / "identities.csv")}  # fmt: skip
    assert len({truth[key] for key in counts}) >= 3


def test_crops_that_differ_most_in_colours_are_others(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    found = []
    for at, more in enumerate(([], ["--varied"], [])):
        words = (*both(world)[:2], "--out", tmp_path / str(at), "--per-tracklet", 3, *SMALL, *more)
        assert run(capsys, *words)[0] == 0
        found.append({name: (tmp_path / str(at) / name).read_bytes()
                      for name in [*list_images(tmp_path / str(at)), "crops.csv"]})  # fmt: skip
    assert found[0] == found[2] and found[0] != found[1] and len(found[0]) == len(found[1])


def test_frames_in_a_folder_with_ids_that_jump(world: Path, tmp_path: Path, capsys: Any) -> None:
    frames = tmp_path / "hall" / "img1"
    frames.mkdir(parents=True)
    for number, picture in open_clip(world / "cam1.mp4").frames(range(60)):
        Image.fromarray(picture).save(frames / f"{number + 1:06d}.png")
    plain, jumping = world / "cam1.txt", tmp_path / "jump.txt"
    lines = [line.split(",") for line in plain.read_text().splitlines()]
    who = lines[-1][1]
    own = [line for line in lines if line[1] == who]
    for line in own[len(own) // 4 :]:  # from there on it walks elsewhere
        line[2] = str(200 - int(line[2]) - int(line[4]))
    jumping.write_text("\n".join(map(",".join, lines)))
    at = [int(line[2]) for line in own]
    steps = np.abs(np.diff(at))
    words = (frames, jumping, "--out", tmp_path / "out", "--max-jump", 0.5, "--json", *SMALL)
    status, said, err = run(capsys, *words)
    assert status == 0 and steps.max() > 0.5 * max(int(line[5]) for line in own), err
    assert f"hall: 1 ids jump and are cut into two tracklets there, e.g. id {who} in frame" in err
    told = json.loads(said)["cameras"]["hall"]
    rows = rows_of(tmp_path / "out" / "crops.csv")
    assert told["crops"] == len(rows) and all(row["seconds"] == "" for row in rows)
    new = {row["tracklet"] for row in rows if row["id"] != row["tracklet"]}
    assert len(new) <= 1 and told["ids"] == len({line[1] for line in lines})


def test_a_killed_call_leaves_no_folder_and_the_next_one_works(
    world: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "crops"
    words = (*both(world), "--out", out, *SMALL)
    pid = os.fork()
    if pid == 0:
        looks = []

        def look(*given: Any) -> Any:
            looks.append(given)
            if len(looks) > 60:
                os._exit(9)  # as a kill: nothing is cleaned up
            return stock(*given)

        stock, write._look = write._look, look
        os._exit(cli.run_command("crops", [str(word) for word in words], []))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not out.exists() and any(tmp_path.glob(".crops-*/cam1/*.jpg"))  # it was in the midst
    assert run(capsys, *words)[0] == 0 and (out / "crops.csv").exists()
    before = sorted(path.stat().st_mtime_ns for path in out.rglob("*"))
    status, _, err = run(capsys, *words)
    assert status == 2 and "is there already; name another, or remove it" in err
    assert sorted(path.stat().st_mtime_ns for path in out.rglob("*")) == before


def test_faulty_crops_are_left_out_and_listed(world: Path, tmp_path: Path, capsys: Any) -> None:
    words = (*both(world)[:2], *SMALL, "--json", "--out")
    status, said, _ = run(capsys, *words, tmp_path / "a", "--same-bits", 20)
    told = json.loads(said)["cameras"]["cam1"]
    rows = rows_of(tmp_path / "a" / "left_out.csv")
    assert status == 0 and told["left_out"]["same"] == len(rows) >= 1
    assert all(row["problem"] == "same" and float(row["value"]) <= 20 for row in rows)
    status, _, err = run(capsys, *words, tmp_path / "b", "--max-blur", 0.01)
    assert status == 1 and re.search(r"no crop is left: .*\d+ blurred", err)
    assert not (tmp_path / "b").exists()


def test_a_folder_is_checked(tmp_path: Path, capsys: Any) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (64, 32, 3), np.uint8)).save(images / f"{name}.png")
    with Image.open(images / "a.png") as image:
        image.save(images / "c.jpg", quality=90)
    Image.new("RGB", (32, 64)).save(images / "d.png")
    status, said, _ = run(capsys, "--check", images, "--out", tmp_path / "p.csv")
    assert status == 0 and "of 4 images 1 same, 1 empty" in said
    found = {row["image"]: (row["problem"], row["same_as"]) for row in rows_of(tmp_path / "p.csv")}
    assert found == {"./c.jpg": ("same", "./a.png"), "./d.png": ("empty", "")}


def test_a_world_is_drawn(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "world"
    few = ("--people", 1, "--frames", 24, "--seed", 3, "--cameras", "hall")
    status, said, err = run(capsys, "--world", "--out", out, *few)
    assert status == 0 and "next: python -m fastreid_cc crops" in said, err
    assert {path.name for path in out.iterdir()} == {"hall.mp4", "hall.txt", "identities.csv"}
    assert open_clip(out / "hall.mp4").count(1) == 24


def test_boxes_are_found_where_there_are_none(tmp_path: Path, capsys: Any) -> None:
    frames = tmp_path / "yard"
    frames.mkdir()
    coat = np.random.default_rng(1).integers(0, 255, (60, 24, 3))
    for number in range(30):
        picture = np.full((100, 200, 3), 120)
        picture += np.random.default_rng(number).integers(-4, 5, picture.shape)
        picture[20:80, 5 * number + 15 : 5 * number + 39] = np.roll(coat, 7 * number, 0)
        Image.fromarray(picture.astype(np.uint8)).save(frames / f"{number}.png")
    words = (frames, "--boxes", "background", "--out", tmp_path / "crops")
    status, _, err = run(capsys, *words)
    names = list_images(tmp_path / "crops")
    assert status == 0 and len(names) == 8 and {"t00001"} == {n.split("_")[1] for n in names}, err
    found = read_boxes(tmp_path / "crops" / "yard.txt", (200, 100))
    wanted = [[5 * number + 15, 20, 24, 60] for number in found.frames]
    assert len(found) >= 28 and np.abs(found.xywh - wanted).max() <= 4


def test_faults_of_the_command_line_say_what_to_do(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    clip, text = world / "cam1.mp4", world / "cam1.txt"
    short = tmp_path / "short.txt"
    short.write_text("90,1,5,5,30,60,1\n")
    for words, message in (
        ((), "one of them"),
        ((clip, "--world"), "one of them"),
        ((clip,), "every clip needs its text"),
        ((clip, text, clip, text), "two cameras are called cam1; name them with --cameras"),
        ((text, clip), "cam1.txt is no clip; the clip comes first, then its text"),
        ((clip, text, "--cameras", "a", "b"), "--cameras gives 2 names to 1 clips"),
        ((clip, text, "--cameras", "a_t1_"), "wanted letters, digits, points and hyphens"),
        ((clip, short), "boxes in frame 90, but"),
        ((clip, world / "no.txt"), "no.txt: no such file or folder"),
        ((world / "no.mp4", text), "no.mp4: no such file or folder"),
        (("--check", world / "no"), "no such folder"),
        (("--check", world), "must end in .csv"),
        (("--world", "--frames", "9"), "9 frames are too few for 4 walks"),
    ):
        status, _, err = run(capsys, *words, "--out", tmp_path / "out")
        assert status == 2 and message in err, (words, err)
        assert not (tmp_path / "out").exists()
    status, _, err = run(capsys, clip, clip, "--out", tmp_path / "out")
    assert status == 1 and "is no text; wanted: frame,id" in err, err
