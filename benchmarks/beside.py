"""Times what some methods do beside their training steps: mining triplets, generating images.

    python benchmarks/beside.py [mining generators] [--threads 1] [--repeat 5] [--small]

mining      a round of mined triplets with the defaults of CC.MINING: embedding the pool and
            choosing the triplets, beside the steps trained on them. ResNet-50 at 128x64
generators  each generator at 64x32: a step of its training on 64 images, and drawing 64, beside a
            label-free step of the demo's network on 64 images

All rows of a part are taken in turn, `--repeat` times; medians. What refinement and selection of
GCL and SCL cost is told by `benchmarks/losses.py --images`.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from typing import Any

import gpu  # activates the plug-in
import numpy as np
import speed
import torch
from fastreid.config import get_cfg
from fastreid.utils.events import EventStorage
from tabulate import tabulate
from torch.nn import functional as F

from fastreid_cc.commands.generate import photos_of
from fastreid_cc.config import from_config
from fastreid_cc.data.triplet_mining import TripletMining, draw_queries, mine
from fastreid_cc.plugin.loading.extract import extract_features
from fastreid_cc.registry import GENERATORS

SIZE = {"height": 64, "width": 32}
BATCH = 64


def table(title: str, rows: dict[str, float], step: float) -> None:
    """Prints seconds as milliseconds and in training steps."""
    lines = [[name, f"{1e3 * took:,.1f}", f"{took / step:.2f}"] for name, took in rows.items()]
    print(f"\n{title}\n")
    heads = ["", "ms", "training steps"]
    print(tabulate(lines, heads, tablefmt="github", disable_numparse=True), flush=True)


def mining(args: argparse.Namespace) -> None:
    """A round; the pool is embedded in part, and the time scaled to all of it."""
    cfg = gpu.recipe("cc_R50", "cpu", args.small)
    options = from_config(cfg, TripletMining)
    images, pool = (32, 200) if args.small else (256, options.pool)
    pairs = ["SOLVER.IMS_PER_BATCH", str(16 * round(3 * options.triplets / 16))]
    pairs += ["CC.EXTRACT.IMS_PER_BATCH", "64", "DATALOADER.NUM_WORKERS", "0"]
    if not args.small:
        pairs += ["INPUT.SIZE_TRAIN", "[128,64]", "INPUT.SIZE_TEST", "[128,64]"]
    cfg.merge_from_list([*pairs, "SOLVER.AMP.ENABLED", "False"])
    trainer = gpu.trainer_of(cfg, "cpu", False, 700)
    found, generator = speed.gallery(images), np.random.default_rng(0)
    count = options.period * options.triplets
    labels = generator.integers(0, max(2, pool // 17), pool)
    features = F.normalize(torch.randn(pool, cfg.MODEL.BACKBONE.FEAT_DIM))
    queries = draw_queries(labels, count, generator)
    choose = partial(mine, features, labels, queries, top=options.top, skip=options.skip)
    with EventStorage():
        times = speed.medians(
            {
                "step": lambda: gpu.ours(trainer),
                "embedding": lambda: extract_features(cfg, trainer.model, found),
                "choosing": lambda: choose(generator=generator),
            },
            args.repeat,
        )
    step = times["step"] * 3 * options.triplets / cfg.SOLVER.IMS_PER_BATCH
    rows = {
        f"{options.period} steps of {options.triplets} triplets": options.period * step,
        f"embedding {pool:,} images (measured: {images})": times["embedding"] * pool / images,
        f"choosing {count} triplets": times["choosing"],
    }
    table(f"A round of mined triplets, {cfg.MODEL.BACKBONE.DEPTH}", rows, step)


def generators(args: argparse.Namespace) -> None:
    """Each at the same size, by its defaults otherwise."""
    cfg = get_cfg()
    cfg.merge_from_file("demo/label_free")
    pairs = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", str(BATCH)]
    pairs += ["CC.GENERATE.PEOPLE", "identities", "CC.GENERATE.POSES", "synthetic"]
    cfg.merge_from_list(pairs)
    trainer = gpu.trainer_of(cfg, "cpu", False, 80)
    work: speed.Work = {"label-free step": lambda: gpu.ours(trainer)}
    for name in GENERATORS.names():
        part: Any = GENERATORS.get(name)
        learnt = {"batch": BATCH} if "batch" in part.limits else {}
        narrow = {"channels": 4} if args.small and learnt else {}
        generator = part(**SIZE, **learnt, **narrow)
        generator.prepare(photos_of(cfg, generator, learns=True, with_tests=False), seed=0)
        if generator.num_steps:
            step = itertools.count()
            work[f"{name}: a step of its training"] = lambda g=generator, s=step: g.train_step(
                next(s)
            )
        work[f"{name}: drawing {BATCH}"] = partial(generator.draw, range(BATCH))
    with EventStorage():
        times = speed.medians(work, args.repeat)
    size = f"{SIZE['height']}x{SIZE['width']}"
    table(f"Generators at {size}, {BATCH} images", times, times["label-free step"])


PARTS = {part.__name__: part for part in (mining, generators)}


def main() -> None:
    """Runs the parts."""
    args = speed.arguments(__doc__ or "", PARTS, repeat=5)
    print(f"torch {torch.__version__}, {args.threads} thread(s)")
    for name in args.parts or PARTS:
        PARTS[name](args)


if __name__ == "__main__":
    main()
