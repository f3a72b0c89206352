"""Clips, a tracker's boxes, what is chosen of them, faults of crops; on arrays and tiny clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fastreid_cc.data.clips import (
    Boxes,
    FaultLimits,
    Limits,
    camera_name,
    choose_candidates,
    find_faults,
    find_movers,
    fit,
    open_clip,
    quality,
    read_boxes,
    write,
    write_mot,
)
from fastreid_cc.data.synthetic import ClipOptions, draw_picture, sample_camera, sample_identity
from fastreid_cc.data.synthetic import clips as world_clips
from fastreid_cc.data.synthetic.camera import background
from fastreid_cc.errors import UnreadableFile, WrongUse

SIZE = (200, 100)
TINY = ClipOptions(seed=7, cameras=["cam1"], people=2, frames=20, passes=1, height=60, width=96)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world_clips.write_clips(TINY, folder)
    return folder


def table(*rows: tuple[float, ...]) -> Boxes:
    """Boxes of (frame, id, x, y, w, h)."""
    found = np.array(rows, np.float64)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    whole = found[:, :2].astype(np.int64)
    return Boxes(whole[:, 0], whole[:, 1], found[:, 2:], np.full(len(found), np.nan))


# ---- texts ------------------------------------------------------------------------------------


def test_texts_with_commas_blanks_and_a_title_say_the_same(tmp_path: Path) -> None:
    lines = ["2,5,10,20,30.5,40,0.9,1,-1", "1,5,9,20,30,40,0.8,1,-1", "2,3,1,2,3,4,0.5,2,-1"]
    texts = ("\n".join(lines), "\n".join(lines).replace(",", " "), "frame,id,x\n" + lines[0])
    found = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text + "\n\n")
        found.append(read_boxes(tmp_path / f"{number}.txt", SIZE))
    assert found[0].frames.tolist() == [0, 1, 1] and found[0].ids.tolist() == [5, 3, 5]
    assert found[0].xywh[2].tolist() == [10, 20, 30.5, 40] and found[0].confidence[0] == 0.8
    assert np.array_equal(found[0].xywh, found[1].xywh) and len(found[2]) == 1
    only = read_boxes(tmp_path / "0.txt", SIZE, classes=[2])
    assert only.ids.tolist() == [3]
    assert read_boxes(tmp_path / "0.txt", SIZE, first_frame=0).frames[0] == 1


def test_boxes_that_do_not_count_are_left_out_unless_no_confidence_is_known(tmp_path: Path) -> None:
    text = tmp_path / "gt.txt"
    text.write_text("1,1,1,1,9,9,1,1,1\n1,2,1,1,9,9,0,1,1\n1,-1,1,1,9,9,0.9,1,1\n")
    assert read_boxes(text, SIZE).ids.tolist() == [1]
    text.write_text("1,1,1,1,9,9,0\n1,2,1,1,9,9,0\n")
    found = read_boxes(text, SIZE)
    assert found.ids.tolist() == [1, 2] and np.isnan(found.confidence).all()


def test_labels_of_ultralytics_are_the_same_boxes(tmp_path: Path) -> None:
    (tmp_path / "lobby_1.txt").write_text("0 0.5 0.5 0.1 0.4 7\n0 0.2 0.2 0.1 0.1\n")
    (tmp_path / "lobby_12.txt").write_text("0 0.5 0.5 0.1 0.4 0.75 7\n")
    found = read_boxes(tmp_path, SIZE)
    assert found.frames.tolist() == [0, 11] and found.ids.tolist() == [7, 7]
    assert np.allclose(found.xywh, [[90, 30, 20, 40]] * 2) and found.confidence[1] == 0.75


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    boxes = table((0, 1, 1.25, 2, 3, 4), (3, 2, -5, 6, 7, 8))
    write_mot(tmp_path / "a.txt", boxes)
    found = read_boxes(tmp_path / "a.txt", SIZE)
    assert np.array_equal(found.frames, boxes.frames) and np.array_equal(found.xywh, boxes.xywh)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,1,5,5,9,9\n1,2,5,5,9\n", "line 2: '1 2 5 5 9'; wanted: frame,id,x,y,width,height"),
        ("1,1,5,5,9,9\n1,2,5,x,9,9\n", "line 2"),
        ("1.5,1,5,5,9,9\n", "frame 1.5 and id 1 must be whole numbers"),
        ("1,1,5,5,0,9\n", "a box of 0 x 9 pixels"),
        (
            "0,1,5,5,9,9\n",
            "counts frames from 0; --first-frame 1 says from 1. Give --first-frame 0",
        ),
        ("3,1,5,5,9,9\n3,1,6,6,9,9\n", "id 1 has two boxes in frame 3"),
        ("1,-1,5,5,9,9,1\n", "holds no box with an id"),
        ("", "holds no box"),
        ("1,1,nan,5,9,9\n", "line 1"),
    ],
)
def test_a_text_of_another_form_is_refused_with_its_line(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UnreadableFile) as error:
        read_boxes(tmp_path / "a.txt", SIZE)
    assert told in str(error.value)


# ---- what is chosen ---------------------------------------------------------------------------


def steps(who: int, count: int = 40, x: float = 20, y: float = 20) -> list[tuple[float, ...]]:
    return [(frame, who, x + frame, y, 20, 50) for frame in range(count)]


def test_candidates_are_spread_over_the_time_of_a_tracklet() -> None:
    found = choose_candidates(table(*steps(1)), SIZE, Limits(per_tracklet=4), "a.txt")
    assert len(found.boxes) == 12 and np.diff(found.boxes.frames).max() <= 6
    assert found.boxes.frames[0] < 4 and found.boxes.frames[-1] > 35
    assert not found.left_out.total() and not found.jumps


def test_each_limit_leaves_out_what_it_says() -> None:
    boxes = table(
        *steps(1), *steps(2, 3, y=45), *[(f, 3, 21 + f, 22, 20, 50) for f in range(10)],
        *[(f, 4, 160, -30, 20, 60) for f in range(8)], *[(f, 5, 150, 5, 10, 20) for f in range(8)],
    )  # fmt: skip
    found = choose_candidates(boxes, SIZE, Limits(), "a.txt")
    assert set(found.tracklets.tolist()) == {1} and found.boxes.frames.min() >= 10
    told = {"of short tracklets": 3, "outside": 8, "too small": 8, "covered": 20}
    assert {reason: n for reason, n in found.left_out.items() if n} == told
    sure = dataclasses.replace(boxes, confidence=np.where(boxes.ids == 1, 0.4, 0.9))
    assert choose_candidates(sure, SIZE, Limits(min_confidence=0.5), "a").left_out["unsure"] == 40
    wide = choose_candidates(boxes, SIZE, Limits(max_covered=1, min_height=1, min_width=1), "a")
    assert set(wide.tracklets.tolist()) == {1, 3, 5}
    part = choose_candidates(boxes, SIZE, Limits(min_inside=0.4, min_height=20), "a")
    rows = part.tracklets == 4
    assert rows.any() and (part.corners[rows] == [160, 0, 180, 30]).all()  # clipped


def test_an_id_that_jumps_is_two_tracklets_and_two_that_swap_are_four() -> None:
    left, right = steps(1, 30), steps(2, 30, x=120)
    swapped = [(f, 3 - who if f >= 15 else who, *rest) for f, who, *rest in left + right]
    found = choose_candidates(table(*swapped), SIZE, Limits(), "a.txt")
    assert found.jumps == [(1, 15), (2, 15)]
    of = {who: found.boxes.xywh[found.tracklets == who, 0] for who in (1, 2, 3, 4)}
    assert of[1].max() < 90 and of[2].min() > 90 and of[3].min() > 90 and of[4].max() < 90
    gone = [row for row in left if not 10 <= row[0] < 20]  # ten frames hidden: no jump
    assert not choose_candidates(table(*gone), SIZE, Limits(), "a.txt").jumps
    assert not choose_candidates(table(*swapped), SIZE, Limits(max_jump=9), "a.txt").jumps


def test_columns_in_another_order_are_told_by_their_jumps() -> None:
    rng = np.random.default_rng(0)
    mixed = [(f, 1, *rng.uniform(0, 150, 2), 20, 10) for f in range(40)]
    with pytest.raises(WrongUse, match=r"in \d+ of 39 steps an id jumps.*columns 3 to 6"):
        choose_candidates(table(*mixed), SIZE, Limits(), "a.txt")


class Fake:
    """A clip of 10 frames."""

    path, size, rate = Path("lobby.mp4"), SIZE, 0.0

    def count(self, at_least: int) -> int:
        return 10

    def frames(self, wanted: Any) -> Iterator[tuple[int, np.ndarray]]:
        yield from ()


def test_a_text_of_another_clip_is_refused() -> None:
    fit(table(*steps(1, 10)), Fake(), "a.txt")
    with pytest.raises(WrongUse, match="boxes in frame 11, but lobby.mp4 holds 10 frames"):
        fit(table(*steps(1, 11)), Fake(), "a.txt")
    large = [(f, 1, 500 + f, 300, 50, 90) for f in range(10)]
    with pytest.raises(WrongUse, match="10 of 10 boxes lie mostly outside.*200 x 100 pixels"):
        fit(table(*large), Fake(), "a.txt")


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/lobby.mp4", "lobby"), ("Lobby_t12_ 3.mov", "Lobby-t12-3"), ("x/.é.avi", None)],
)
def test_a_camera_is_called_as_its_file(path: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(WrongUse, match="--cameras"):
            camera_name(Path(path))
    else:
        assert camera_name(Path(path)) == name


def test_a_folder_called_img1_is_named_by_its_parent(tmp_path: Path) -> None:
    (tmp_path / "MOT17-02" / "img1").mkdir(parents=True)
    assert camera_name(tmp_path / "MOT17-02" / "img1") == "MOT17-02"


def test_farthest_first_takes_what_differs() -> None:
    looks = [
        write._Look(row, np.full((8, 4, 3), level, np.uint8), worth, 0.0, np.zeros(1, bool))
        for row, (level, worth) in enumerate([(10, 1.0), (11, 2.0), (12, 1.0), (90, 1.0), (200, 1)])
    ]
    worth = np.array([look.worth for look in looks])
    assert write._farthest_first(looks, worth, 3) == [1, 4, 3]


# ---- faults -----------------------------------------------------------------------------------


def person(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    camera = sample_camera(np.random.default_rng(99), 128, 64)
    camera = dataclasses.replace(camera, resolution=1.0)
    return draw_picture(sample_identity(rng), camera, rng, 128, 64)


def test_blurred_empty_broken_and_repeated_images_are_found(tmp_path: Path) -> None:
    for number in range(6):
        person(number).save(tmp_path / f"good{number}.png")
    person(0).save(tmp_path / "x_again.jpg", quality=70)
    person(1).filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "x_blurred.png")
    Image.new("RGB", (40, 80), (90, 80, 70)).save(tmp_path / "x_empty.png")
    (tmp_path / "x_broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    paths = sorted(map(str, tmp_path.iterdir()))
    names = [Path(path).stem for path in paths]
    found = find_faults(paths, FaultLimits())
    wanted = {"x_again": "same", "x_blurred": "blurred", "x_empty": "empty"}
    wanted["x_broken"] = "unreadable"
    assert {n: p for n, p in zip(names, found.problem, strict=True) if p} == wanted
    assert names[found.of[names.index("x_again")]] == "good0"


def test_blur_grows_with_a_blur_and_not_with_contrast() -> None:
    sharp = quality.grey(np.asarray(person(3)))
    soft = [
        quality.blur(quality.grey(np.asarray(person(3).filter(ImageFilter.GaussianBlur(r)))))
        for r in (1, 2, 4)
    ]
    assert quality.blur(sharp) < soft[0] < soft[1] < soft[2] <= 1
    assert quality.blur(sharp * 0.3 + 90) == pytest.approx(quality.blur(sharp), abs=1e-4)


def test_pairs_over_blocks_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_BLOCK", 16)
    rng = np.random.default_rng(0)
    hashes = rng.random((50, 31)) < 0.5
    hashes[40] = hashes[3]
    hashes[41] = hashes[3] ^ (np.arange(31) < 2)
    loop = [
        [i, j] for i in range(50) for j in range(i + 1, 50) if (hashes[i] != hashes[j]).sum() <= 8
    ]
    found = quality.same_pairs(hashes, 8).tolist()
    assert found == loop and [3, 40] in found and [40, 41] in found


# ---- clips ------------------------------------------------------------------------------------


def test_the_text_of_a_drawn_clip_says_where_people_are() -> None:
    camera = sample_camera(np.random.default_rng(0), 120, 200)
    scene = background(camera, np.random.default_rng(1), 120, 200)
    people = {p: sample_identity(np.random.default_rng(p)) for p in range(1, 9)}
    large = dataclasses.replace(TINY, cameras=("a", "b"), people=8, frames=50)
    walks = world_clips.plan_walks(dataclasses.replace(large, height=120, width=200))[0]
    alone = hidden = 0
    for frame in range(0, 50, 2):
        picture, seen = world_clips.draw_frame(people, walks, frame, camera, scene)
        changed = np.abs(picture - scene).max(2) > 1
        inside = np.zeros_like(changed)
        for _, (x, y, w, h), share in seen:
            inside[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1] = True
            hidden += 0 < x < 200 - w and share < 0.9
        walkers = sum(0 <= frame - walk.start < walk.frames for walk in walks)
        if len(seen) == walkers == 1 and seen[0][2] == 1:
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            x, y, w, h = seen[0][1]
            edges = [columns[0] - x, rows[0] - y, columns[-1] + 1 - x - w, rows[-1] + 1 - y - h]
            assert np.abs(edges).max() <= 2
            alone += 1
        elif len(seen) == walkers:
            assert (changed & ~inside).sum() <= 0.03 * changed.sum()  # the soft rim of a figure
    assert alone >= 2 and hidden >= 2  # both happen


def test_drawn_clips_depend_on_the_seed_alone(world: Path, tmp_path: Path) -> None:
    world_clips.write_clips(TINY, tmp_path)
    for path in world.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    walks = world_clips.plan_walks(TINY)[0]
    lines = (world / "identities.csv").read_text().splitlines()
    assert lines[0] == "camera,tracklet,identity" and len(lines) == 1 + len(walks)


def test_nobody_is_seen_twice_at_once_and_several_walk_together() -> None:
    options = dataclasses.replace(TINY, cameras=("a", "b"), people=4, frames=50)
    other = world_clips.plan_walks(dataclasses.replace(options, seed=8))
    assert other != world_clips.plan_walks(options)
    walks = [walk for camera in world_clips.plan_walks(options) for walk in camera]
    busy = np.zeros((5, 50), int)
    for walk in walks:
        assert walk.start + walk.frames <= 50
        busy[walk.person, walk.start : walk.start + walk.frames] += 1
    assert busy.max() == 1 and busy.sum(0).max() >= 2


def test_a_video_and_a_folder_of_its_frames_are_one_clip(world: Path, tmp_path: Path) -> None:
    video = open_clip(world / "cam1.mp4")
    assert video.size == (96, 60) and video.rate == 15 and video.count(1) == 20
    wanted = [0, 7, 8, 15]
    shown = dict(video.frames(wanted))
    assert list(shown) == wanted
    for number, picture in video.frames(range(12)):
        Image.fromarray(picture).save(tmp_path / f"frame{number}.png")  # frame10 after frame9
    folder = open_clip(tmp_path)
    assert folder.count(1) == 12 and folder.size == video.size
    for number, picture in folder.frames([7, 8, 10]):
        assert number not in shown or np.array_equal(picture, shown[number])
    assert folder.count(99) == 12


def test_a_video_that_is_none_or_ends_early_is_told(world: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UnreadableFile, match="no video that OpenCV can read"):
        open_clip(tmp_path / "a.mp4")
    clip = open_clip(world / "cam1.mp4")
    assert clip.count(51) == 20
    with pytest.raises(UnreadableFile, match="damaged after 20 frames; frame 61 is wanted"):
        list(clip.frames([60]))


class Moving(Fake):
    """A man of two colours who comes and goes, another who enters later, and noise."""

    def count(self, at_least: int) -> int:
        return 60

    def truth(self, number: int) -> list[list[int]]:
        late = [[170 - 3 * (number - 25), 35, 16, 40]] if number >= 25 else []
        return [[10 + 3 * number, 20, 20, 50], *late] if number < 50 else late

    def frames(self, wanted: Any) -> Iterator[tuple[int, np.ndarray]]:
        for number in wanted:
            noise = np.random.default_rng(number).integers(-4, 5, (100, 200, 3))
            picture = np.full((100, 200, 3), 120) + noise
            for x, y, w, h in self.truth(number):
                picture[y : y + h // 2, x : x + w] = (30, 40, 160)
                picture[y + h // 2 : y + h, x : x + w] = (230, 220, 200)
            yield number, picture.clip(0, 255).astype(np.uint8)


def test_what_moves_is_found_and_keeps_its_number() -> None:
    clip = Moving()
    found = find_movers(clip)
    alone = [row for row in range(len(found)) if len(clip.truth(int(found.frames[row]))) == 1]
    wanted = [clip.truth(int(found.frames[row]))[0] for row in alone]
    assert np.abs(found.xywh[alone] - wanted).max() <= 4 and len(alone) == 35
    assert len(set(found.ids[found.frames < 25].tolist())) == 1
    assert len(set(found.ids[found.frames >= 50].tolist())) == 1
