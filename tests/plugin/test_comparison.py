"""The network before and after training, compared without identities, in runs of seconds."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_no_label_leak import replace_identities
from test_resume import same_end
from tiny_runs import build, config, digest, metrics, train, weights

from fastreid_cc.labels import helped
from fastreid_cc.plugin.seeding import sample_rows
from fastreid_cc.plugin.trainer.comparison_hook import ComparisonHook
from fastreid_cc.structures import PseudoLabels

pytestmark = pytest.mark.usefixtures("plugin")

ON = ("CC.COMPARE_IMAGES", 20)
NAMES = ("start/mirror_rank", "mirror_rank")


def figures(output: Path) -> dict[str, float]:
    """The figure in metrics.json, before and after."""
    lines = metrics(output)
    found = {key: value for line in lines for key, value in line.items()}
    return {key: found[key] for key in NAMES}


def test_figures_are_recorded_said_at_the_end_and_change_no_byte(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(tmp_path / "off"))
    assert "it started from" not in caplog.text
    train(config(tmp_path / "on", *ON))
    found = figures(tmp_path / "on")
    assert all(1 / 20 <= value <= 1 for value in found.values())
    assert digest(weights(tmp_path / "on")) == digest(weights(tmp_path / "off"))
    on, off = (torch.load(tmp_path / n / "model_final.pth") for n in ("on", "off"))
    assert torch.equal(on["cc"]["labels"], off["cc"]["labels"])
    (closing,) = [r.getMessage() for r in caplog.records if "it started from" in r.getMessage()]
    assert f"{found['start/mirror_rank']:.3f} → {found['mirror_rank']:.3f}" in closing
    lines = metrics(tmp_path / "on")
    steps = [[line["iteration"] for line in lines if name in line] for name in NAMES]
    assert steps == [[4], [4]]


def test_a_teacher_stays_in_evaluation_mode(tmp_path: Path) -> None:
    """It was left in training mode, and what learns from it failed."""
    taught = ("CC.TEACHER.ENABLED", True, "MODEL.LOSSES.NAME", "('MemoryContrast','SoftContrast')")
    for name, more in (("off", ()), ("on", ON)):
        train(config(tmp_path / name, *taught, *more))
    for part in (".", "teacher"):
        on, off = (digest(weights(tmp_path / name / part)) for name in ("on", "off"))
        assert on == off


def test_a_network_that_lost_its_features_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last weights are noise; the run goes on to say so."""
    trainer = build(config(tmp_path, *ON))
    stock = ComparisonHook.after_train

    def after_train(hook: Any) -> None:
        for values in hook.trainer.model.parameters():
            values.data.zero_()
        stock(hook)

    monkeypatch.setattr(ComparisonHook, "after_train", after_train)
    trainer.train()
    (said,) = [r for r in caplog.records if "looks worse" in r.getMessage()]
    assert said.levelno == logging.WARNING and "SOLVER.BASE_LR" in said.getMessage()


KEPT = (*ON, "CC.KEEP_START", True)


