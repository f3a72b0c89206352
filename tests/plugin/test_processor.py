"""Numbers too small for the processor's fast path count as 0, on every thread that computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import config, environment

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


def test_exported_weights_that_decayed_to_nothing_are_zero(plugin: None, tmp_path: Path) -> None:
    """A denormal weight makes onnxruntime, which we do not start, several times slower."""
    from fastreid_cc.plugin.offline.onnx_export import build_embedder, fused

    embedder = build_embedder(config(tmp_path))
    weight = next(p for p in embedder.parameters() if p.ndim == 4)
    with torch.no_grad():
        weight[0] = 1e-35  # a denormal is 0 already where a network was built
        weight[0, 0, 0, 0] = 1e-29
        images = torch.rand(2, 3, 32, 16) * 255
        before = embedder(images)
        found = next(p for p in fused(embedder).parameters() if p.ndim == 4)
        assert found[0].count_nonzero() == 1 and found[0, 0, 0, 0] > 0
        assert torch.equal(found[1:], weight[1:]), "others are as they were"
        assert weight[0].count_nonzero() == weight[0].numel(), "it is a copy"
        assert torch.equal(fused(embedder)(images), before)
