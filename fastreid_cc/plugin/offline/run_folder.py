"""Finished and unfinished runs: the config and the checkpoints an output folder holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreid.config import get_cfg
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from ...errors import BadConfig, UnreadableFile, WrongUse, printable
from ..checkpoint_files import load_file

logger = logging.getLogger("fastreid.cc.runs")


def read_config(source: str | Path, pairs: Sequence[str] = ()) -> Any:
    """The config of a run's folder (its config.yaml) or of a YAML file, frozen.

    Args:
        source: folder or file, or a shipped config, `fastreid_cc://...`.
        pairs: KEY VALUE ... on top of it.

    Raises:
        BadConfig: if it cannot be read or a key is wrong. WrongUse: if a folder is no run's.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "config.yaml"
        if not path.is_file():
            raise WrongUse(
                f"{printable(source)} holds no config.yaml: it is not the OUTPUT_DIR of a run of "
                "fastreid's train_net.py."
            )
    cfg = get_cfg()
    cfg.merge_from_file(str(path) if path.is_file() else str(source))
    cfg.merge_from_list(list(pairs))
    cfg.freeze()
    return cfg


def find_checkpoint(folder: str | Path, name: str = "") -> Path:
    """A run's checkpoint: the file `name` in its folder, else the newest whole one.

    Raises:
        WrongUse: if there is none, or `name` leads out of the folder.
    """
    folder = Path(folder)
    if name:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise WrongUse(f"--checkpoint {printable(name)} lies outside {printable(folder)}.")
    else:
        newest = Checkpointer(nn.Identity(), str(folder)).get_checkpoint_file()
        path = Path(newest) if newest else folder / "model_final.pth"
    if not path.is_file():
        known = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.pth"))
        listed = printable(", ".join(known)) or "none"
        raise WrongUse(f"{printable(path)}: no such checkpoint. In {printable(folder)}: {listed}.")
    return path


def find_weights(source: str, cfg: Any) -> Path:
    """The checkpoint that a config names.

    Raises:
        WrongUse: if it names none, or one that is not there.
    """
    if not cfg.MODEL.WEIGHTS:
        raise WrongUse(
            f"{printable(source)} names no weights: set MODEL.WEIGHTS file.pth, or give the folder"
            " of a run instead."
        )
    path = Path(cfg.MODEL.WEIGHTS)
    if not path.is_file():
        raise WrongUse(f"MODEL.WEIGHTS={printable(path)}: no such file.")
    return path


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain values; no code in it is run.

    Raises:
        UnreadableFile: if it is damaged, refused or no checkpoint of fastreid.
    """
    content = load_file(str(path))
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UnreadableFile(f'{printable(path)} is no checkpoint of fastreid: it has no "model".')
    return content


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads a checkpoint's weights into a model; all but the classifier must be there and fit.

    Raises:
        BadConfig: naming the weights that are missing or of another size.
        UnreadableFile: see `read_checkpoint`.
    """
    weights = {str(name): value for name, value in read_checkpoint(path)["model"].items()}
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    wanted = {k: v for k, v in model.state_dict().items() if k != "heads.weight"}
    fitting = {
        k: weights[k]
        for k, v in wanted.items()
        if getattr(weights.get(k), "shape", None) == v.shape
    }
    absent = sorted(set(wanted) - set(fitting))
    if absent:
        raise BadConfig(
            f"{printable(path)} does not fit the config: {len(absent)} of {len(wanted)} weights "
            f"are missing or of another size, e.g. {', '.join(absent[:3])}. Check MODEL.BACKBONE "
            "and MODEL.HEADS."
        )
    model.load_state_dict(fitting, strict=False)
