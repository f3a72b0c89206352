"""`adapt`: from clips and a tracker's text to a model for that tracker."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import PAGES, commands
from tiny_runs import PAIRS, answer

from fastreid_cc import __main__ as cli
from fastreid_cc.commands import adapt
from fastreid_cc.data.synthetic import ClipOptions, write_clips

pytestmark = pytest.mark.usefixtures("plugin")


def test_what_it_types_is_what_the_page_says(tmp_path: Path) -> None:
    words = "cam1.mp4 cam1.txt --weights my_checkpoint.pth --out tracker --set CC.SEED 2"
    crops, train, export = adapt.steps(adapt.parser().parse_args(shlex.split(words)))
    page = next(path for path in PAGES if path.name == "tracker.md")
    typed = {command.after[0]: command.after for command in commands(page) if command.after}
    assert crops == ["crops", "cam1.mp4", "cam1.txt", "--out", "tracker/crops"]
    assert export == ["export", "tracker/run", *typed["export"][2:]]
    pairs, said = (dict(zip(w[3::2], w[4::2], strict=True)) for w in (train, typed["train"]))
    assert pairs.pop("OUTPUT_DIR") == "tracker/run" and pairs.pop("CC.SEED") == "2"
    assert pairs.pop("CC.FOLDER.ROOT") == str(Path("tracker/crops").absolute())
    assert said.pop("CC.FOLDER.ROOT") and pairs == said and train[:3] == [*typed["train"][:3]]


def test_clips_become_a_model_and_what_is_done_is_not_done_again(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    options = ClipOptions(seed=7, people=4, frames=60, passes=1, height=120, width=200)
    (tmp_path / "clips").mkdir()
    write_clips(options, tmp_path / "clips")
    torch.save({}, tmp_path / "none.pth")  # PRETRAIN is off
    files = [tmp_path / "clips" / f"cam{n}.{kind}" for n in (1, 2) for kind in ("mp4", "txt")]
    out = tmp_path / "out"
    line = ["--weights", tmp_path / "none.pth", "--out", out, "--set", *PAIRS]
    line += ["SOLVER.MAX_EPOCH", 1]
    status, _, err = answer(capfd, "adapt", files[0], tmp_path / "none.txt", *line)
    assert status == 2 and "none.txt" in err and "adapt: crops failed" in err
    monkeypatch.setattr(adapt, "run", cli.main)  # the others in this process
    status, said, err = answer(capfd, "adapt", *files, *line)
    assert status == 0, err
    assert said.index("$ python -m fastreid_cc crops") < said.index("$ python -m fastreid_cc train")
    assert (out / "run" / "model_boxmot.onnx").is_file()
    assert "links" in (out / "run" / "metrics.json").read_text()
    todo = adapt.steps(adapt.parser().parse_args(list(map(str, [*files, *line]))))
    assert [words[0] for words in todo] == ["export"]


def test_missing_weights_are_said_before_anything_is_made(tmp_path: Path, capsys: Any) -> None:
    line = ("a.mp4", "a.txt", "--weights", tmp_path / "w.pth", "--out", tmp_path / "out")
    status, _, err = answer(capsys, "adapt", *line)
    assert status == 2 and "w.pth: no such file" in err and not (tmp_path / "out").exists()
