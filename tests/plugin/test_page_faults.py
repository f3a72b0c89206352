"""A process that keeps freed memory pages large maps in once."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from fastreid_cc.plugin.modeling import fast_backbone, page_faults
from fastreid_cc.plugin.modeling.page_faults import keep_freed_memory

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
print(min(count[1:]) * resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_map_of_the_size_of_the_last_costs_no_page_faults() -> None:
    paged = {}
    for mode in ("stock", "keep"):
        line = [sys.executable, "-c", FAULTS, mode, page_faults.__file__]
        ended = subprocess.run(line, capture_output=True, text=True, check=True)
        paged[mode] = int(ended.stdout)
    assert paged["keep"] < 2**20
    if resource.getpagesize() == 4096:
        assert paged["stock"] > 2**20, "nothing to gain here: the key can go"


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
