"""Repairs of fastreid are switched off by name; without any, training still trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import make_market, options
from tiny_runs import command, digest, environment, weights

from fastreid_cc.errors import WrongUse

ROOT = Path(__file__).resolve().parents[2]

SUPERVISED = """
import json, sys
import fastreid_cc.plugin
from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer, default_setup, hooks

cfg = get_cfg()
cfg.merge_from_list(json.loads(sys.argv[1]))
default_setup(cfg, None)
trainer = DefaultTrainer(cfg)
before = [p.detach().clone() for p in trainer.model.parameters()]
results = trainer.train()
moved = [not p.equal(b) for p, b in zip(trainer.model.parameters(), before)]
resumed = DefaultTrainer(cfg)
resumed.resume_or_load(resume=True)
print(json.dumps([sum(moved) / len(moved), results["mAP"], resumed.start_epoch]))
assert hooks.PeriodicCheckpointer.__module__ == "fastreid.engine.hooks"
"""


def run(off: str, *command: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=data,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FASTREID_DATASETS": str(data),
            "FASTREID_CC_WITHOUT_REPAIRS": off,
        },
    )


def test_repairs_that_are_named_are_off_and_the_log_says_so(tmp_path):
    script = """
import fastreid_cc.plugin
from fastreid.engine import hooks
from fastreid.utils import checkpoint
print(hooks.PeriodicCheckpointer.__module__, checkpoint.Checkpointer.__module__)
"""
    off = "remember_the_best_metric, normalise_images_once"
    done = run(off, "-c", script, data=tmp_path)
    assert done.returncode == 0, done.stderr
    of_hooks, still_ours = done.stdout.split()
    assert of_hooks == "fastreid.engine.hooks" and still_ours.startswith("fastreid_cc.")
    assert "switches off: normalise_images_once, remember_the_best_metric." in done.stderr


@pytest.mark.usefixtures("plugin")
def test_names_are_read_one_by_one_or_all_and_what_is_required_has_none(monkeypatch):
    from fastreid_cc.plugin.compat import REPAIRS, REQUIRED, repairs_off

    every = {shim.__name__ for shim in REPAIRS}
    for text, names in (
        ("", set()),
        (" check_schedule,, average_weights ", {"check_schedule", "average_weights"}),
        ("all", every),
    ):
        monkeypatch.setenv("FASTREID_CC_WITHOUT_REPAIRS", text)
        assert repairs_off() == names
    for name in ("alle", *(shim.__name__ for shim in REQUIRED)):
        monkeypatch.setenv("FASTREID_CC_WITHOUT_REPAIRS", f"check_schedule,{name}")
        with pytest.raises(WrongUse, match=f"no repair is called {name}. There are .*check_sch"):
            repairs_off()


def test_a_wrong_name_ends_a_run_with_one_message(tmp_path):
    (tmp_path / "script.py").write_text("")
    done = run("no_such_repair", "-m", "fastreid_cc", "script.py", data=tmp_path)
    assert done.returncode, done.stdout
    assert "FASTREID_CC_WITHOUT_REPAIRS: no repair is called no_such_repair." in done.stderr
    assert "Traceback" not in done.stderr


def test_without_any_repair_supervised_training_trains_measures_saves_and_resumes(tmp_path):
    make_market(tmp_path, test_identities=20)  # stock cannot rank a gallery of fewer than 50
    (tmp_path / "out").mkdir()
    chosen = options(tmp_path / "out", "SOLVER.MAX_EPOCH", 2)
    done = run("all", "-c", SUPERVISED, json.dumps(chosen), data=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    moved, mean_ap, epoch = json.loads(done.stdout.splitlines()[-1])
    assert moved > 0.95 and mean_ap > 0 and epoch == 2
    assert "FASTREID_CC_WITHOUT_REPAIRS=all" in (tmp_path / "out" / "log.txt").read_text()


def test_without_any_repair_label_free_training_learns_the_same_bytes(tmp_path):
    found = []
    for off in ("", "all"):
        output = tmp_path / f"out{off}"
        done = subprocess.run(
            command(output, "CC.SYNTHETIC.TEST_IDS", 20, "TEST.EVAL_PERIOD", 1),
            capture_output=True,
            text=True,
            timeout=280,
            env={**environment(tmp_path), "FASTREID_CC_WITHOUT_REPAIRS": off},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(digest(weights(output)))
    assert found[0] == found[1]


def test_the_page_lists_every_shim_by_its_kind():
    from fastreid_cc.plugin.compat import REPAIRS, REQUIRED

    page = (ROOT / "docs" / "compatibility.md").read_text()
    required, repairs = page.split("## Required")[1].split("## Repairs")
    repairs = repairs.split("\n## ")[0]
    for text, shims in ((required, REQUIRED), (repairs, REPAIRS)):
        assert re.findall(r"^\| `(\w+)` \|", text, re.M) == [shim.__name__ for shim in shims]
