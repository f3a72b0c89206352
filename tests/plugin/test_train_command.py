"""`python -m fastreid_cc train`: a whole training without any script, and what its log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import pairs

from fastreid_cc import __main__ as cli

#: What a user took for failures in the log of a run that went well.
FALSE_ALARMS = (
    "cameras per cluster",
    "were published with",
    "was published with",
    "No evaluator found",
    "generated random seed",
    "from scratch",
    "Traceback",
)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without cameras in their names."""
    folder = tmp_path_factory.mktemp("crops")
    for row in range(24):
        colour = (row // 4 * 40, 255 - row // 4 * 40, row)
        Image.new("RGB", (16, 32), colour).save(folder / f"{row:02d}.png")
    return folder


def test_a_folder_trains_from_anywhere_and_the_log_says_what_comes_next(
    plugin: None, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ("DATASETS.NAMES", ("UnlabeledFolder",), "DATASETS.TESTS", ("UnlabeledFolder",))
    words = pairs(Path("out"), *folder, "CC.FOLDER.ROOT", crops, "CC.SYNTHETIC.TRAIN_IDS", 8)
    line = ["train", "--config-file", "quick/usl_tiny", *words]
    assert cli.main(line) == 0
    log = Path("out", "log.txt").read_text()
    console = capfd.readouterr().out
    assert "Running with full config: … (" in console and console.count("\n") < 150
    assert log.count("\n") > 500  # in full
    assert log.count("quick/usl_tiny.yml is tested: demo (run and measured on generated") == 1
    for text in FALSE_ALARMS:
        assert text not in log, text
    assert "WARNING" not in log.split("Starting training")[1], log
    assert "24 images, one camera or unknown ones; batches of" in log
    assert log.split("epoch 0:")[0].count("first labels: a new installation compiles") == 1
    last = log.split("The training has ended.")[1]
    assert "out holds model_final.pth" in last and "Nothing was measured: there is no test" in last
    assert "next: python -m fastreid_cc report out" in last
    assert "python -m fastreid_cc clusters out" in last and "export out" in last
    before = Path("out", "model_final.pth").read_bytes()
    assert cli.main(line) == 2  # what was a run's stays as it is
    assert Path("out", "model_final.pth").read_bytes() == before
    assert cli.main([*line, "CC.OVERWRITE", "True", "SOLVER.MAX_EPOCH", "1"]) == 0
    assert not Path("out", "model_0001.pth").exists()
    assert len(Path("out", "metrics.json").read_text().splitlines()) <= 3


def test_eval_only_measures_the_checkpoint(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["train", "--config-file", "quick/usl_tiny", *pairs(Path("out"), "SOLVER.MAX_EPOCH", 1)]
    assert cli.main(line) == 0
    caplog.clear()
    assert cli.main([*line, "--eval-only", "MODEL.WEIGHTS", "out/model_final.pth"]) == 0
    assert "mAP" in caplog.text and "Starting training" not in caplog.text
