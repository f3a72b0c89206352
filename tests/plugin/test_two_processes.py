"""`--num-gpus 2` without a GPU: two processes over gloo train what one process trains."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import command, digest, run

#: SGD, since Adam turns the last bit of a near-zero gradient into a whole step; small steps, since
#: at temperature 0.05 an untrained network is chaotic. One labelling, while running statistics are
#: still those of the start.
OPTIONS = (
    "SOLVER.IMS_PER_BATCH", 16,
    "CC.SAMPLES_PER_BN", 8,
    "CC.LABELS.PERIOD", 2,
    "CC.EXTRACT.BN", "running",
    "SOLVER.MAX_EPOCH", 2,
    "CC.ITERS_PER_EPOCH", 2,
    "SOLVER.OPT", "SGD",
    "SOLVER.BASE_LR", 0.0001,
    "CC.EXTRACT.IMS_PER_BATCH", 24,
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, Any]:
    """What one process and two processes report; the stock script, by the command line."""
    found: dict[str, Any] = {}
    for name, flags in (
        ("one", ()),
        ("two", ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")),
    ):
        output = tmp_path_factory.mktemp(name)
        os.environ["REPORT"] = str(output)
        line = command(output / "run", *OPTIONS, flags=flags, imports=("run_report",))
        done = run(data_root, line, timeout=600)
        assert done.returncode == 0, done.stdout
        found[name] = [torch.load(path) for path in sorted(output.glob("*.pth"))]
        found[f"{name} log"] = done.stdout
    del os.environ["REPORT"]
    return found


def test_two_processes_end_and_leave_one_report_each(reports: dict[str, Any]) -> None:
    assert len(reports["one"]) == 1
    assert len(reports["two"]) == 2
    assert "mAP" in reports["two log"]


def test_both_processes_hold_the_same_model_and_memory(reports: dict[str, Any]) -> None:
    first, second = reports["two"]
    assert digest(first["parameters"]) == digest(second["parameters"])
    assert digest({"rows": first["memory"]}) == digest({"rows": second["memory"]})
    assert torch.equal(first["labels"], second["labels"])


def test_the_batches_of_both_make_up_the_batches_of_one(reports: dict[str, Any]) -> None:
    """Images in the same order, and their targets; half of them on each process."""
    one, (first, second) = reports["one"][0], reports["two"]
    assert len(one["batches"]) == 4
    for whole, left, right in zip(one["batches"], first["batches"], second["batches"], strict=True):
        assert left.shape == right.shape == (2, 8)
        assert torch.equal(torch.cat([left, right], dim=1), whole)


def test_two_processes_learn_what_one_learns(reports: dict[str, Any]) -> None:
    """With a batch-norm chunk per process the gradients are those of one process in two chunks.

    The third loss depends on two optimizer steps, two memory updates and a labelling. Sums over
    another number of images are rounded otherwise, and batch norm over eight tiny images amplifies
    that from step to step, so the fourth loss and the last weights are not compared.
    """
    one, two = reports["one"][0], reports["two"][0]
    assert torch.equal(one["labels"], two["labels"])
    mean = torch.tensor([report["losses"] for report in reports["two"]]).mean(dim=0)
    alone = torch.tensor(one["losses"])
    assert (alone[1:3] - alone[0]).abs().min() > 0.1  # the steps between them do something
    torch.testing.assert_close(mean[:3], alone[:3], atol=5e-4, rtol=0)


def test_one_labelling_is_logged_by_one_process(reports: dict[str, Any]) -> None:
    assert reports["two log"].count("min/median/max") == reports["one log"].count("min/median/max")


def test_a_failure_in_one_process_ends_both(tmp_path: Path, data_root: Path) -> None:
    """Clustering happens on the first process: the second must not wait for ever."""
    flags = ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    options = (
        "CC.CLUSTER.DBSCAN.EPS", 0.01, "CC.CLUSTER.DBSCAN.MIN_SAMPLES", 6,
        "CC.COLLAPSE.EPS_BOUND", 0.0,
    )  # fmt: skip
    done = run(data_root, command(tmp_path, *options, flags=flags), timeout=600)
    assert done.returncode != 0
    assert "CollapsedError" in done.stdout
    assert "CC.COLLAPSE.EPS_BOUND" in done.stdout


def test_memories_that_come_apart_end_both_at_the_end_of_the_epoch(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apart.py").write_text(
        "from fastreid.utils import comm\n"
        "from fastreid_cc.memories.cluster import ClusterMemory\n"
        "stock = ClusterMemory.move\n"
        "def move(self, features, batch):\n"
        "    stock(self, features, batch)\n"
        "    if self.epoch == 1 and comm.get_rank() == 1:\n"
        "        self.rows[0, 0] += 1e-6\n"
        "ClusterMemory.move = move\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    line = command(tmp_path / "run", flags=flags, imports=("apart",))
    done = run(data_root, line, timeout=600)
    assert done.returncode != 0
    assert "epoch 1: the memory differs between processes; those with the same bytes: 0 | 1" in (
        done.stdout
    )
