"""What the page says of a run in words, when its stages ended and where its time went."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_runs import label_free, write

from fastreid_cc.report import Run, build_page, read_run
from fastreid_cc.report.charts import line_chart
from fastreid_cc.report.sections import tiles
from fastreid_cc.report.times import clock, common_marks, duration, marks, spent
from fastreid_cc.report.verdict import ADVICE, judge

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run without features: 22 clusters, 9 % outliers, 2.3 cameras per cluster."""
    write(tmp_path / "run")
    return read_run(tmp_path / "run", "run")


def put(run: Run, **values: float) -> None:
    for key, value in values.items():
        run.scalars[f"cc/{key}"] = (np.array([60, 80]), np.array([value, value]))


def test_every_advice_is_a_row_of_the_docs_table() -> None:
    table = (DOCS / "own-images.md").read_text().split("## 4. What to watch")[1].split("\n## ")[0]
    for advice in ADVICE.values():
        assert f"| {advice.sign} | {advice.meaning} | {advice.remedy} |" in table
    assert table.count("\n| ") - 2 <= len(ADVICE)  # head aside, nothing that a page cannot say


@pytest.mark.parametrize(
    ("key", "values", "figure"),
    [
        ("cameras", {"cameras_per_cluster": 1.1}, "1.10 cameras per cluster"),
        ("outliers", {"outlier_share": 0.5}, "50 % of the images are outliers"),
        ("huge", {"size_max": 500, "size_median": 12}, "has 500 images, the median one 12"),
        ("huge", {"num_clusters": 1}, "there is one cluster"),
        ("unsettled", {"stability": 0.4}, "the last two labellings are 0.40 alike"),
    ],
)
def test_a_sign_brings_its_row(run: Run, key: str, values: dict[str, float], figure: str) -> None:
    assert judge(run).findings == []
    put(run, **values)
    (found,) = judge(run).findings
    assert found.advice == ADVICE[key] and figure in found.figure


def test_the_verdict_stands_on_the_page(run: Run) -> None:
    assert "Nothing to watch" in build_page([run])
    put(run, num_clusters=1)
    page = build_page([run])
    assert "there is one cluster</b>: eps too large" in page
    assert "lower <code>CC.CLUSTER.DBSCAN.EPS</code> by 0.05" in page


def test_too_few_clusters_for_a_batch_and_harm_are_said(run: Run) -> None:
    run.config |= {"SOLVER.IMS_PER_BATCH": 256, "DATALOADER.NUM_INSTANCE": 8}
    assert [found.advice for found in judge(run).findings] == [ADVICE["few"]]
    run.scalars["start/mAP"] = (np.array([0]), np.array([60.0]))
    found = judge(run).findings[1]
    assert found.advice == ADVICE["harm"] and "from 60.0 to 57.8 %" in found.figure


@pytest.mark.parametrize(("before", "after", "is_said"), [(0.99, 0.9, True), (0.99, 0.99, False)])
def test_harm_is_seen_without_identities_where_there_is_no_map(
    run: Run, before: float, after: float, is_said: bool
) -> None:
    run.scalars["start/mirror_rank"] = (np.array([0]), np.array([before]))
    run.scalars["mirror_rank"] = (np.array([80]), np.array([after]))
    assert f"found by their mirror image {before:.3f} → {after:.3f}" in judge(run).figures
    found = judge(run).findings
    assert [finding.advice for finding in found] == [ADVICE["less"]] * is_said
    assert ("mirror_rank went from 0.990 to 0.900" in build_page([run])) is is_said
    run.scalars["start/mAP"] = (np.array([0]), np.array([10.0]))  # identities know better
    assert judge(run).findings == []


@pytest.mark.parametrize(("wrong", "is_said"), [(0.21, True), (0.134, False)])
def test_first_clusters_of_other_things_are_said(run: Run, wrong: float, is_said: bool) -> None:
    run.scalars["start/wrong_answers"] = (np.array([0]), np.array([wrong]))
    assert [found.advice for found in judge(run).findings] == [ADVICE["foreign"]] * is_said
    assert ("21 % wrong answers by the first clusters" in build_page([run])) is is_said


