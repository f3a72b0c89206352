import json
import sys

import numpy as np
import pytest
from oracles import labels as oracle

from fastreid_cc import __main__ as cli
from fastreid_cc.labeling import PseudoLabeler, memory_budget

FEATURES = oracle.small_clouds(0, 200)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "f.npy", FEATURES)
    np.save(tmp_path / "c.npy", np.arange(200) % 4)
    return tmp_path


def run(files, *options):
    words = [str(files / "f.npy"), "--out", str(files / "o.npz"), *options]
    return cli.main(["label", *words])


def test_the_file_holds_labels_eps_settings_and_seconds(files, capsys):
    assert run(files, "--k1", "12", "--k2", "4", "--eps", "0.5") == 0
    saved = np.load(files / "o.npz")
    np.testing.assert_array_equal(
        saved["labels"], oracle.dbscan(oracle.jaccard(FEATURES, 12, 4), 0.5, 4)
    )
    assert saved["labels"].dtype == np.int64 and saved["eps"] == 0.5
    settings = json.loads(str(saved["settings"]))
    assert settings["CC.DISTANCE"] == {"name": "jaccard", "k1": 12, "k2": 4}
    assert settings["CC.CLUSTER"]["min_samples"] == 4
    assert {"neighbors", "distance", "cluster"} <= set(json.loads(str(saved["seconds"])))
    assert "outliers of 200 images at eps 0.5" in capsys.readouterr().out


def test_defaults_equal_the_labeler(files):
    assert run(files) == 0
    np.testing.assert_array_equal(
        np.load(files / "o.npz")["labels"], PseudoLabeler()(FEATURES).labels
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--distance", "ca_jaccard", "--cams", "c.npy"),
        ("--distance", "cosine", "--cluster", "components", "--eps", "0.3"),
        ("--cluster", "kmeans", "--num-clusters", "9"),
        ("--cluster", "hdbscan"),
        ("--refine", "self_paced", "--refine", "min_size", "--min-size", "3"),
        ("--refine", "single_camera", "--cams", "c.npy"),
    ],
)
def test_every_kind_of_part_can_be_chosen(files, options):
    options = [str(files / word) if word.endswith(".npy") else word for word in options]
    assert run(files, *options, "--quiet") == 0
    assert np.load(files / "o.npz")["labels"].shape == (200,)


def test_a_sweep_prints_a_table_and_writes_a_report(files, capsys):
    assert run(files, "--sweep", "0.4:0.6:0.1", "--report", str(files / "sweep")) == 0
    table = (files / "sweep.txt").read_text()
    said = capsys.readouterr().out
    assert table in said and "sweep.txt, " in said and "sweep.svg" in said
    assert [line.split()[0] for line in table.splitlines()] == ["eps", "0.400", "0.500", "0.600"]
    assert table.splitlines()[2].split()[4].count("/") == 2
    plot = (files / "sweep.svg").read_text()
    assert "<svg" in plot and "nan" not in plot


def test_few_images_in_one_cluster_are_a_hint_at_k1(files, capsys):
    np.save(files / "f.npy", FEATURES[:50])
    assert run(files) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 cluster, 0 outliers of 50 images")
    assert "--k1 30 compares 30 neighbours of each of 50 images. Try --k1 6 --k2 2." in said
    assert run(files, "--k1", "6", "--k2", "2") == 0
    said = capsys.readouterr().out
    assert "clusters, " in said and "Nobody" not in said


def test_without_matplotlib_the_extra_is_named_before_the_work(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(files, "--sweep", "0.4:0.6:0.1", "--report", str(files / "sweep")) == 1
    assert "pip install 'matplotlib>=3.6'" in capsys.readouterr().err
    assert not (files / "o.npz").exists()


def test_too_little_memory_is_a_failure_not_a_wrong_use(files, capsys, monkeypatch):
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: 1000)
    assert run(files) == 1
    assert "CC.CLUSTER.NAME=infomap" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (("--eps", "1.7"), "CC.CLUSTER.DBSCAN.EPS=1.7"),
        (("--probes", "4"), "--probes: no part chosen here has this option"),
        (("--refine", "single_camera"), "needs the cameras"),
        (("--sweep", "0.5"), "want FROM:TO:STEP"),
        (("--sweep", "0.7:0.5:0.1"), "0 < FROM <= TO"),
        (("--threads", "0"), "--threads 0"),
        (("--cams", "missing.npy"), "missing.npy: no such file"),
    ],
)
def test_faults_are_one_line_and_leave_no_file(files, capsys, options, message):
    assert run(files, *options) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (files / "o.npz").exists()


def test_files_that_hold_something_else_are_refused(files, capsys):
    np.save(files / "f.npy", np.arange(5))
    assert run(files) == 2
    assert "found int64" in capsys.readouterr().err
    (files / "f.npy").write_bytes(b"no array")
    assert run(files) == 2
    assert "not a plain .npy" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["labelling", "writing"])
def test_an_interrupt_leaves_the_old_file_and_no_other(files, monkeypatch, capsys, when):
    assert run(files, "--quiet") == 0
    before = (files / "o.npz").read_bytes()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    if when == "labelling":
        monkeypatch.setattr(PseudoLabeler, "sweep", interrupted)
    else:
        monkeypatch.setattr(np, "savez", interrupted)
    assert run(files, "--eps", "0.4") == 130
    assert (files / "o.npz").read_bytes() == before
    assert sorted(path.name for path in files.iterdir()) == ["c.npy", "f.npy", "o.npz"]
    assert capsys.readouterr().err == "label: interrupted\n"


def test_the_command_needs_no_fastreid(files):
    known = set(sys.modules)
    run(files, "--quiet")
    assert not {name for name in set(sys.modules) - known if name.split(".")[0] == "fastreid"}