def test_first_clusters_that_given_weights_cannot_tell_apart_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights are not asked. The limit is such that weights of four steps are above it."""

    def wrong(name: str) -> list[float]:
        lines = metrics(tmp_path / name)
        return [line["start/wrong_answers"] for line in lines if "start/wrong_answers" in line]

    given = ("MODEL.WEIGHTS", tmp_path / "random/model_final.pth")
    monkeypatch.setattr(helped, "MOST_WRONG", 0.01)
    train(config(tmp_path / "random", *KEPT))
    train(config(tmp_path / "unasked", *ON, *given))
    assert wrong("random") == wrong("unasked") == [] and "first clusters" not in caplog.text
    train(config(tmp_path / "given", *KEPT, *given))
    (found,) = wrong("given")
    assert 0.01 < found < 0.6
    (said,) = [r for r in caplog.records if "first clusters" in r.getMessage()]
    assert said.levelno == logging.WARNING and f"{100 * found:.0f} % of the" in said.getMessage()
    caplog.clear()
    monkeypatch.setattr(helped, "MOST_WRONG", found)
    train(config(tmp_path / "again", *KEPT, *given))
    assert wrong("again") == [found] and "first clusters" not in caplog.text


@pytest.mark.parametrize("is_taught", [False, True])
def test_where_training_harmed_the_start_is_kept(
    is_taught: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trained weights are noise: they lie beside the start's, which are measured and saved."""
    more = ("TEST.EVAL_PERIOD", 1, "CC.EVAL_BEFORE", True, "CC.TEACHER.ENABLED", is_taught)
    trainer = build(config(tmp_path, *KEPT, *more))
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    stock = ComparisonHook.after_epoch

    def after_epoch(hook: Any) -> None:
        if hook.trainer.epoch + 1 == hook.trainer.max_epoch:
            for values in hook._network.parameters():
                values.data.zero_()
        stock(hook)

    monkeypatch.setattr(ComparisonHook, "after_epoch", after_epoch)
    trainer.train()
    final, midway = (torch.load(tmp_path / name) for name in ("model_final.pth", "model_0000.pth"))
    trained = torch.load(tmp_path / "model_trained.pth")["model"]
    assert start.keys() == trained.keys()
    for name, value in start.items():
        assert torch.equal(final["model"][name], value)
        assert torch.equal(midway["cc_comparison"]["start"][name], value)  # it outlives a resume
    assert not any(values.any() for name, values in trained.items() if name.endswith("weight"))
    assert "start" not in final["cc_comparison"]
    if is_taught:
        taught = torch.load(tmp_path / "teacher" / "model_final.pth")["model"]
        assert all(torch.equal(taught[name], value) for name, value in start.items())
    found = {key: value for line in metrics(tmp_path) for key, value in line.items()}
    assert found["kept_start"] == 1 and found["mAP"] == found["start/mAP"]
    assert 0 < found["trained/mAP"] < 100
    (said,) = [r for r in caplog.records if "of the start are kept" in r.getMessage()]
    assert said.levelno == logging.WARNING and "model_trained.pth" in said.getMessage()


def test_a_training_that_did_no_harm_is_the_result(tmp_path: Path) -> None:
    for name, more in (("off", ON), ("on", KEPT)):
        train(config(tmp_path / name, *more))
    assert digest(weights(tmp_path / "on")) == digest(weights(tmp_path / "off"))
    assert figures(tmp_path / "on") == figures(tmp_path / "off")
    assert not (tmp_path / "on" / "model_trained.pth").exists()


def test_the_figures_of_the_start_outlive_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(tmp_path, monkeypatch, 3, *ON, "SOLVER.MAX_EPOCH", 3)
    assert figures(tmp_path / "whole") == figures(tmp_path / "parts")


def test_identities_change_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(tmp_path / "true", *ON))
    generator = np.random.default_rng(3)
    replace_identities(monkeypatch, lambda ids: [ids[i] for i in generator.permutation(len(ids))])
    train(config(tmp_path / "permuted", *ON))
    assert figures(tmp_path / "true") == figures(tmp_path / "permuted")


def test_a_sample_is_drawn_once_in_the_order_of_the_data() -> None:
    one, again = sample_rows(50, 20, 1).tolist(), sample_rows(50, 20, 1).tolist()
    assert one == again == sorted(set(one)) and len(one) == 20 and max(one) < 50
    assert sample_rows(50, 20, 2).tolist() != one
    assert sample_rows(50, 50, 1).tolist() == list(range(50))


def test_a_labelling_that_is_not_fit_is_said_when_it_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from fastreid.utils.events import EventStorage

    from fastreid_cc.plugin.trainer.run_log import log_labelling

    images: Any = SimpleNamespace(cameras=np.zeros(10, np.int64), truth=None)
    for clustered in (2, 8):
        labels = PseudoLabels(np.where(np.arange(10) < clustered, 0, -1))
        with EventStorage(0) as storage:
            trainer = SimpleNamespace(epoch=0, iter=0, storage=storage)
            log_labelling(trainer, images, labels, previous=None, extracted=0.0, total=0.0)
        assert ("may not be fit" in caplog.text) is (clustered == 2)
        caplog.clear()
