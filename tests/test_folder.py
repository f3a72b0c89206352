"""Folders of images: what is found, what names mean, and what is said when something is wrong."""

import logging
import os
import random
import re

import numpy as np
import pytest
from PIL import Image

from fastreid_cc.data import checks
from fastreid_cc.data.folder import FolderItems
from fastreid_cc.data.items import cameras, number, sort_items, truth
from fastreid_cc.data.naming import FolderOptions, Rule, list_images
from fastreid_cc.data.tracks import tracks_of
from fastreid_cc.errors import BadConfig


def save(path, value=100, size=(16, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def people(tmp_path):
    """people/<person>/<camera>_<view>.png: 4 people, 2 cameras, 2 views."""
    for p in range(4):
        for c in (1, 2):
            for v in range(2):
                save(tmp_path / "people" / f"{p:03d}" / f"{c:02d}_{v}.png", p)
    return tmp_path


def folder(root, **options):
    return FolderItems(FolderOptions(root=str(root), **options))


def test_a_plain_folder_needs_nothing_but_its_name(tmp_path):
    for name in ("b.JPG", "a.jpeg", "sub/c.PnG", "sub/deep/d.bmp", "e.webp"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.JPG").write_bytes(b"resource fork")
    save(tmp_path / ".hidden" / "f.png")
    items = folder(tmp_path).train
    names = [os.path.relpath(i[0], tmp_path) for i in items]
    assert names == ["a.jpeg", "b.JPG", "e.webp", "sub/c.PnG", "sub/deep/d.bmp"]
    assert len({i[1] for i in items}) == 5  # every image its own placeholder
    assert truth(items) is None
    assert cameras(items).tolist() == [0] * 5


def test_rows_do_not_depend_on_the_order_of_the_file_system(people, monkeypatch):
    first = folder(people / "people").train
    walk = os.walk

    def shuffled(root, **kwargs):
        for base, folders, files in walk(root, **kwargs):
            random.Random(1).shuffle(files)
            random.Random(1).shuffle(folders)
            yield base, folders, files

    monkeypatch.setattr(os, "walk", shuffled)
    assert folder(people / "people").train == first


def test_people_are_split_by_name_and_cameras_into_query_and_gallery(people):
    found = folder(
        people / "people",
        camera=r"/(\d+)_",
        identity="folder:0",
        test_include="^00[23]/",
        query_cameras=(1,),
        gallery_cameras=("02",),
    )
    assert {i[1] for i in found.train} == {"folder_000", "folder_001"}
    assert truth(found.train).tolist() == [0] * 4 + [1] * 4
    assert cameras(found.train).tolist() == [0, 0, 1, 1] * 2
    assert {(i[1], i[2]) for i in found.query} == {(2, 0), (3, 0)}
    assert {(i[1], i[2]) for i in found.gallery} == {(2, 1), (3, 1)}
    assert not {i[0] for i in found.train} & {i[0] for i in found.query + found.gallery}


def test_without_camera_rule_the_first_view_is_the_query(people):
    found = folder(people / "people", camera=r"/(\d+)_", identity="folder:0", test_include="^003")
    assert [os.path.basename(i[0]) for i in found.query] == ["01_0.png", "02_0.png"]
    assert [os.path.basename(i[0]) for i in found.gallery] == ["01_1.png", "02_1.png"]


def test_query_and_gallery_folders_are_never_trained_on(people):
    root = people / "people"
    os.rename(root / "002", root / "query")
    os.rename(root / "003", people / "gallery")
    for where in (root / "query", people / "gallery"):
        for path in where.iterdir():
            path.rename(where / f"7_{path.name}")
    found = folder(
        root,
        query="query",
        gallery=str(people / "gallery"),
        identity=r"(\d+)_\d+_\d+\.png$",
        camera=r"(\d+)_\d+\.png$",
    )
    assert len(found.train) == 8 and len(found.query) == 4 and len(found.gallery) == 4
    assert not any("/query/" in i[0] for i in found.train)
    assert truth(found.train) is None  # the rule names the test images alone
    assert {i[1] for i in found.query} == {i[1] for i in found.gallery} == {0}
    assert {i[2] for i in found.query} == {0, 1}


def test_without_cameras_queries_and_gallery_are_told_apart(people):
    found = folder(people / "people", identity="folder:0", test_include="^003")
    assert {i[2] for i in found.query} == {0} and {i[2] for i in found.gallery} == {1}


def test_gallery_images_without_a_name_are_distractors(people):
    save(people / "people" / "stranger.png")
    save(people / "people" / "stranger2.png")
    found = folder(
        people / "people",
        camera="([0-9])[._]",
        identity=r"^(\d+)/",
        test_include="^003|stranger2",
        exclude="stranger.png",
    )
    assert [i[1] for i in found.gallery].count(-1) == 1


def test_view_angles_become_sectors(tmp_path):
    for view in (0, 17, 18, 35, 36, 53, 54, 71):
        save(tmp_path / f"obj1__{view}.png")
    found = folder(tmp_path, camera=r"__(\d+)", camera_sectors=(72, 4))
    by_view = {int(re.search(r"__(\d+)", p)[1]): c for p, _, c in found.train}
    expected = {0: 0, 17: 0, 18: 1, 35: 1, 36: 2, 53: 2, 54: 3, 71: 3}
    assert by_view == {v: f"folder_{s}" for v, s in expected.items()}


def test_a_rule_takes_a_folder_a_group_or_a_named_group():
    assert Rule("camera", "folder:1")("a/b/c.png") == "b"
    assert Rule("camera", "folder:2")("a/b/c.png") is None
    assert Rule("camera", r"_c(\d+)")("x_c12_y.png") == "12"
    assert Rule("camera", r"(a|b)/(?P<camera>\w+)\.")("a/left.png") == "left"
    assert Rule("camera", "")("x.png") == ""


def test_tracklets_and_times_are_read_off_names_and_belong_to_a_camera(tmp_path):
    for name in ("1/1_t7_f05.png", "1/1_t7_f6.png", "2/2_t7_f5.png", "2/alone_f9.png"):
        save(tmp_path / name)
    found = folder(tmp_path, camera="folder:0", tracklet=r"_(t\d+)_", time=r"_f(\d+)")
    told = {os.path.relpath(path, tmp_path): said for path, said in found.tracks.items()}
    assert told == {
        **{"1/1_t7_f05.png": ("1/t7", 5.0), "1/1_t7_f6.png": ("1/t7", 6.0)},
        **{"2/2_t7_f5.png": ("2/t7", 5.0)},
    }
    assert tracks_of([i[0] for i in found.train], found.tracks).tracklets.tolist() == [0, 0, 1, -1]
    assert folder(tmp_path).tracks == {}


def test_a_table_says_what_names_do_not(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png"):
        save(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,tracklet,time\na.png,x,3\nsub/c.png,y,\nb.png,,\n")
    found = folder(tmp_path, tracklet="file:t.csv", time="file:t.csv")
    said = [found.tracks.get(path) for path, _, _ in found.train]
    assert [s and s[0] for s in said] == ["0/x", None, "0/y"]
    assert said[0][1] == 3 and np.isnan(said[2][1])


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    save(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    save(tmp_path.parent / f"{tmp_path.name}-other" / "y.png")
    (tmp_path / "link").symlink_to(tmp_path.parent / f"{tmp_path.name}-other")
    assert list_images(tmp_path) == ["a/x.png", "link/y.png"]


def broken(path):
    """Four kinds of unreadable image."""
    save(path / "good.jpg")
    save(path / "good.png")
    jpeg, png = (path / "good.jpg").read_bytes(), (path / "good.png").read_bytes()
    (path / "empty.jpg").write_bytes(b"")
    (path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (path / "cut.png").write_bytes(png[: len(png) // 2])
    (path / "text.bmp").write_text("not an image at all")
    return {"empty.jpg", "cut.jpg", "cut.png", "text.bmp"}


def test_unreadable_images_are_reported_by_path_and_left_out(tmp_path, caplog):
    bad = broken(tmp_path)
    with caplog.at_level(logging.WARNING, "fastreid.cc.checks"):
        found = folder(tmp_path, max_bad_share=0.7)
    assert {os.path.basename(i[0]) for i in found.train} == {"good.jpg", "good.png"}
    for name in bad:
        assert str(tmp_path / name) in caplog.text
    assert "empty file" in caplog.text


def test_too_many_unreadable_images_stop_the_run(tmp_path):
    broken(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)4 of 6 images.*cut\.jpg.*CC\.FOLDER\.MAX_BAD_SHARE"):
        folder(tmp_path)


def test_a_repaired_image_is_read_again(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    assert checks.fault(str(path)) == "empty file"
    save(path)
    assert checks.fault(str(path)) is None
    assert "No such file" in checks.fault(str(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": ""}, r"CC\.FOLDER\.ROOT is empty"),
        ({"root": "nowhere"}, r"CC\.FOLDER\.ROOT=.*no folder .*nowhere"),
        ({"root": "empty"}, r"CC\.FOLDER\.ROOT=.*no image"),
        ({"camera": r"cam(\d)"}, r"CC\.FOLDER\.CAMERA='cam.*does not match '000/01_0\.png'"),
        ({"identity": r"id(\d)"}, r"CC\.FOLDER\.IDENTITY=.*matches no image.*'000/01_0\.png'"),
        ({"tracklet": r"t(\d)"}, r"CC\.FOLDER\.TRACKLET=.*matches no image.*'000/01_0\.png'"),
        ({"tracklet": "folder:0", "time": "f(x)"}, r"CC\.FOLDER\.TIME='f\(x\)' matches no image"),
        ({"tracklet": "folder:0", "time": "(p)ng"}, r"CC\.FOLDER\.TIME=.*reads 'p' off '000/01_0"),
        ({"tracklet": "file:no.csv"}, r"CC\.FOLDER\.TRACKLET='file:no\.csv': .*cannot be read: No"),
        ({"tracklet": "file:000/01_0.png"}, r"TRACKLET=.* no table with the columns image and tra"),
        ({"include": "zebra"}, r"CC\.FOLDER\.INCLUDE='zebra'.*'000/01_0\.png'"),
        ({"camera": "folder:0", "camera_sectors": (2, 2)}, r"CC\.FOLDER\.CAMERA_SECTORS=\(2, 2\)"),
        (
            {"identity": "folder:0", "test_include": "zebra"},
            r"CC\.FOLDER\.TEST_INCLUDE='zebra' matches no image.*'000/01_0\.png'",
        ),
        (
            {"identity": "folder:0", "query": "q", "gallery": "g"},
            r"CC\.FOLDER\.QUERY='q': no folder",
        ),
        (
            {
                "identity": "folder:0",
                "camera": r"/(\d+)_",
                "test_include": "^003",
                "query_cameras": (1,),
                "gallery_cameras": (1,),
            },
            r"None of 2 queries, e\.g\. '003/01_0\.png' has a match of another camera",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_its_key(people, options, message):
    (people / "people" / "empty").mkdir()
    root = options.pop("root", None)
    where = people / "people" if root is None else (people / "people" / root if root else "")
    with pytest.raises(ValueError, match=message):
        folder(where, **options)


def test_a_query_without_identity_is_refused(people):
    with pytest.raises(ValueError, match=r"CC\.FOLDER\.IDENTITY=.*no identity to 2 of 4 queries"):
        folder(
            people / "people",
            identity=r"^(00[012])/",
            camera=r"/(\d+)_",
            test_include="^00[23]",
            query_cameras=(1,),
        )


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"camera": "c(", "include": "["}, ["CC.FOLDER.CAMERA", "CC.FOLDER.INCLUDE"]),
        ({"camera": "cam"}, ["CC.FOLDER.CAMERA='cam' needs one group"]),
        ({"camera": "folder:x"}, ["CC.FOLDER.CAMERA='folder:x'"]),
        ({"query": "q", "identity": "folder:0"}, ["CC.FOLDER.QUERY and CC.FOLDER.GALLERY"]),
        ({"test_include": "a"}, ["CC.FOLDER.IDENTITY"]),
        ({"query_cameras": (1,)}, ["CC.FOLDER.QUERY_CAMERAS"]),
        ({"time": "a(b)"}, ["CC.FOLDER.TIME", "set CC.FOLDER.TRACKLET"]),
        ({"max_bad_share": 1.0}, ["CC.FOLDER.MAX_BAD_SHARE=1.0"]),
        ({"camera_sectors": (4, 72)}, ["CC.FOLDER.CAMERA_SECTORS=(4, 72)"]),
    ],
)
def test_faults_of_the_options_are_reported_together(options, messages):
    with pytest.raises(ValueError) as raised:
        FolderOptions(root="x", **options)
    for message in messages:
        assert message in str(raised.value)


def test_items_are_sorted_once_and_listed_once():
    items = [("b/x", 1, 0), ("a/y", 2, 1), ("a/x", 1, 1)]
    assert [i[0] for i in sort_items(items)] == ["a/x", "a/y", "b/x"]
    assert items[0][0] == "b/x"
    with pytest.raises(ValueError, match="a/x is listed twice"):
        sort_items([*items, ("a/x", 3, 3)])


def test_numbers_follow_the_sorted_values():
    values, distinct = number(["10", 10, 9, "b", 9])
    assert distinct == [9, 10, "10", "b"]
    assert values.tolist() == [2, 1, 0, 3, 0]


def test_truth_is_kept_apart_from_placeholders():
    items = [("a", "folder_x", 0), ("b", "unknown_0000001", 0), ("c", -1, 0), ("d", "folder_a", 0)]
    assert truth(items).tolist() == [1, -1, -1, 0]
    assert truth(items[1:3]) is None


def test_leave_one_out_says_what_does_not_fit():
    for options, key in (
        ({}, "TEST_INCLUDE"),
        ({"test_include": "t", "identity": "folder:0", "apart": "camera"}, "CC.FOLDER.CAMERA"),
        ({"test_include": "t", "identity": "folder:0", "apart": "_"}, "one group"),
        ({"measure": "query", "apart": "camera"}, "leave-one-out"),
    ):
        with pytest.raises(ValueError, match=key):
            FolderOptions(root="r", **{"measure": "leave-one-out", **options})


def test_a_rule_of_what_stands_apart_must_fit_every_test_image(people):
    rules = {"identity": "folder:0", "test_include": "^003", "measure": "leave-one-out"}
    with pytest.raises(BadConfig, match=r"APART='cam.*' does not match '003/01_0\.png'"):
        folder(people / "people", apart=r"cam(\d)", **rules)
