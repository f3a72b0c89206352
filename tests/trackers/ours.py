"""For `make test-trackers`: a network exported for BoxMOT and for reid, our features and our mAP.

python tests/trackers/ours.py FOLDER [SOURCE [KEY VALUE ...]]

SOURCE is a run or a config with MODEL.WEIGHTS; without one `quick/usl_tiny` is trained.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import fastreid_cc.plugin  # noqa: F401  isort: skip  activates the plug-in
from fastreid.evaluation.rank import evaluate_rank

from fastreid_cc.plugin.offline.run_features import tested_sets
from fastreid_cc.plugin.offline.run_folder import read_config


def command(*words: object) -> None:
    """`python -m fastreid_cc ...`."""
    subprocess.run([sys.executable, "-m", "fastreid_cc", *map(str, words)], check=True)


def main(folder: Path, source: str = "", *pairs: str) -> None:
    """Writes model.onnx, model.pt, resized/*.png and ours.json into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not source:
        source = str(folder / "run")
        words = ("CC.OVERWRITE", True, "OUTPUT_DIR", source)
        command("train", "--config-file", "quick/usl_tiny", *words)
    command("export", source, "--for", "boxmot", "--out", folder / "model.onnx", *pairs)
    command("export", source, "--for", "roboflow", "--out", folder / "model.pt", *pairs)
    test = tested_sets(source, pairs=pairs, checkpoint="")[0][0]
    height, width = read_config(source, pairs).INPUT.SIZE_TEST
    (folder / "resized").mkdir(exist_ok=True)
    for row, path in enumerate(test.paths):
        with Image.open(path) as image:
            own = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        own.save(folder / "resized" / f"{row:05d}.png")
    asked, rest = slice(test.num_query), slice(test.num_query, None)
    distances = 1 - test.features[asked] @ test.features[rest].T
    who = [values[part] for values in (test.identities, test.cameras) for part in (asked, rest)]
    _, precisions, _ = evaluate_rank(distances, *who, use_cython=False)
    told = {
        "paths": [str(Path(path).absolute()) for path in test.paths],
        "queries": test.num_query,
        "ids": test.identities.tolist(),
        "cameras": test.cameras.tolist(),
        "size": [height, width],
        "mAP": 100 * float(np.mean(precisions)),
    }
    (folder / "ours.json").write_text(json.dumps(told))
    np.save(folder / "ours.npy", test.features)
    print(f"ours: {len(test.paths)} crops of {test.name}, mAP {told['mAP']:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
