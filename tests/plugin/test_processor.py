"""A process on a CPU: numbers too small are 0 on every thread, and what it frees stays its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import config, environment

from fastreid_cc.parallel import processor
from fastreid_cc.parallel.processor import keep_freed_memory
from fastreid_cc.plugin.modeling import fast_backbone

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


FAULTS = """
import resource, runpy, sys
import numpy
if sys.argv[1] == "keep":
    assert runpy.run_path(sys.argv[2])["keep_freed_memory"]()
count = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(10 * 2**20, numpy.float32)  # 40 MB
    count.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(count[1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_map_of_the_size_of_the_last_costs_no_page_faults() -> None:
    paged = {}
    for mode in ("stock", "keep"):
        line = [sys.executable, "-c", FAULTS, mode, processor.__file__]
        ended = subprocess.run(line, capture_output=True, text=True, check=True)
        paged[mode] = int(ended.stdout)
    assert paged["keep"] <= 2
    assert paged["stock"] >= 10, "nothing to gain here (pages of 2 MB or less): the key can go"


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("on", "device", "times"), [
    (True, "cpu", 1), (False, "cpu", 0), (True, "cuda:0", 0),
])  # fmt: skip
def test_the_key_asks_for_it_on_a_cpu(
    on: bool, device: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid.config import get_cfg

    called: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: device != "cpu")
    monkeypatch.setattr(fast_backbone, "keep_freed_memory", lambda: called.append(1))
    cfg = get_cfg()
    cfg.merge_from_list(["CC.KEEP_FREED_MEMORY", on, "MODEL.DEVICE", device])
    fast_backbone.prepare_processor(cfg)
    assert len(called) == times
