"""The gallery: what it keeps over a kill, whom it knows, and the command's way through."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastreid_cc import __main__ as cli
from fastreid_cc.errors import ClearError

pytest.importorskip("qdrant_edge")
from fastreid_cc.gallery.shelf import EdgeShelf, ServerShelf, Shelf  # noqa: E402


def features_of_names(names: Sequence[str], size: int = 8) -> np.ndarray:
    """A unit feature of each name: of its letters before "_" with a little noise."""
    rows = []
    for name in names:
        person = np.random.default_rng(list(Path(name).stem.split("_")[0].encode()))
        image = np.random.default_rng(list(Path(name).name.encode()))
        rows.append(person.normal(size=size) + image.normal(0, 0.15, size))
    found = np.asarray(rows, np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def filled(shelf: Shelf) -> Shelf:
    names = [f"/x/{who}_{n}.jpg" for who in ("ann", "bob", "cid") for n in range(4)]
    shelf.add(features_of_names(names), [Path(x).stem.split("_")[0] for x in names], names)
    return shelf


def check(shelf: Shelf) -> None:
    """The same on every engine."""
    filled(shelf)
    filled(shelf)  # again: nothing is twice
    assert shelf.sizes() == {"ann": 4, "bob": 4, "cid": 4}
    asked = features_of_names(["/x/bob_9.jpg", "/x/ann_9.jpg"])
    kept = {image: feature for feature, _, image in shelf.everything()}
    found = shelf.nearest(asked, 3)
    for feature, matches in zip(asked, found, strict=True):
        best = sorted(kept, key=lambda image: -float(kept[image] @ feature))[:3]
        assert [match.image for match in matches] == best
        assert matches[0].cosine == pytest.approx(float(kept[best[0]] @ feature), abs=1e-5)
    assert [matches[0].individual for matches in found] == ["bob", "ann"]
    assert shelf.remove("individual", "bob") == 4 and shelf.remove("individual", "bob") == 0
    assert shelf.remove("image", "/x/ann_0.jpg") == 1
    assert shelf.sizes() == {"ann": 3, "cid": 4} and len(list(shelf.everything())) == 7


def test_the_embedded_engine_keeps_finds_and_forgets(tmp_path: Path) -> None:
    shelf = EdgeShelf(tmp_path / "shelf", 8)
    check(shelf)
    with pytest.raises(ClearError, match="another process has it open"):
        EdgeShelf(tmp_path / "shelf")
    shelf.close()
    again = EdgeShelf(tmp_path / "shelf")
    assert again.sizes() == {"ann": 3, "cid": 4}
    again.close()


def test_a_server_s_collection_does_the_same() -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    check(ServerShelf(client, "individuals", 8))


KILLED = """
import sys, numpy as np
from pathlib import Path
from fastreid_cc.gallery import shelf
shelf.BATCH = 50
kept = shelf.EdgeShelf(Path(sys.argv[1]), 8)
for n in range(100000):
    rows = [f"/x/{n}_{k}" for k in range(100)]
    kept.add(np.eye(100, 8, dtype=np.float32) + n, [f"i{n}"] * 100, rows)
    print(n, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_told(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "shelf")]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(5):
        last = int(child.stdout.readline())
    time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    told = [int(line) for line in child.stdout.read().split()]
    child.wait()
    shelf = EdgeShelf(tmp_path / "shelf")
    sizes = shelf.sizes()
    assert all(sizes[f"i{n}"] == 100 for n in range(max([last, *told]) + 1))
    assert all(len(feature) == 8 for feature, _, _ in shelf.everything())
    shelf.close()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of images whose names stand for their features, and a network that reads them so."""
    from PIL import Image

    from fastreid_cc.commands import gallery

    def embed(model: str, paths: Sequence[str], **_: Any) -> tuple[np.ndarray, str]:
        return features_of_names(paths), model

    monkeypatch.setattr(gallery, "features_of", embed)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"weights")
    folders = {"known": "ann bob cid dee eve fay".split(), "others": "gus hal ida jim".split()}
    for folder, people in folders.items():
        (tmp_path / folder).mkdir()
        for who in people:
            for n in range(6):
                Image.new("RGB", (4, 4)).save(tmp_path / folder / f"{who}_{n}.png")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main(["gallery", *map(str, words)])
    return status, *capsys.readouterr()


def test_the_way_through(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: object) -> dict[str, Any]:
        status, out, err = run(capsys, *words, "--json")
        assert status == 0, err
        return json.loads(out)

    made = told("add", "store", "--names", "^([a-z]+)_", "--model", "net.onnx", "known")
    assert made == {"added": 36, "images": 36, "individuals": 6}
    status, _, err = run(capsys, "query", "store", "others")
    assert status == 2 and "gallery calibrate" in err
    rows = [(p, Path(p).stem[:3]) for p in map(str, sorted((photos / "known").iterdir()))]
    with open("labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("image", "cluster"), *rows])
    by_clusters = told("calibrate", "store", "labels.csv")
    by_rule = told("calibrate", "store", "known", "--names", "^([a-z]+)_")
    own = told("calibrate", "store")
    assert 0.3 < own["threshold"] < 0.99 and 0 <= own["false_match_rate"] <= 0.2
    assert by_clusters["threshold"] == pytest.approx(by_rule["threshold"], abs=0.05)
    found = told("query", "store", "others", "known/ann_0.png", "--csv", "who.csv")
    names = [line["individual"] for line in found["images"]]
    assert names[-1] == "ann" and names[:-1].count("new") >= 20
    assert found["false_match_rate"] == own["false_match_rate"]
    with open("who.csv") as stream:
        assert [row["individual"] for row in csv.DictReader(stream)] == names
    count = told("count", "store", "others")
    assert count["low"] <= 4 <= count["high"] and count["named"] == 6
    assert told("remove", "store", "--name", "bob") == {"removed": 6}
    listed = told("list", "store")
    assert list(listed["individuals"]) == ["ann", "cid", "dee", "eve", "fay"]
    assert listed["threshold"] == own["threshold"]
    for words in (("query", "store", "others"), ("list", "store"), ("count", "store", "others")):
        status, out, _ = run(capsys, *words)
        assert status == 0 and out.count("\n") >= 2


def test_clusters_of_other_things_than_individuals_give_way_to_the_gallery(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object) -> dict[str, Any]:
        return json.loads(run(capsys, "calibrate", "store", *words, "--json")[1])

    run(capsys, "add", "store", "--names", "^([a-z]+)_", "--model", "net.onnx", "known")
    images = sorted((photos / "known").iterdir())
    for name, part in (("people", slice(0, 3)), ("numbers", slice(4, 5))):
        rows = [("image", "cluster"), *((image, image.stem[part]) for image in images)]
        with open(f"{name}.csv", "w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    own, what = told(), "6 groups of numbers.csv"
    assert told("people.csv")["doubted"] == ""
    assert told("numbers.csv") == {**own, "doubted": what}
    trusted = told("numbers.csv", "--trust")
    assert (trusted["doubted"], trusted["calibrated_on"]) == ("", what)
    assert trusted["false_match_rate"] > own["false_match_rate"]
    by_rule = told("known", "--names", r"_(\d)")  # what a tracker says is not doubted
    assert by_rule == {**trusted, "calibrated_on": "6 groups of known"}
    fixed = told("people.csv", "--max-false-matches", "0")
    assert fixed["doubted"] == "", "the rate asked for is no reason to doubt"
    assert "--trust goes by them\n" in run(capsys, "calibrate", "store", "numbers.csv")[1]
    for who in ("bob", "cid", "dee", "eve", "fay"):
        run(capsys, "remove", "store", "--name", who)
    alone = told("numbers.csv")
    assert alone["doubted"] == alone["calibrated_on"] == what


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "empty"), "holds no gallery"),
        (("add", "empty", "known", "--name", "ann"), "name the network with --model"),
        (("add", "store", "known"), "whose images are they"),
        (("add", "store", "known", "--names", "^(x)"), "finds nothing in ann_0.png"),
        (("add", "store", "gone.csv"), "no such file"),
        (("remove", "store", "--name", "zoe"), "no individual 'zoe'"),
        (("query", "store", "known", "--tob", "3"), "unrecognized arguments: --tob"),
    ],
)
def test_mistakes_are_one_message(
    photos: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], message: str
) -> None:
    run(capsys, "add", "store", "known/ann_0.png", "--name", "ann", "--model", "net.onnx")
    try:
        status, out, err = run(capsys, *words)
    except SystemExit as end:  # of the parser
        status, (out, err) = end.code, capsys.readouterr()
    assert status == 2 and out == "" and message in err, err
    assert not Path("empty").exists()


def test_an_image_named_twice_is_added_once(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ("known/ann_1.png", "known/ann_0.png", "known/ann_0.png")
    words = ("--name", "ann", "--model", "net.onnx", "--json")
    status, out, _ = run(capsys, "add", "store", *images, *words)
    assert status == 0 and json.loads(out) == {"added": 2, "images": 2, "individuals": 1}


def test_another_network_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "add", "store", "known/ann_0.png", "--name", "ann", "--model", "net.onnx")
    Path("net.onnx").write_bytes(b"other weights")
    for words in (("query", "store", "known", "--threshold", 0.5), ("count", "store", "known")):
        status, _, err = run(capsys, *words)
        assert status == 2 and "has changed since the gallery was made" in err
    status, _, err = run(capsys, "add", "store", "known", "--name", "x", "--model", "net.onnx")
    assert status == 2 and "two networks" in err