def test_one_camera_is_no_sign(run: Run) -> None:
    put(run, cameras_per_cluster=1.0)
    assert judge(run).findings == [] and "camera" not in " ".join(judge(run).figures)
    assert "Cameras" not in [tile.title for tile in tiles(run)]
    write(run.folder.parent / "supervised", has_clusters=False)
    assert judge(read_run(run.folder.parent / "supervised", "supervised")) is None


def test_stages_end_where_the_config_says(run: Run) -> None:
    assert marks(run) == []
    run.config |= {"CC.ENABLED": True, "CC.WARMUP.EPOCHS": 2, "CC.ITERS_PER_EPOCH": 10}
    assert marks(run) == [(20, "warm-up ends")]
    run.config |= {"CC.SOURCES.NAMES": ["A"], "CC.SOURCES.PRETRAIN_EPOCHS": 4}
    assert marks(run) == [(20, "warm-up ends"), (40, "source stage ends")]
    assert "source stage ends" in build_page([run])
    run.config |= {"CC.SOURCES.NAMES": [], "CC.SOURCES.FOLDERS.SHOP.ROOT": "shop"}
    assert marks(run) == [(20, "warm-up ends"), (40, "source stage ends")]
    run.config["CC.ITERS_PER_EPOCH"] = 0  # one pass: known from the first labelling
    run.scalars["cc/num_clusters"] = (np.array([60, 80]), np.array([9.0, 8.0]))
    assert marks(run) == [(30, "warm-up ends"), (60, "source stage ends")]
    assert common_marks([run, run]) == marks(run)


def test_counts_have_whole_numbers_on_an_axis_from_0() -> None:
    series = (np.array([10, 20]), np.array([22.0, 21.0]))
    drawn = line_chart([(0, series)], "x", last=20, is_count=True)
    ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", drawn)]
    assert all(tick == int(tick) for tick in ticks) and ticks.count(0) == 2


def test_times_add_up(run: Run) -> None:
    run.scalars["time"] = (np.arange(19, 100, 20), np.array([1.0, 1, 2, 2, 2]))
    put(run, seconds_cluster=1.0, seconds_extract=3.0)
    run.config |= {"CC.ENABLED": True, "CC.WARMUP.EPOCHS": 4, "CC.ITERS_PER_EPOCH": 10}
    run.versions |= {"started": "2026-11-21 23:58:00 UTC", "ended": "2026-11-22 00:02:00 UTC"}
    assert duration(run) == 240
    found = {part.part: (part.times, part.seconds) for part in spent(run)}
    assert found == {
        "training steps, warm-up": (40, 40),
        "training steps, after it": (60, 120),
        "labels: extract": (2, 6),
        "labels: cluster": (2, 2),
        "evaluation, checkpoints, start": (None, 72),
        "from start to end": (None, 240),
    }
    assert [name for name in found if "labels" in name] == ["labels: extract", "labels: cluster"]
    page = build_page([run])
    assert "4 min 00 s" in page and "2026-11-21 23:58:00 UTC" in page
    run.versions["resumed"] = "2026-11-22 00:00:00 UTC"
    assert duration(run) is None and "from start to end" not in {p.part for p in spent(run)}


def test_seconds_for_people() -> None:
    assert [clock(s) for s in (0.42, 48.2, 59.6, 474, 7500)] == [
        "0.4 s", "48 s", "1 min 00 s", "7 min 54 s", "2 h 05 min",
    ]  # fmt: skip


def test_the_command_is_on_the_page_as_text(tmp_path: Path) -> None:
    run = label_free(tmp_path)
    run.versions["command"] = "python train.py '<b>'"
    assert "python train.py &#39;&lt;b&gt;&#39;" in build_page([run])
    (run.folder / "versions.json").write_text(json.dumps(run.versions))
    assert read_run(run.folder, "x").versions["command"] == run.versions["command"]
