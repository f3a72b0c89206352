"""`fewshot` on a tiny run: figures, file, the untrained control, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import answer, build, config, plugin_at, train

from fastreid_cc.commands.fewshot import images_of
from fastreid_cc.report.runs import TestSet

pytestmark = pytest.mark.usefixtures("plugin")
SMALL = ("--ways", 2, 4, "--shots", 1, 2, "--queries", 2, "--episodes", 50, "--probes", 1)


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fewshot") / "run"
    with plugin_at(data_root):
        cfg = config(folder)
        train(cfg)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def run(capsys: Any, *words: object) -> tuple[int, str, str]:
    return answer(capsys, "fewshot", *words)


def test_a_run_is_measured_into_a_file_and_a_table(finished: Path, capsys: Any) -> None:
    status, out, err = run(capsys, finished, *SMALL)
    assert status == 0, err
    told = json.loads((finished / "fewshot.json").read_text())
    found = told["sets"]["SyntheticReID"]
    assert (found["people"], found["images"], found["cameras"]) == (4, 24, 2)
    assert [(row["ways"], row["shots"]) for row in found["episodes"]] == [
        (2, 1), (4, 1), (2, 2), (4, 2),
    ]  # fmt: skip
    for row in found["episodes"]:
        assert 0 <= row["accuracy"] <= 100 and 0 < row["interval"] < 20
        assert f"{row['accuracy']:.1f} ± {row['interval']:.1f}" in out
    assert [set(row) for row in found["everybody"]] == [
        {"people", "shots", "mAP", "rank1", "linear_probe"}
    ] * 2
    assert "covers neither the seed of the training" in out
    assert told["model"].endswith("model_final.pth") and told["any_camera"] is False
    status, out, _ = run(capsys, finished, *SMALL, "--json")
    assert status == 0 and json.loads(out) == told  # the same draws


def test_the_control_is_the_network_that_the_training_starts_from(
    finished: Path, capsys: Any, tmp_path: Path
) -> None:
    from fastreid_cc.plugin.offline import run_features

    options = ("--episodes", 5, "--probes", 0, "--queries", 2, "--shots", 1, "--ways", 2)
    out = tmp_path / "start.json"
    assert run(capsys, finished, *options, "--untrained", "--out", out)[0] == 0
    told = json.loads(out.read_text())
    assert told["model"] == "random weights, CC.SEED 1"
    assert "linear_probe" not in told["sets"]["SyntheticReID"]["everybody"][0]
    (one,), _ = run_features.tested_sets(str(finished), pairs=[], checkpoint="", untrained=True)
    (trained,), _ = run_features.tested_sets(str(finished), pairs=[], checkpoint="")
    cfg = config(tmp_path / "start")
    again = run_features._test_set(cfg, build(cfg).model.eval(), "SyntheticReID")
    assert np.array_equal(one.features, again.features)
    assert not np.allclose(one.features, trained.features, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ways", 5), "4 of 4 people have 1 images to enrol and, on other cameras, 3 more"),
        (("--ways", 2, "--shots", 4), "0 of 4 people .* --any-camera lets them"),
        (("--ways", 1), "--ways 1: with one person"),
        (("--seed", -1), "--seed and --probes must be 0 or more"),
        (("--untrained", "--checkpoint", "x.pth"), "--untrained has no --checkpoint"),
        (("--checkpoint", "no.pth"), "no such checkpoint"),
        (("--set", "DATASETS.TESTS", "()"), r"DATASETS\.TESTS=\(\) holds no query"),
        (("--out", "nowhere/a.json"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_message(
    words: tuple[object, ...], said: str, finished: Path, capsys: Any
) -> None:
    status, out, err = run(capsys, finished, *words)
    assert status == 2 and not out and re.search(said, err), err
    assert len(err.splitlines()) <= 3


def test_an_image_counts_once_and_who_is_never_asked_for_is_nobody() -> None:
    paths, ids = ["q1", "a", "b", "a", "junk"], np.array([3, 3, 7, 3, -1])
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    test = TestSet("x", paths, ids, np.array([1, 2, 2, 2, 3]), features, 1)
    kept, cameras, rows = images_of(test)
    assert kept.tolist() == [3, -1, -1, 3] and cameras.tolist() == [2, 2, 3, 1]
    assert rows.tolist() == [[2, 3], [4, 5], [8, 9], [0, 1]]
