"""The short form of kill_and_resume.py: two kills and some damaged files of a tiny run.

The long form, with its result, is in docs/faults.md.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kill_and_resume import Kill, differences, kill
from tiny_runs import command, config, plugin_at, train
from torn_files import DAMAGES, stopped

from fastreid_cc.errors import ClearError

pytestmark = pytest.mark.usefixtures("plugin")
OPTIONS = (
    "SOLVER.MAX_EPOCH",
    5,
    "TEST.EVAL_PERIOD",
    3,
    "CC.LABELS.PERIOD",
    2,
    "CC.WARMUP.EPOCHS",
    1,
)


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT_DIR of a run that nothing stopped."""
    output = tmp_path_factory.mktemp("whole")
    with plugin_at(data_root):
        train(config(output, *OPTIONS))
    return output


def test_two_kills_in_a_checkpoint_and_in_a_labelling_end_with_the_same_bytes(
    whole: Path, data_root: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    kills = {
        "checkpoint": Kill("checkpoint", 3, float(generator.uniform(0, 0.02))),
        "labelling": Kill("labelling", 2, 0.0),
    }
    folders = {name: tmp_path / name for name in kills}

    def run(name: str) -> str:
        folders[name].mkdir()
        line = command(folders[name] / "out", *OPTIONS, imports=("phase_probe",))
        return kill(line, folders[name], kills[name], data_root)

    with ThreadPoolExecutor(2) as both:
        assert all(both.map(run, kills))
    for folder in folders.values():
        assert not (folder / "out" / "model_final.pth").exists()
        train(config(folder / "out", *OPTIONS), resume=True)
        assert differences(whole, folder / "out") == ""


@pytest.mark.parametrize(
    "name",
    [
        "newest cut",
        "garbage inside the newest",
        "last_checkpoint is gone",
        "half of the labels gone",
    ],
)
def test_a_damaged_file_resumes_from_the_newest_whole_one_or_says_why_not(
    name: str, whole: Path, tmp_path: Path
) -> None:
    folder = stopped(whole, tmp_path)
    damage, epoch = DAMAGES[name]
    damage(folder, np.random.default_rng(0))
    if epoch is None:
        with pytest.raises(ClearError, match="labels 24 images, DATASETS.NAMES has 48"):
            train(config(folder, *OPTIONS), resume=True)
        return
    assert train(config(folder, *OPTIONS), resume=True).start_epoch == epoch
    assert differences(whole, folder) == ""


def test_the_comparison_sees_one_bit_one_number_and_one_file(whole: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    assert differences(whole, folder) == ""
    path = folder / "metrics.json"
    path.write_text(path.read_text().replace('"lr": ', '"lr": 1'))
    assert "metrics.json" in differences(whole, folder)
    state = torch.load(folder / "model_final.pth", weights_only=True)
    state["cc"]["labels"][0] += 1
    torch.save(state, folder / "model_final.pth")
    assert differences(whole, folder) == "model_final.pth.cc.labels"
    (folder / "model_final.pth").unlink()
    assert "model_final.pth" in differences(whole, folder)
