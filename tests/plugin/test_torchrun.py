"""`torchrun -m fastreid_cc stock_script.py`: one job, not one training per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import command, run, torchrun

from fastreid_cc.plugin.compat.process_group import Place
from fastreid_cc.plugin.compat.repairs.torchrun import torchrun_place

SET = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29400",
}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in SET:
        monkeypatch.delenv(name, raising=False)

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_without_torchrun_and_alone_nothing_is_joined(variables: Any) -> None:
    assert torchrun_place(1) is None
    variables(**{**SET, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"})
    assert torchrun_place(1) is None
    assert torchrun_place(2) is None  # one process of torchrun's that starts two of its own


def test_the_place_is_read_from_the_environment(variables: Any) -> None:
    variables(**SET)
    assert torchrun_place(1) == Place(rank=3, world=4, local_rank=1, local_world=2)
    assert torchrun_place(2) == torchrun_place(4) == torchrun_place(1)  # says the same again


def test_processes_that_would_start_processes_are_refused(variables: Any) -> None:
    variables(**SET)
    with pytest.raises(ValueError, match=r"started 2 .* asked to start 8 .*--num-gpus"):
        torchrun_place(8)


def test_half_an_environment_is_refused_not_trained_apart(variables: Any) -> None:
    variables(RANK="0", WORLD_SIZE="2")
    with pytest.raises(ValueError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        torchrun_place(1)


def test_an_error_in_one_process_ends_both_and_is_the_one_shown(
    tmp_path: Path, data_root: Path
) -> None:
    """In a training step of the second process, while the first waits for its gradients."""
    (tmp_path / "broken_step.py").write_text(
        "from fastreid.utils import comm\n"
        "from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast\n"
        "stock = ClusterContrast.losses\n"
        "def losses(self, *arguments):\n"
        "    if comm.get_rank() == 1:\n"
        "        raise ZeroDivisionError('rank one is broken')\n"
        "    return stock(self, *arguments)\n"
        "ClusterContrast.losses = losses\n"
    )
    line = torchrun(command(tmp_path / "run", imports=("broken_step",)))
    done = run(data_root, ["env", f"PYTHONPATH={tmp_path}", *line], timeout=120)
    assert done.returncode != 0
    assert "Process 1 of 2 failed" in done.stdout, done.stdout[-3000:]
    assert "ZeroDivisionError: rank one is broken" in done.stdout
    assert "Process 0 of 2 failed" not in done.stdout
