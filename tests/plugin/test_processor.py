"""Numbers too small for the processor's fast path count as 0, on every thread that computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import environment

SMALL = """
import sys, torch
import fastreid_cc.plugin
from fastreid.config import get_cfg
from fastreid.modeling.backbones import build_backbone
torch.set_num_threads(2)
cfg = get_cfg()
cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False,
                     "CC.FLUSH_DENORMALS", sys.argv[1]])
build_backbone(cfg)
print(int((torch.full((1 << 22,), 1e-30) * 1e-9).count_nonzero()))
"""


@pytest.mark.parametrize("flush, left", [("True", 0), ("False", 1 << 22)])
def test_denormals_are_flushed_where_the_key_says_so(flush: str, left: int, tmp_path: Path) -> None:
    line = [sys.executable, "-c", SMALL, flush]
    env = environment(tmp_path) | {"OMP_NUM_THREADS": "2"}
    ended = subprocess.run(line, capture_output=True, text=True, check=True, env=env)
    assert int(ended.stdout.splitlines()[-1]) == left
