"""A run that was stopped and resumed ends with the bytes of one that was not."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import (
    build,
    command,
    config,
    digest,
    metrics,
    plugin_at,
    run,
    same,
    train,
    weights,
)

from fastreid_cc import memories  # noqa: F401  register
from fastreid_cc.registry import MEMORIES

pytestmark = pytest.mark.usefixtures("plugin")


class Stopped(Exception):
    """Stands for whatever ends a run."""


def train_until(cfg: Any, iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains and fails in the step of an iteration."""
    trainer = build(cfg)
    stock = trainer._trainer.run_step

    def run_step() -> None:
        if trainer.iter == iteration:
            raise Stopped
        trainer._trainer.iter = trainer.iter
        stock()

    monkeypatch.setattr(trainer._trainer, "run_step", run_step)
    with pytest.raises(Stopped):
        trainer.train()


def same_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    iteration: int,
    *options: object,
    whole: Path | None = None,
) -> None:
    """Trains through, unless a run that did is given; trains until `iteration`, then resumes.

    Compares the final checkpoints.
    """
    if whole is None:
        whole = tmp_path / "whole"
        train(config(whole, *options))
    train_until(config(tmp_path / "parts", *options), iteration, monkeypatch)
    assert not (tmp_path / "parts" / "model_final.pth").exists()
    resume_to_the_same_end(tmp_path / "parts", iteration // 2, whole, *options)


def resume_to_the_same_end(folder: Path, epoch: int, whole: Path, *options: object) -> None:
    """Resumes at an epoch; optimizer, schedule, labels and memory end as the whole run's."""
    resumed = build(config(folder, *options), resume=True)
    assert resumed.start_epoch == epoch
    resumed.train()
    ends = [torch.load(path / "model_final.pth") for path in (whole, folder)]
    assert digest(ends[0]["model"]) == digest(ends[1]["model"])
    assert same(*ends) == ""


@pytest.mark.parametrize("memory", MEMORIES.names())
def test_resume_with_every_memory(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-epoch and between two labellings; then before an epoch that is labelled anew."""
    options = ("CC.MEMORY.NAME", memory, "SOLVER.MAX_EPOCH", 4, "CC.LABELS.PERIOD", 2)
    same_end(tmp_path, monkeypatch, 3, *options)
    parts = tmp_path / "parts"
    (parts / "last_checkpoint").write_text("model_0001.pth")
    (parts / "model_final.pth").unlink()
    resume_to_the_same_end(parts, 2, tmp_path / "whole", *options)


WARM_UP: tuple[object, ...] = (
    *("SOLVER.MAX_EPOCH", 4, "CC.WARMUP.EPOCHS", 2),
    *("CC.LABELS.PERIOD", 2, "CC.EXTRACT.BN", "camera"),
)


@pytest.fixture(scope="module")
def warmed_up(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("warmed-up")
    with plugin_at(data_root):
        train(config(output, *WARM_UP))
    return output


@pytest.mark.parametrize("iteration", [1, 3, 4, 5, 6])
def test_resume_around_the_end_of_warm_up(
    iteration: int, warmed_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(tmp_path, monkeypatch, iteration, *WARM_UP, whole=warmed_up)


def test_resume_with_outliers_as_singletons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(
        tmp_path,
        monkeypatch,
        3,
        "CC.LABELS.OUTLIERS",
        "singleton",
        "CC.LABELS.PERIOD",
        2,
    )


def test_kill_in_mid_epoch_and_resume_by_the_command_line(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 by `python -m fastreid_cc`; the end equals a run inside this process."""
    options = ("SOLVER.MAX_EPOCH", 3, "DATALOADER.NUM_WORKERS", 2, "CC.LABELS.PERIOD", 2)
    output = tmp_path / "killed"
    line = command(output, *options, imports=("kill_switch",))
    monkeypatch.setenv("KILL_AT", "3")
    killed = run(data_root, line)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert not (output / "model_0001.pth").exists()  # in mid-epoch, the second one
    monkeypatch.delenv("KILL_AT")
    resumed = run(data_root, command(output, *options, flags=("--resume",)))
    assert resumed.returncode == 0, resumed.stdout
    assert "Starting training from epoch 1" in resumed.stdout
    train(config(tmp_path / "whole", *options))
    assert digest(weights(output)) == digest(weights(tmp_path / "whole"))

    before = (output / "model_final.pth").read_bytes()
    again = run(data_root, command(output, *options, flags=("--resume",)))
    assert again.returncode == 0, again.stdout
    assert "clusters, " not in again.stdout.split("Starting training from")[-1]  # nothing labelled
    assert (output / "model_final.pth").read_bytes() == before


def test_resume_of_a_finished_job_trains_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(tmp_path))
    before = digest(weights(tmp_path))
    lines = len(metrics(tmp_path))
    caplog.clear()
    trainer = build(config(tmp_path), resume=True)
    trainer.train()
    assert digest(trainer.model.state_dict()) == before == digest(weights(tmp_path))
    assert not any(re.search("epoch .* clusters", r.getMessage()) for r in caplog.records)
    assert not any("cc/num_clusters" in line for line in metrics(tmp_path)[lines:])


def test_resume_on_a_data_set_of_another_size_is_refused(tmp_path: Path) -> None:
    train(config(tmp_path, "SOLVER.MAX_EPOCH", 1))
    with pytest.raises(ValueError, match="labels 48 images, DATASETS.NAMES has 54"):
        build(config(tmp_path, "CC.SYNTHETIC.TRAIN_IDS", 9), resume=True)


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    assert train(config(tmp_path, "SOLVER.MAX_EPOCH", 1), resume=True).start_epoch == 0
    assert (tmp_path / "model_final.pth").exists()


def test_rows_that_survive_a_labelling_are_there_in_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECN's instance memory starts at zero once, not at every labelling."""
    from fastreid_cc.memories.instance import InstanceMemory

    filled: list[int] = []
    original = InstanceMemory.reset

    def reset(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        filled.append(int((self.rows.norm(dim=1) > 0).sum()))

    monkeypatch.setattr(InstanceMemory, "reset", reset)
    train(config(tmp_path, "CC.MEMORY.NAME", "instance", "SOLVER.MAX_EPOCH", 3))
    assert len(filled) == 3
    assert 0 == filled[0] < filled[1] <= filled[2]
