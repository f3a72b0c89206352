"""Runs fastreid once around on this Python and torch, and prints one line of JSON.

`python tests/plugin/check_stack.py` trains a small network for two epochs on a few dozen images,
evaluates, saves, resumes and predicts, in seconds, on the CPU. docs/compatibility.md quotes it.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from tiny_data import make_market, options  # noqa: E402


def main() -> dict[str, object]:
    """What ran, with which versions; raises where something does not."""
    started = time.time()
    folder = Path(tempfile.mkdtemp())
    os.environ["FASTREID_DATASETS"] = str(make_market(folder / "data"))
    (folder / "out").mkdir()
    import fastreid_cc.plugin  # noqa: F401, I001
    import fastreid
    import torch
    from fastreid.config import get_cfg
    from fastreid.engine import DefaultPredictor, DefaultTrainer

    def trainer(resume: bool, *extra: object) -> DefaultTrainer:
        cfg = get_cfg()
        cfg.merge_from_list(options(folder / "out", *extra))
        made = DefaultTrainer(cfg)
        made.resume_or_load(resume=resume)
        return made

    logging.disable(logging.WARNING)
    first = trainer(False)
    before = [p.detach().clone() for p in first.model.parameters()]
    results = first.train()
    after = list(first.model.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert sum(moved) > 0.95 * len(moved), "training moved nothing"  # a gradient may be zero
    second = trainer(True, "SOLVER.MAX_EPOCH", 3)
    assert second.start_epoch == 2
    assert all(torch.equal(a, b) for a, b in zip(after, second.model.parameters(), strict=True))
    second.train()
    cfg = second.cfg.clone()
    cfg.MODEL.WEIGHTS = str(folder / "out" / "model_final.pth")
    features = DefaultPredictor(cfg)(torch.rand(2, 3, 64, 32) * 255)
    assert features.shape == (2, 128) and bool(features.isfinite().all())
    return {
        "python": sys.version.split()[0],
        "fastreid": str(Path(fastreid.__file__).parent),
        **{n: importlib.metadata.version(n) for n in ("torch", "torchvision", "numpy", "pillow")},
        "cuda": torch.cuda.is_available(),
        "mAP": round(float(results["mAP"]), 1),
        "files": sorted(p.name for p in (folder / "out").glob("*.pth")),
        "seconds": round(time.time() - started, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
