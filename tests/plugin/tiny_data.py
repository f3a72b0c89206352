"""A Market-1501-like data set of a few dozen images, and options that train on it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_market(
    root: Path,
    *,
    identities: int = 6,
    test_identities: int = 4,
    cameras: int = 2,
    images: int = 3,
    size: tuple[int, int] = (32, 64),
) -> Path:
    """Writes `root`/Market-1501-v15.09.15 and returns `root`, the value of FASTREID_DATASETS.

    Identity p is a colour with noise, so a few steps learn something. The gallery holds every test
    image, the query one image per identity and camera.
    """
    rng = np.random.default_rng(0)
    base = Path(root) / "Market-1501-v15.09.15"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for pid in range(1, identities + test_identities + 1):
        colour = rng.integers(0, 256, 3)
        for camera in range(1, cameras + 1):
            for shot in range(images):
                noise = rng.integers(-40, 41, (size[1], size[0], 3))
                picture = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
                name = f"{pid:04d}_c{camera}s1_{shot:06d}_00.jpg"
                if pid <= identities:
                    picture.save(base / "bounding_box_train" / name)
                    continue
                picture.save(base / "bounding_box_test" / name)
                if shot == 0:
                    picture.save(base / "query" / name)
    return Path(root)


def options(output: Path, *extra: object) -> list[str]:
    """KEY VALUE pairs of a two-epoch training of a small OSNet on the CPU."""
    pairs: list[object] = [
        "MODEL.DEVICE",
        "cpu",
        "MODEL.BACKBONE.NAME",
        "build_osnet_backbone",
        "MODEL.BACKBONE.DEPTH",
        "x0_25",
        "MODEL.BACKBONE.FEAT_DIM",
        128,
        "MODEL.BACKBONE.PRETRAIN",
        False,
        "INPUT.SIZE_TRAIN",
        "[64,32]",
        "INPUT.SIZE_TEST",
        "[64,32]",
        "DATALOADER.NUM_WORKERS",
        0,
        "SOLVER.IMS_PER_BATCH",
        12,
        "SOLVER.MAX_EPOCH",
        2,
        "SOLVER.WARMUP_ITERS",
        0,
        "SOLVER.CHECKPOINT_PERIOD",
        1,
        "SOLVER.BASE_LR",
        0.01,
        "TEST.IMS_PER_BATCH",
        16,
        "TEST.EVAL_PERIOD",
        1,
        "OUTPUT_DIR",
        str(output),
    ]
    return [str(value) for value in (*pairs, *extra)]
