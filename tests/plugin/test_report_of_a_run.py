"""The report of a real, tiny run: from its folder alone, with the figures the run logged."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import source_runs
import tiny_runs

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT_DIR of a run that ended, with CC.REPORT."""
    output = tmp_path_factory.mktemp("finished")
    with tiny_runs.plugin_at(data_root):
        tiny_runs.train(tiny_runs.config(output, "CC.REPORT", True))
    return output


def test_a_run_writes_its_report_with_images_of_clusters_and_answers(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for anchor in ("curves", "retrieval", "clusters-0", "cameras", "setup"):
        assert f'<section id="{anchor}">' in page
    assert page.count("data:image/jpeg") > 50
    told = json.loads((finished / "versions.json").read_text())
    assert told["device"] == "cpu" and "python" in told["command"]
    assert told["started"] <= told["ended"] and "resumed" not in told


def test_a_labelling_is_compared_with_the_one_before(finished: Path) -> None:
    lines = [line for line in tiny_runs.metrics(finished) if "cc/num_clusters" in line]
    assert "cc/stability" not in lines[0] and len(lines) > 1
    assert all(-1 <= line["cc/stability"] <= 1 for line in lines[1:])


def test_a_resumed_run_keeps_when_it_began(tmp_path: Path) -> None:
    from fastreid_cc.plugin.trainer import report_hook as record

    class Trainer:
        iter, max_iter = 0, 8

    hook = record.ReportHook(tiny_runs.config(tmp_path))
    hook.trainer = Trainer()
    hook.before_train()
    file = tmp_path / "versions.json"
    first = json.loads(file.read_text()) | {"started": "2026-01-01 00:00:00 UTC"}
    file.write_text(json.dumps(first))
    hook.trainer.iter = 4
    hook.before_train()
    told = json.loads(file.read_text())
    assert told["started"] == first["started"] < told["resumed"] and "ended" not in told


def test_features_from_the_checkpoint_give_the_figures_the_run_logged(finished: Path) -> None:
    from fastreid_cc.plugin.offline.run_features import collect
    from fastreid_cc.report.ranking import rank

    found = collect(finished)
    logged = tiny_runs.metrics(finished)[-1]
    assert found.notes == []
    ranking = rank(found.tests[0])
    assert ranking.mean_precision == pytest.approx(logged["mAP"], abs=1e-4)
    assert ranking.rank1 == pytest.approx(logged["Rank-1"], abs=1e-4)
    assert len(found.clustered.labels) == 48 and found.clustered.features.shape == (48, 128)


@pytest.mark.parametrize("kind", ["teacher", "two networks", "sources"])
def test_features_are_those_of_the_network_that_was_measured(
    kind: str, data_root: Path, tmp_path: Path
) -> None:
    from fastreid_cc.plugin.offline.run_features import collect
    from fastreid_cc.report.ranking import rank

    teacher = ("CC.TEACHER.ENABLED", True, "CC.TEACHER.MOMENTUM", 0.9, "CC.TEACHER.RAMP", False)
    options = {
        "teacher": teacher,
        "two networks": (*teacher, "MODEL.META_ARCHITECTURE", "MutualContrast"),
        "sources": (*source_runs.JOINT, "CC.SOURCES.BN", "domain"),
    }[kind]
    tiny_runs.train(tiny_runs.config(tmp_path, *options, "SOLVER.MAX_EPOCH", 1))
    found = collect(tmp_path)
    assert found.notes == [] and found.clustered is not None
    logged = tiny_runs.metrics(tmp_path)[-1]
    assert rank(found.tests[0]).mean_precision == pytest.approx(logged["mAP"], abs=1e-4)


def test_what_is_missing_becomes_a_note(finished: Path, tmp_path: Path) -> None:
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.target_images import collect_images
    from fastreid_cc.plugin.offline.run_features import collect
    from fastreid_cc.plugin.offline.run_folder import read_config

    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    assert "no such checkpoint" in collect(tmp_path).notes[0]
    (tmp_path / "model_final.pth").write_bytes((finished / "model_final.pth").read_bytes()[:-999])
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert "model_final.pth is damaged" in collect(tmp_path).notes[0]
    text = (finished / "config.yaml").read_text().replace("TRAIN_IDS: 8", "TRAIN_IDS: 13")
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "model_final.pth").write_bytes((finished / "model_final.pth").read_bytes())
    found = collect(tmp_path)  # draws nothing
    assert found.clustered is None and found.tests == []
    assert all("the run's images are not in" in note for note in found.notes)
    cfg = read_config(tmp_path)
    configure_from(cfg)
    collect_images(cfg)  # draws it
    found = collect(tmp_path)
    assert found.clustered is None and "labels 48 images" in found.notes[0] and found.tests


def test_a_report_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid_cc.plugin.trainer import report_hook as record

    class Ended:
        iter = max_iter = 4

    hook = record.ReportHook(tiny_runs.config(tmp_path / "out", "CC.REPORT", True))
    hook.trainer = Ended()
    for python, message in (("false", "No report: 1"), ("no-such-program", "No report: [Errno 2]")):
        monkeypatch.setattr(sys, "executable", python)
        with caplog.at_level(logging.WARNING):
            hook.after_train()
        assert caplog.messages[-1].startswith(message)
    hook.before_train()  # there is no folder to write to
    assert "versions.json was not written" in caplog.messages[-1]


def test_a_training_that_broke_off_gets_no_report(tmp_path: Path) -> None:
    from fastreid_cc.plugin.trainer import report_hook as record

    class Broken:
        iter, max_iter = 3, 4

    hook = record.ReportHook(tiny_runs.config(tmp_path, "CC.REPORT", True))
    hook.trainer = Broken()
    hook.after_train()
    assert list(tmp_path.iterdir()) == []
