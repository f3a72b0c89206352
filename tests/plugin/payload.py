"""Things that run code when they are read carelessly: it makes a folder that tests look for."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch


class Payload:
    """Unpickled, it makes the folder `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def checkpoints(folder: Path, marker: Path, weights: dict[str, torch.Tensor]) -> dict[str, Path]:
    """Checkpoint files with a payload: as weights, beside them, in old formats, as a pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    trap = Payload(marker)
    made = {}
    for name, content in {
        "beside": {"model": weights, "epoch": 1, "cc": trap},
        "as_model": {"model": trap},
        "as_weight": {"model": {**weights, "backbone.x": trap}},
        "alone": trap,
    }.items():
        made[name] = folder / f"{name}.pth"
        torch.save(content, made[name])
    made["old_format"] = folder / "old_format.pth"
    torch.save(
        {"model": weights, "x": trap}, made["old_format"], _use_new_zipfile_serialization=False
    )
    made["pickle"] = folder / "pickle.pth"
    made["pickle"].write_bytes(pickle.dumps({"model": trap}))
    return made


def arrays(folder: Path, marker: Path) -> dict[str, Path]:
    """Numpy files with a payload: .npy of objects, .npz of objects, a bare pickle called .npy."""
    folder.mkdir(parents=True, exist_ok=True)
    trap = np.array([Payload(marker)], dtype=object)
    np.save(folder / "objects.npy", trap, allow_pickle=True)
    stream = io.BytesIO()
    np.save(stream, trap, allow_pickle=True)
    with zipfile.ZipFile(folder / "objects.npz", "w") as archive:
        archive.writestr("labels.npy", stream.getvalue())
    (folder / "pickle.npy").write_bytes(pickle.dumps(Payload(marker)))
    return {path.name: path for path in sorted(folder.iterdir())}


#: YAML tags that construct objects or call functions; {marker} is the folder to be made.
YAMLS = (
    "OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']\n",
    "OUTPUT_DIR: !!python/object/new:os.mkdir ['{marker}']\n",
    'CC: {{SEED: !!python/object/apply:eval [\'__import__("os").mkdir("{marker}")\']}}\n',
    "OUTPUT_DIR: !!python/name:os.mkdir\n",
    "OUTPUT_DIR: !!python/module:os\n",
    "OUTPUT_DIR: !<tag:yaml.org,2002:python/object/apply:os.system> ['mkdir {marker}']\n",
)

#: File names that a shell, a terminal, a spreadsheet or a page could take for more than a name.
NAMES = (
    "$(mkdir ran).jpg",
    "`mkdir ran`.jpg",
    "; mkdir ran;.jpg",
    "| mkdir ran.jpg",
    "-rf.jpg",
    "=cmd|' C calc'!A0.jpg",
    "@SUM(1).jpg",
    "<script>alert(1)<.jpg",
    '"><img src=x>.jpg',
    "line\nbreak.jpg",
    "clear\x1b[2J.jpg",
    "turn\u202egpj.jpg",
    "back\\slash.jpg",
    "x..%2fx.jpg",
    "a" * 240 + ".jpg",
    "not utf8 \udcff\udcfe.jpg",
    "quote,comma\"'.jpg",
    "x..jpg",
)
