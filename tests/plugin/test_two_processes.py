"""Two processes over gloo train what one process trains, by `--num-gpus 2` and by torchrun.

Batch norm sees the images of one process, so that two processes differ from one by construction,
unless CC.SAMPLES_PER_BN cuts the one's batch into the same chunks: 16 images in chunks of 8 here.
Everything else is equal up to the order of sums. An untrained network on tiny images multiplies
rounding errors by up to a thousand in every step, so the networks compute in double precision
(`in_double`), where a difference that is left is an error of ours. Adam would turn the last bit of
a near-zero gradient into a whole step, so the optimizer is SGD.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import command, digest, run, torchrun

EPOCHS, STEPS = 3, 3
NAMES = ("one", "two", "torchrun")
OPTIONS = (
    "SOLVER.IMS_PER_BATCH",
    16,
    "CC.SAMPLES_PER_BN",
    8,
    "CC.MEMORY.CLUSTER.TEMPERATURE",
    0.5,
    "CC.EXTRACT.BN",
    "running",
    "CC.EXTRACT.IMS_PER_BATCH",
    24,
    "SOLVER.MAX_EPOCH",
    EPOCHS,
    "CC.ITERS_PER_EPOCH",
    STEPS,
    "SOLVER.OPT",
    "SGD",
    "SOLVER.BASE_LR",
    0.0001,
    "CC.COMPARE_IMAGES",
    24,
)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, Any]:
    """What each process reports; the stock script, by the command line."""
    found: dict[str, Any] = {}
    port = f"tcp://127.0.0.1:{free_port()}"
    for name, flags in (
        ("one", ()),
        ("two", ("--num-gpus", "2", "--dist-url", port)),
        ("torchrun", ()),
    ):
        output = tmp_path_factory.mktemp(name)
        os.environ["REPORT"] = str(output)
        line = command(output / "run", *OPTIONS, flags=flags, imports=("run_report", "in_double"))
        done = run(data_root, torchrun(line) if name == "torchrun" else line, timeout=600)
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
    assert len(first["labels"]) == EPOCHS
    assert all(map(torch.equal, first["labels"], second["labels"]))


def test_the_batches_of_both_make_up_the_batches_of_one(reports: dict[str, Any]) -> None:
    """Images in the same order, and their targets; half of them on each process."""
    one, (first, second) = reports["one"][0], reports["two"]
    assert len(one["batches"]) == EPOCHS * STEPS
    for whole, left, right in zip(one["batches"], first["batches"], second["batches"], strict=True):
        assert left.shape == right.shape == (2, 8)
        assert torch.equal(torch.cat([left, right], dim=1), whole)


def test_two_processes_learn_what_one_learns(reports: dict[str, Any]) -> None:
    """Labels at every labelling, losses of every step, the memory and the weights at the end.

    The steps between labellings do something: labels change, and so do weights and losses.
    """
    one, two = reports["one"][0], reports["two"][0]
    assert all(map(torch.equal, one["labels"], two["labels"]))
    assert not torch.equal(one["labels"][0], one["labels"][1])
    both = [torch.tensor(report["losses"], dtype=torch.float64) for report in reports["two"]]
    alone = torch.tensor(one["losses"], dtype=torch.float64)
    assert alone.std() > 0.01
    torch.testing.assert_close(torch.stack(both).mean(dim=0), alone, atol=1e-7, rtol=0)
    torch.testing.assert_close(one["memory"], two["memory"], atol=1e-5, rtol=0)
    for name, value in one["parameters"].items():
        torch.testing.assert_close(value, two["parameters"][name], atol=1e-7, rtol=0)


def test_torchrun_gives_the_bytes_of_launch(reports: dict[str, Any]) -> None:
    assert "World size: 2" in reports["torchrun log"]
    for ours, theirs in zip(reports["torchrun"], reports["two"], strict=True):
        assert ours["losses"] == theirs["losses"]
        assert digest(ours["parameters"]) == digest(theirs["parameters"])
        assert digest({"rows": ours["memory"]}) == digest({"rows": theirs["memory"]})


def test_loader_workers_start_as_those_of_one_process(reports: dict[str, Any]) -> None:
    """A process that was spawned would spawn them: seconds of imports each, in every epoch."""
    alone = reports["one"][0]["workers"]
    assert [report["workers"] for report in (*reports["two"], *reports["torchrun"])] == [alone] * 4


def test_the_parts_of_the_batch_are_printed_at_the_start(reports: dict[str, Any]) -> None:
    line = "batches of 16 images = 4 clusters x 4, batch norm over 8"
    for name, parts in (("one", ""), ("two", "; each of 2 processes 2 x 4")):
        assert f"{line}{parts} (CC.SAMPLES_PER_BN=8)" in reports[f"{name} log"]
        assert "published with" not in reports[f"{name} log"]  # generated people: no figures


def test_one_labelling_is_logged_by_one_process(reports: dict[str, Any]) -> None:
    assert reports["two log"].count("min/median/max") == reports["one log"].count("min/median/max")


def test_two_processes_compare_start_and_end_as_one_does(reports: dict[str, Any]) -> None:
    """The extraction of the sample is divided among them; one of them says what came out."""
    said = {name: re.findall("mirror_rank, .*", reports[f"{name} log"]) for name in NAMES}
    assert all(len(lines) == 1 and lines == said["one"] for lines in said.values())


def test_a_failure_in_one_process_ends_both(tmp_path: Path, data_root: Path) -> None:
    """Clustering happens on the first process: the second must not wait for ever."""
    flags = ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    options = (
        "CC.CLUSTER.DBSCAN.EPS",
        0.01,
        "CC.CLUSTER.DBSCAN.MIN_SAMPLES",
        6,
        "CC.COLLAPSE.EPS_BOUND",
        0.0,
    )
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
        "stock = ClusterMemory.update_rows\n"
        "def update_rows(self, features, batch):\n"
        "    stock(self, features, batch)\n"
        "    if self.epoch == 1 and comm.get_rank() == 1:\n"
        "        self.rows[0, 0] += 1e-6\n"
        "ClusterMemory.update_rows = update_rows\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    line = command(tmp_path / "run", flags=flags, imports=("apart",))
    done = run(data_root, line, timeout=600)
    assert done.returncode != 0
    assert "epoch 1: the memory differs between processes; those with the same bytes: 0 | 1" in (
        done.stdout
    )
