"""Roboflow's reid loads what `export --for roboflow` wrote: features agree, and so does the mAP."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from reid import ReIDModel, ReIDPreprocessing, ReIDSplit
from shared import agree, ours

MAP_ALLOWED = 0.1


def main(folder: Path) -> None:
    """Raises SystemExit if anything is not as it should be."""
    told, features, _ = ours(folder)
    models = {}
    for how in ("bicubic", "bilinear"):
        preprocessing = ReIDPreprocessing(input_size=tuple(told["size"]), interpolation=how)
        module = torch.jit.load(str(folder / "model.pt"))
        models[how] = ReIDModel.from_pretrained(
            architecture=module, preprocessing=preprocessing, device="cpu"
        )
    print(f"reid {version('reid')}, TorchScript handed over as a module")
    paths, cut = told["paths"], told["queries"]
    for how, model in models.items():
        found = model.extract_embeddings_from_paths(paths)
        agree(f"crops resized by reid, {how}", found, features, must=how == "bicubic")
    parts = []
    for part in (slice(cut), slice(cut, None)):
        ids, cameras = (np.array(told[name][part], np.int32) for name in ("ids", "cameras"))
        parts.append(ReIDSplit(image_paths=paths[part], pids=ids, camids=cameras))
    found = models["bicubic"].evaluate(*parts, verbose=False).metrics["map"]
    print(f"mAP by reid's evaluation {found:.2f}, by ours {told['mAP']:.2f}")
    if not abs(found - told["mAP"]) <= MAP_ALLOWED:
        raise SystemExit(f"FAILED: the two differ by more than {MAP_ALLOWED}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
