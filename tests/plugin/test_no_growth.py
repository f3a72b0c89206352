"""Five epochs leave no more threads, processes or open files behind than one."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import build, config

pytestmark = pytest.mark.usefixtures("plugin")


def children() -> set[int]:
    """Process ids of our live children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def census() -> dict[str, int]:
    """What a process may pile up, by /proc: threads of any library, children, file descriptors."""
    gc.collect()
    return {
        "python threads": threading.active_count(),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(children()),
        "files": len(os.listdir("/proc/self/fd")),
    }


def settled_census(limit: dict[str, int], seconds: float) -> dict[str, int]:
    """The census, asked again for a while if above `limit`: a worker's pipe may close late."""
    until = time.monotonic() + seconds
    found = census()
    while any(found[what] > limit[what] for what in limit) and time.monotonic() < until:
        time.sleep(0.1)
        found = census()
    return found


def counts_after_each_epoch(cfg: Any, patience: float = 10.0) -> list[dict[str, int]]:
    from fastreid.engine.train_loop import HookBase

    counts: list[dict[str, int]] = []

    class Counter(HookBase):
        def after_epoch(self) -> None:
            counts.append(settled_census(counts[0] if counts else {}, patience))

    trainer = build(cfg)
    trainer.register_hooks([Counter()])
    trainer.train()
    return counts


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_grows_over_the_epochs(workers: int, tmp_path: Path) -> None:
    before = census()
    counts = counts_after_each_epoch(
        config(
            tmp_path,
            "DATALOADER.NUM_WORKERS",
            workers,
            "SOLVER.MAX_EPOCH",
            5,
            "CC.WARMUP.EPOCHS",
            1,
            "TEST.EVAL_PERIOD",
            1,
        )
    )
    assert len(counts) == 5
    assert all(last <= counts[0][what] for what, last in counts[-1].items()), counts
    assert max(count["children"] for count in counts) <= before["children"] + workers
    assert census()["children"] == before["children"]


def test_the_count_sees_a_loader_that_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without closing the loaders the same census grows: the test above can fail."""
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    left: list[Any] = []

    def swap_without_closing(trainer: Any, loader: Any) -> None:
        left.append(torch.utils.data.DataLoader.__iter__(loader))  # torch's workers, none closed
        trainer.data_loader = loader
        trainer._data_loader_iter = iter(left[-1])

    monkeypatch.setattr(hooks, "swap_loader", swap_without_closing)
    try:
        counts = counts_after_each_epoch(
            config(tmp_path, "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_EPOCH", 3), patience=1.0
        )
        assert counts[-1]["children"] > counts[0]["children"]
        assert counts[-1]["files"] > counts[0]["files"]
    finally:
        for iterator in left:
            iterator._shutdown_workers()
