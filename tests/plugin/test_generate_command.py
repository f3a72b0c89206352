"""`generate` from a config: images of a folder and of a generated set, again, resumed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stand_ins import draw_all
from tiny_runs import PAIRS, YAML

from fastreid_cc import __main__ as cli

pytestmark = pytest.mark.usefixtures("plugin")
DCGAN = ("CC.GENERATE.NAME", "dcgan")
DCGAN = (*DCGAN, "CC.GENERATE.DCGAN.HEIGHT", 32, "CC.GENERATE.DCGAN.WIDTH", 16)
DCGAN = (*DCGAN, "CC.GENERATE.DCGAN.CHANNELS", 2, "CC.GENERATE.DCGAN.STEPS", 2)
TRANSFER = ("CC.GENERATE.NAME", "pose_transfer")
for _key, _value in {
    "HEIGHT": 32, "WIDTH": 24, "CHANNELS": 2, "BLOCKS": 1, "VIEWS": 2, "STEPS": 1, "BATCH": 2,
}.items():  # fmt: skip
    TRANSFER = (*TRANSFER, f"CC.GENERATE.POSE_TRANSFER.{_key}", _value)  # type: ignore[assignment]


@pytest.fixture
def folder(tmp_path: Path) -> tuple[object, ...]:
    """KEY VALUE of a folder of six tracklets by two images."""
    names = [(f"t{p}/{p}{s}.png", p) for p in range(6) for s in range(2)]
    draw_all(tmp_path / "crops", names)
    return "DATASETS.NAMES", "('UnlabeledFolder',)", "CC.FOLDER.ROOT", tmp_path / "crops"


def generate(capsys: Any, out: Path, *words: object) -> tuple[int, str, str]:
    few = [*map(str, PAIRS)]
    status = cli.main(["generate", str(YAML), "--out", str(out), *few, *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_blends_of_a_folders_tracklets(
    folder: tuple[object, ...], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    words = (*folder, "CC.GENERATE.PEOPLE", "folder:0", "CC.GENERATE.BLEND.HEIGHT", 32)
    status, printed, error = generate(capsys, out, "--count", 7, *words)
    assert status == 0, error
    assert "images: 7 images by CC.GENERATE.BLEND, from 12" in printed
    found = content(out / "images")
    assert len(found) == 7 and {p.name for p in out.iterdir()} == {
        "images", "origins.csv", "beside.png", "generate.json",
    }  # fmt: skip
    for line in (out / "origins.csv").read_text().splitlines()[1:]:
        one, other = line.split(",")[1].split(" | ")
        assert Path(one).parent != Path(other).parent
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert generate(capsys, out, "--count", 7, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    status, _, error = generate(capsys, out, "--count", 8, *words)
    assert status == 2 and "--count differ" in error and "another --out" in error


def test_dcgan_and_a_second_call_that_draws_by_its_checkpoint(
    folder: tuple[object, ...], tmp_path: Path, capsys: Any
) -> None:
    words = (*folder, *DCGAN, "CC.GENERATE.DCGAN.BATCH", 4)
    assert generate(capsys, tmp_path / "a", *words)[0] == 0
    again = (*words, "CC.FOLDER.EXCLUDE", "t[2-5]", "--trained", tmp_path / "a", "--count", 12)
    assert generate(capsys, tmp_path / "b", *again)[0] == 0
    first, second = content(tmp_path / "a" / "images"), content(tmp_path / "b" / "images")
    assert first == second and len(first) == 12
    assert not (tmp_path / "b" / "checkpoint.pth").exists()
    more = (*again, "CC.GENERATE.DCGAN.STEPS", 3)
    status, _, error = generate(capsys, tmp_path / "c", *more)
    assert status == 2 and "2 of 3 steps were made there" in error
    assert np.asarray(Image.open(tmp_path / "a" / "images" / "dcgan_0000003.png")).shape == (
        32,
        16,
        3,
    )


def test_views_of_generated_people_and_of_test_images(tmp_path: Path, capsys: Any) -> None:
    words = (*TRANSFER, "CC.GENERATE.PEOPLE", "identities", "CC.GENERATE.POSES", "synthetic")
    status, printed, error = generate(capsys, tmp_path / "out", *words, "--tests")
    assert status == 0, error
    names = set(content(tmp_path / "out" / "images"))
    assert "144 images" in printed and len(names) == 144 == 2 * (48 + 24)
    stems = {name.rpartition("_to_")[0] for name in names}
    assert {name for name in names} == {f"{stem}_to_{k}.png" for stem in stems for k in (1, 2)}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--count", 0), 2, "0 must be at least 1"),
        (("CC.GENERATE.NAME", "dcgn"), 2, "Did you mean 'dcgan'?"),
        (("CC.SEED",), 2, "come in pairs"),
        (
            (*DCGAN, "CC.GENERATE.DCGAN.BATCH", 64),
            2,
            "more images than there are to learn from, 48",
        ),
        ((*DCGAN, "CC.GENERATE.DCGAN.RATE", 2.0), 2, "CC.GENERATE.DCGAN.RATE=2.0 must lie in"),
        (TRANSFER, 2, "say by CC.GENERATE.PEOPLE who is on an image"),
        ((*TRANSFER, "CC.GENERATE.PEOPLE", "identities"), 2, "CC.GENERATE.POSES is empty"),
        (("--trained", "nowhere"), 2, "no checkpoint.pth in it"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    words: tuple[object, ...], status: int, told: str, tmp_path: Path, capsys: Any
) -> None:
    try:
        found, _, error = generate(capsys, tmp_path / "out", *words)
    except SystemExit as ended:  # argparse's own
        found, error = int(str(ended.code)), capsys.readouterr().err
    assert (found, told in error) == (status, True), error
    assert not (tmp_path / "out").exists()
