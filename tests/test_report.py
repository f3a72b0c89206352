"""The report page: its figures are the run's, nothing in it runs or comes from elsewhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from report_runs import EVIL, Page, clustered, label_free, made_test_set, supervised, unit, write

from fastreid_cc.commands import report
from fastreid_cc.errors import ClearError, WrongUse
from fastreid_cc.labels.similarities import separate
from fastreid_cc.report import Clustered, Run, RunFeatures, TestSet, build_page, read_run
from fastreid_cc.report.clusters import (
    agreement,
    choose,
    describe,
    halves,
    linked_cameras,
    loosest,
    nearest_pairs,
    spread,
)
from fastreid_cc.report.pictures import Album
from fastreid_cc.report.ranking import rank
from fastreid_cc.report.runs import names, read_metrics

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A page about a label-free and a supervised run, both with names that would break markup."""
    folder = tmp_path_factory.mktemp("runs")
    first = label_free(folder)
    first.name = EVIL
    first.config["OUTPUT_DIR"] = EVIL
    first.features.clustered.paths[5] = str(folder / "train" / EVIL.replace("/", "\\"))
    Path(first.features.clustered.paths[5]).write_bytes(b"no image")
    return folder, build_page([first, supervised(folder)])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run and the page about it."""
    run = label_free(tmp_path_factory.mktemp("run"))
    return run, build_page([run])


def test_figures_stay_with_their_signs_and_all_outliers_are_not_called_some(alone) -> None:
    page = alone[1]
    assert "4 images in no cluster, from the nearest" in page and "% outliers" in page
    assert "tightness&nbsp;0." in page and "purity&nbsp;100&nbsp;%" in page


# ---- figures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["mAP", "Rank-1", "total_loss", "cc/num_clusters", "cc/outlier_share", "cc/ari"]
)
def test_figures_below_the_curves_are_those_of_metrics_json(
    alone: tuple[Run, str], key: str
) -> None:
    run, page = alone[0], Page(alone[1])
    lines = [json.loads(line) for line in (run.folder / "metrics.json").read_text().splitlines()]
    scale = 100 if key == "cc/outlier_share" else 1
    logged = {line["iteration"]: line[key] * scale for line in lines if key in line}
    assert column(page, f"{run.name}: {key}") == pytest.approx(logged, rel=1e-5)


def column(page: Page, head: str) -> dict[int, float]:
    """Step -> value of a series in the tables below the curves."""
    table = next(table for table in page.tables if head in table[0])
    at = table[0].index(head)
    return {int(row[0]): float(row[at]) for row in table[1:] if row[at]}


def test_tiles_show_the_last_values(alone: tuple[Run, str]) -> None:
    page = alone[1]
    for value in ("57.8", "75.0", "22", "9.0", "0.70", "2.3"):
        assert f"<b>{value}</b>" in page
    assert "for 5 identities" in page


def test_the_summary_of_several_runs_shows_each_and_marks_the_best(comparison) -> None:
    page = Page(comparison[1])
    head, first, second = page.tables[0]
    columns = dict(zip(head, zip(first, second, strict=True), strict=True))
    assert columns["mAP"] == ("57.8", "59.8") and columns["clusters"] == ("22", "–")
    best = [attrs for tag, attrs in page.tags if attrs.get("class") == "best"]
    assert len(best) == 1


def test_the_figure_before_training_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    lines = write(tmp_path / "run", offset=1.0)
    assert "before training" not in build_page([read_run(tmp_path / "run", "run")])
    with (tmp_path / "run/metrics.json").open("a") as stream:
        stream.write('{"iteration": 0, "start/mAP": 11.25}\n')
    run = read_run(tmp_path / "run", "run")
    page = build_page([run])
    assert "before training 11.2 %" in page
    shown = column(Page(page), "run: mAP")
    assert shown[0] == 11.25 and len(shown) == 1 + sum("mAP" in x for x in lines)
    with (tmp_path / "run/metrics.json").open("a") as stream:
        stream.write('{"iteration": 40, "transfer/mAP": 22.5}\n')
    assert read_run(tmp_path / "run", "run").before() == 22.5


def test_keys_that_differ_are_listed(comparison) -> None:
    table = next(t for t in Page(comparison[1]).tables if t[0][:1] == ["key"])
    assert [row[0] for row in table[1:]] == ["OUTPUT_DIR", "SOLVER.BASE_LR"]


def test_long_series_are_thinned_in_the_table_and_whole_in_the_curve(tmp_path: Path) -> None:
    write(tmp_path / "long")
    with (tmp_path / "long/metrics.json").open("a") as stream:
        stream.writelines(
            f'{{"iteration": {i}, "time": 1, "x": {i}, "total_loss": {i}}}\n'
            for i in range(200, 5200)
        )
    page = build_page([read_run(tmp_path / "long", "long")])
    table = next(t for t in Page(page).tables if "long: total_loss" in t[0])
    assert len(table) == 201 and table[-1] == ["5199", "5199"] and "200 of 5,005 rows" in page
    assert column(Page(page), "long: x")[5199] == 5199  # whatever a run records
    assert ["time", "1", "5000 times the same"] in [row for t in Page(page).tables for row in t]


# ---- safety ---------------------------------------------------------------------------------


def test_names_of_runs_files_and_values_stay_text(comparison) -> None:
    page = Page(comparison[1])
    assert page.faults == []
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "form")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert EVIL in page.text
    assert any(EVIL.replace("/", "\\") in title for title in page.attributes("title"))


def test_nothing_is_loaded_from_elsewhere(comparison) -> None:
    _, text = comparison
    page = Page(text)
    for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
        assert all(value.startswith(("data:", "#")) for value in page.attributes(name)), name
    assert set(re.findall(r"url\(([^)]{0,1})", text)) <= {"#"}
    assert "@import" not in text and "http://" not in text and "https://" not in text
    policy = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert "default-src 'none'" in policy and "script-src" not in policy


def test_ids_are_unique_and_links_lead_to_them(comparison) -> None:
    page = Page(comparison[1])
    ids = Counter(page.attributes("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)


def test_images_are_small_and_their_sum_is_bounded(tmp_path: Path) -> None:
    images = clustered(tmp_path)
    album = Album(budget=2000)
    found = [album.uri(path) for path in images.paths]
    assert found[0].startswith("data:image/jpeg;base64,") and found[-1] is None
    assert album.used <= 2000 and album.refused == found.count(None)


def test_a_page_without_images_keeps_the_figures_and_names_no_file(alone: tuple[Run, str]) -> None:
    run = alone[0]
    text = build_page([run], show_images=False)
    page = Page(text)
    assert page.faults == [] and "data:image" not in text and "<img" not in text
    names = [Path(path).name for path in run.features.clustered.paths + run.features.tests[0].paths]
    assert not [name for name in names if name in text]
    for part in ("Perhaps one identity twice", "Suggested threshold", "Map of", "CMC", "Outliers"):
        assert part in text
    assert "The page holds no image" in text


def test_clusters_lead_to_their_folders_where_these_are(alone, tmp_path: Path) -> None:
    assert "makes a folder of each" in alone[1]
    run = label_free(tmp_path, name="a run")
    for name, image in (
        ("cluster_00003_10_images", "000001_a.png"),
        ("cluster_00002_8_images", "000013_a.png"),  # it has seven images
        ("cluster_00004_9_images", "000000_a.png"),  # another cluster, by names kept from before
    ):
        (run.folder / "clusters" / name).mkdir(parents=True)
        (run.folder / "clusters" / name / image).touch()
    page = Page(build_page([run], folder=tmp_path))
    links = {href for href in page.attributes("href") if not href.startswith(("#", "data:"))}
    assert links == {"a%20run/clusters/cluster_00003_10_images/"}


def test_an_unreadable_image_is_a_gap_and_a_note(comparison) -> None:
    assert "no image</span>" in comparison[1]
    assert "1 image file(s) could not be read." in comparison[1]


def test_the_same_run_gives_the_same_bytes(alone: tuple[Run, str]) -> None:
    assert build_page([alone[0]]) == alone[1]


def test_chapters_follow_what_there_is(comparison, tmp_path: Path) -> None:
    def chapters(text: str) -> list[str]:
        return [a["id"] for tag, a in Page(text).tags if tag == "section" and "id" in a]

    both = ["clusters-0", "similarities-0", "curves", "retrieval", "outliers-0", "cameras", "setup"]
    assert chapters(comparison[1]) == both
    assert "Where the runs differ most" not in comparison[1]  # six queries, all shown
    own = label_free(tmp_path, name="own")  # every image is a class of its own, as ECN has it
    own.features.clustered.labels[:] = np.arange(40)
    assert chapters(build_page([own])) == ["curves", "retrieval", "cameras", "setup"]
    write(tmp_path / "bare", has_clusters=False)
    assert chapters(build_page([read_run(tmp_path / "bare", "bare")])) == ["curves", "setup"]


# ---- what is computed -----------------------------------------------------------------------


def test_ranking_equals_a_loop_over_queries(tmp_path: Path) -> None:
    test = made_test_set(tmp_path)
    found, split = rank(test, top=5), test.num_query
    for q in range(split):
        cosine = test.features[split:] @ test.features[q]
        listed = [
            g
            for g in np.argsort(-cosine) + split
            if (test.identities[g], test.cameras[g]) != (test.identities[q], test.cameras[q])
        ]
        right = [test.identities[g] == test.identities[q] for g in listed]
        hits = [i for i, is_right in enumerate(right) if is_right]
        precision = np.mean([(n + 1) / (i + 1) for n, i in enumerate(hits)])
        assert found.precision[q] == pytest.approx(precision)
        assert found.first[q] == right[0] and found.place[q] == hits[0] + 1
        assert found.top[q].tolist() == listed[:5] and found.right[q].tolist() == right[:5]
    matched = [np.mean([place <= rank for place in found.place]) for rank in range(1, 21)]
    assert found.matches() == pytest.approx(np.array(matched))
    assert found.mean_precision == pytest.approx(100 * found.precision.mean())
    assert found.by_camera[0, 1] == pytest.approx(_one_camera(test))
    assert np.isnan(found.by_camera[0, 0])  # only their own camera: nothing to find


def _one_camera(test: TestSet) -> float:
    """mAP with the gallery of camera 1 alone."""
    keep = (np.arange(30) < 6) | (test.cameras == 1)
    paths = [path for path, kept in zip(test.paths, keep, strict=True) if kept]
    part = TestSet("x", paths, test.identities[keep], test.cameras[keep], test.features[keep], 6)
    return float(np.mean(rank(part).precision))


def test_a_query_without_a_match_does_not_count(tmp_path: Path) -> None:
    test = made_test_set(tmp_path)
    test.identities[0] = 77
    found = rank(test)
    assert np.isnan(found.precision[0]) and not np.isnan(found.mean_precision)


def test_facts_equal_loops(tmp_path: Path) -> None:
    images = clustered(tmp_path)
    facts = describe(images)
    centres = unit(np.stack([images.features[images.labels == c].mean(0) for c in range(5)]))
    for c in range(5):
        rows = np.flatnonzero(images.labels == c)
        cosine = images.features[rows] @ centres.T
        other = np.delete(cosine, c, axis=1).max(axis=1)
        assert facts.tightness[c] == pytest.approx(cosine[:, c].mean(), abs=1e-5)
        assert facts.margin[c] == pytest.approx((cosine[:, c] - other).mean(), abs=1e-5)
        assert facts.cameras[c] == len(set(images.cameras[rows]))
        assert facts.purity[c] == pytest.approx((images.truth[rows] == c).mean())
    assert facts.sizes.tolist() == [4, 6, 7, 10, 9] and facts.majority.tolist() == [*range(5)]
    assert (facts.nearest[images.labels < 0] == images.truth[images.labels < 0]).all()


def test_sheets_are_in_the_order_they_say_and_show_a_cluster_once(tmp_path: Path) -> None:
    facts = describe(clustered(tmp_path))
    sheets = {title: chosen.tolist() for title, _, chosen in choose(facts, 2, without=[4])}
    assert sheets["Largest"] == [3, 2]
    left = sorted([0, 1], key=lambda c: -facts.tightness[c])
    assert sheets["Tightest"] == left and "Most mixed over cameras" not in sheets  # none is left
    mixed = choose(facts, 9)[0][2]
    assert mixed.tolist() == np.argsort(-facts.sizes, kind="stable").tolist()


def test_doubtful_clusters_are_the_loosest_and_the_nearest_pairs(tmp_path: Path) -> None:
    images = clustered(tmp_path)
    facts = describe(images)
    parts = [images.features[images.labels == c] for c in range(5)]
    near = np.array([[(a @ b.T).mean() for b in parts] for a in parts]) - 2 * np.eye(5)
    np.testing.assert_allclose(facts.alike, near.max(1), atol=1e-6)
    assert loosest(facts, 3).tolist() == np.argsort(facts.tightness)[:3].tolist()
    pairs = nearest_pairs(facts, 9)
    assert facts.neighbor.tolist() == near.argmax(1).tolist()
    assert pairs[0] == tuple(sorted(divmod(int(near.argmax()), 5)))
    assert {frozenset(pair) for pair in pairs} == {
        frozenset((c, near[c].argmax())) for c in range(5)
    }
    assert len(pairs) == len({frozenset(pair) for pair in pairs})


def test_identities_in_several_clusters_are_counted(tmp_path: Path) -> None:
    images = clustered(tmp_path)
    assert agreement(images) == (5, 1, 5, 1)  # one image is mislabelled
    blind = Clustered(images.paths, images.cameras, images.labels, images.features)
    assert agreement(blind) is None


def test_the_threshold_is_tried_on_the_test_images(alone: tuple[Run, str]) -> None:
    features = alone[0].features
    at = separate(features.clustered.features, features.clustered.labels).threshold(0.01)
    assert f"Suggested threshold {at:.2f}" in alone[1]
    test = features.tests[0]
    found = separate(test.features, test.identities)
    false, missed = 100 * found.false_match_rate(at), 100 * found.miss_rate(at)
    assert f"test images of Made {false:.1f} % and {missed:.1f} %" in alone[1]


def test_a_cluster_is_split_where_its_images_differ_most() -> None:
    generator = np.random.default_rng(5)
    identity = np.repeat([0, 1], [4, 7])
    rows = unit(np.eye(2, 8)[identity] + generator.normal(0, 0.1, (11, 8)))
    side, alike = halves(rows)
    assert side.tolist() == (identity == 1).tolist()
    a, b = rows[:4].mean(0), rows[4:].mean(0)
    assert alike == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    side, alike = halves(np.tile(rows[:1], (3, 1)))
    assert side.sum() in (0, 1, 2) and alike == pytest.approx(1, abs=1e-5)


def test_one_cluster_has_no_other(tmp_path: Path) -> None:
    images = clustered(tmp_path)
    alone = Clustered(images.paths, images.cameras, np.zeros(40, np.int64), images.features)
    assert describe(alone).nearest.tolist() == [-1] * 40
    run = label_free(tmp_path)
    run.features = RunFeatures(alone)
    page = Page(build_page([run]))
    assert page.faults == [] and "Perhaps one identity twice" not in page.text


def test_a_single_camera_is_not_named_below_every_image(tmp_path: Path) -> None:
    run = label_free(tmp_path)
    run.features.clustered.cameras[:] = 0
    run.features.tests.clear()
    text = build_page([run])
    assert "<figcaption>c0" not in text and "c is the camera" not in text
    assert "Most mixed over cameras" not in text and 'id="cameras"' not in text


def test_linked_cameras_counts_clusters() -> None:
    labels, cameras = np.array([0, 0, 1, 2, 2, -1]), np.array([4, 7, 4, 7, 7, 9])
    images = Clustered([""] * 6, cameras, labels, np.eye(6, dtype=np.float32))
    found, share = linked_cameras(images)
    assert found.tolist() == [4, 7, 9]
    np.testing.assert_array_equal(share[:2, :2], [[1, 0.5], [0.5, 1]])
    assert np.isnan(share[2]).all()


def test_spread_takes_both_ends() -> None:
    assert spread(np.arange(100), 4).tolist() == [0, 33, 66, 99]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]


# ---- reading --------------------------------------------------------------------------------


def test_a_resumed_run_counts_its_later_values_and_a_torn_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(
        '{"iteration": 9, "a": 1}\n{"iteration": 19, "a": 2, "b": 5}\n'
        '{"iteration": 9, "a": 3}\n[]\n{"iteration": 19, "a'
    )
    found, notes = read_metrics(path)
    assert [values.tolist() for values in found["a"]] == [[9], [3.0]]
    assert [values.tolist() for values in found["b"]] == [[19], [5.0]]
    assert len(notes) == 2 and "Line 5" in notes[1]


def test_a_config_that_would_build_objects_is_not_built(tmp_path: Path) -> None:
    write(tmp_path / "run")
    planted = tmp_path / "planted"
    (tmp_path / "run/config.yaml").write_text(f"A: !!python/object/apply:os.mkdir [{planted}]")
    run = read_run(tmp_path / "run", "run")
    assert not planted.exists() and run.config == {} and "cannot be read" in run.notes[0]


def test_short_names_are_as_long_as_it_takes(tmp_path: Path) -> None:
    assert names([tmp_path / "a/x", tmp_path / "b/x"]) == ["a/x", "b/x"]
    assert names([tmp_path / "a/x", tmp_path / "a/y"]) == ["x", "y"]
    assert names([tmp_path / "x", tmp_path / "x"])[1].endswith("(2)")


# ---- the command ----------------------------------------------------------------------------


def test_the_command_writes_beside_the_run(tmp_path: Path, capsys) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert report.main([str(tmp_path / "a"), "--recorded-only", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(tmp_path / "a/report.html")
    assert told["runs"][0]["last"]["mAP"] == 57.75
    assert report.main([str(tmp_path / "a"), str(tmp_path / "b"), "--recorded-only"]) == 0
    assert "Comparison of 2 runs" in (tmp_path / "a/comparison.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "no such folder"),
        (["."], "neither metrics.json nor config.yaml"),
        (["a", "--out", "nowhere/x.html"], "there is no folder nowhere"),
    ],
)
def test_faults_say_what_was_wanted_and_leave_no_file(
    tmp_path: Path, monkeypatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a")
    with pytest.raises(WrongUse, match=message):
        report.main([*arguments, "--recorded-only"])
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == ["config.yaml", "metrics.json"]


def test_a_count_below_1_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        report.main([str(tmp_path), "--top", "0"])
    assert end.value.code == 2
    assert "--top: 0 must be at least 1" in capsys.readouterr().err


def test_without_matplotlib_the_package_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    write(tmp_path / "a")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ClearError, match="pip install 'matplotlib>=3.6'"):
        report.run(report.parser().parse_args([str(tmp_path / "a")]))


def test_leave_one_out_counts_no_camera_of_each_image_and_leaves_the_query_out() -> None:
    """Each image has a "camera" of its own: no table of 120 x 120, and no answer to itself."""
    generator = np.random.default_rng(0)
    features = np.tile(unit(generator.normal(size=(120, 8)).astype(np.float32)), (2, 1))
    paths = [f"{row:03d}.png" for row in range(120)] * 2
    identities, own = np.tile(np.arange(120) // 3, 2), np.tile(np.arange(120), 2)
    found = rank(TestSet("Made", paths, identities, own, features, 120), top=5)
    assert found.cameras.shape == (0,) and found.by_camera.shape == (0, 0)
    assert not (found.top - 120 == np.arange(120)[:, None]).any()
