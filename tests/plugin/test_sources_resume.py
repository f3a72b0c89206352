"""Runs with sources that are killed and resumed, or split over two processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from source_runs import JOINT, PRETRAIN
from test_resume import same_end
from test_sources_faults import change_source
from test_two_processes import free_port
from tiny_runs import build, command, config, digest, run, same, train

pytestmark = pytest.mark.usefixtures("plugin")
TEACHER = ("CC.TEACHER.ENABLED", True, "CC.TEACHER.MOMENTUM", 0.5)


def test_resume_around_the_end_of_the_source_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*PRETRAIN, "SOLVER.SCHED", "CosineAnnealingLR", "CC.LABELS.PERIOD", 2)
    same_end(tmp_path / "1", monkeypatch, 1, *options)
    same_end(tmp_path / "3", monkeypatch, 3, *options, whole=tmp_path / "1" / "whole")


def test_resume_of_a_joint_run_around_the_end_of_its_source_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher, statistics settled on the target and every branch come back."""
    options = (
        *JOINT,
        *TEACHER,
        "CC.SOURCES.LOSSES",
        '("CrossEntropyLoss",)',
        "CC.SOURCES.PRETRAIN_EPOCHS",
        1,
        "CC.LABELS.PERIOD",
        2,
    )
    same_end(tmp_path / "1", monkeypatch, 1, *options)
    same_end(tmp_path / "3", monkeypatch, 3, *options, whole=tmp_path / "1" / "whole")


def test_resume_of_a_cluster_memory_with_source_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*JOINT, "CC.MEMORY.NAME", "cluster", "CC.REFINE.NAMES", "()", "CC.LABELS.PERIOD", 2)
    same_end(tmp_path, monkeypatch, 3, *options)


def test_kill_and_resume_of_a_joint_run_by_the_command_line(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the second epoch: teacher, memory, labels, every domain's statistics come back."""
    output, options = tmp_path / "killed", (*JOINT, *TEACHER)
    monkeypatch.setenv("KILL_AT", "3")
    killed = run(data_root, command(output, *options, imports=("kill_switch",)))
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    monkeypatch.delenv("KILL_AT")
    resumed = run(data_root, command(output, *options, flags=("--resume",)))
    assert resumed.returncode == 0, resumed.stdout
    assert "Starting training from epoch 1" in resumed.stdout
    train(config(tmp_path / "whole", *options))
    whole, parts = (torch.load(p / "model_final.pth") for p in (tmp_path / "whole", output))
    assert same(whole, parts) == ""
    assert any("sources.1.running_var" in name for name in whole["model"])
    assert whole["cc_teacher"]


def test_a_checkpoint_of_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, the same in another order, and the same with an image or an identity changed."""
    one = ("SOLVER.MAX_EPOCH", 1, "DATASETS.TESTS", "()", "CC.ITERS_PER_EPOCH", 1)
    options, names = (*JOINT, *one), ("SyntheticSource", "SyntheticSource2")
    train(config(tmp_path, *options))
    found = "trained with the sources SyntheticSource, SyntheticSource2; CC.SOURCES holds "
    with pytest.raises(ValueError, match=f"{found}none"):
        build(config(tmp_path, *one), resume=True)
    with pytest.raises(ValueError, match=f"{found}SyntheticSource2, SyntheticSource"):
        build(config(tmp_path, *options, "CC.SOURCES.NAMES", names[::-1]), resume=True)
    for change in (
        lambda items: [(p, items[n - 1][1], c) for n, (p, _, c) in enumerate(items)],
        lambda items: [(f"{p}.png" if n == 3 else p, i, c) for n, (p, i, c) in enumerate(items)],
    ):
        with monkeypatch.context() as patch:
            change_source(patch, change)
            with pytest.raises(ValueError, match="SyntheticSource2 of CC.SOURCES holds oth"):
                build(config(tmp_path, *options), resume=True)
    assert build(config(tmp_path, *options), resume=True).start_epoch == 1


def test_two_processes_hold_every_domain_and_the_same_memory(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--num-gpus 2` over gloo: each holds half of each domain's images; first sources alone."""
    monkeypatch.setenv("REPORT", str(tmp_path))
    flags = ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    losses = ("CC.SOURCES.LOSSES", '("CrossEntropyLoss",)')
    options = (*JOINT, *losses, "CC.SOURCES.PRETRAIN_EPOCHS", 1)
    done = run(data_root, command(tmp_path / "run", *options, flags=flags, imports=("run_report",)))
    assert done.returncode == 0, done.stdout
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    for report in (first, second):
        found = [domains.tolist() for domains in report["domains"]]
        assert found == [[1] * 4 + [2] * 4] * 2 + [[0] * 4 + [1] * 4 + [2] * 4] * 4
    assert not torch.equal(first["batches"][0], second["batches"][0])
    assert digest({"": first["memory"]}) == digest({"": second["memory"]})
    assert digest(first["parameters"]) == digest(second["parameters"])
    assert first["memory"].shape == (16 + 48, 128)
    assert not os.environ.get("KILL_AT")
