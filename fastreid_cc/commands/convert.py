"""weights of other projects made fit for PRETRAIN_PATH"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import boot
from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ._frame import make_parser, require_folder_of

_SHOWN = 3  # names in a line


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "convert",
        "Writes the backbone's weights of a checkpoint as the plain file that"
        " MODEL.BACKBONE.PRETRAIN_PATH wants: of torchreid, torchvision, timm, MoCo, LUPerson,"
        " DINO, fastreid and others, wrapped or not, .pth or .safetensors. With a config they are"
        " compared with its backbone. docs/weights.md says where such files can be had.",
    )
    made.add_argument("file", metavar="FILE", type=Path, help="checkpoint or weights to read")
    text = "file to write"
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help=text)
    text = "config that names the backbone, a path or a shipped one such as Market1501/cc_R50"
    text += " (default: none, nothing is compared)"
    made.add_argument("--config-file", default="", metavar="FILE", help=text)
    text = "write it even if weights of the backbone are missing; they stay random"
    made.add_argument("--partial", action="store_true", help=text)
    text = "write the whole model, the batch norm behind the backbone too, for MODEL.WEIGHTS of the"
    text += " config: of PCL-CLIP, whose two batch norms become one"
    made.add_argument("--whole", action="store_true", help=text)
    made.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    text = "config keys on top of the file, e.g. MODEL.BACKBONE.DEPTH 101x"
    made.add_argument("opts", nargs="*", metavar="KEY VALUE", help=text)
    return made


def main(argv: list[str]) -> int:
    """Reads, compares, writes whole or not at all."""
    args = parser().parse_intermixed_args(argv)
    if not args.file.is_file():
        raise WrongUse(f"{printable(args.file)}: no such file.")
    if args.opts and not args.config_file:
        raise WrongUse(f"{printable(' '.join(args.opts))}: keys change a config; name one.")
    if args.whole and (args.partial or not args.config_file):
        raise WrongUse("--whole needs --config-file, which names the head, and no --partial.")
    require_folder_of(args.out)
    if args.out.exists() and not args.overwrite:
        raise WrongUse(f"{printable(args.out)} is there already; --overwrite replaces it.")
    boot.activate()
    import torch

    from ..plugin.offline.foreign_weights import read_file
    from ..plugin.offline.run_folder import read_config
    from ..plugin.weight_layouts import find_weights

    cfg = read_config(args.config_file, args.opts) if args.config_file else None
    content = read_file(args.file)
    if args.whole:
        return _write_whole(content, cfg, args.out)
    found = find_weights(content)
    weights = found.weights
    if not any(weight.ndim > 1 for name, weight in weights.items() if name not in found.heads):
        raise ClearError(f"{printable(args.file)} holds no weights of a backbone.")
    layout = " > ".join(found.layout) or "bare"
    print(f"found    {len(weights)} weights ({printable(layout)})")
    _line("dropped", found.dropped, "beside them")
    if cfg is None:
        _line("dropped", found.heads, "that look like a classifier's")
        weights = {name: weight for name, weight in weights.items() if name not in found.heads}
        print("compared with no backbone; --config-file names one")
    else:
        weights = _compared(weights, cfg, partial=args.partial)
    with write_atomically(args.out) as part:
        torch.save({name: weight.contiguous() for name, weight in weights.items()}, part)
    print(f"wrote    {printable(args.out)}, {len(weights)} weights; train with")
    print(f"  MODEL.BACKBONE.PRETRAIN True MODEL.BACKBONE.PRETRAIN_PATH {printable(args.out)}")
    return 0


def _write_whole(content: Any, cfg: Any, out: Path) -> int:
    """Writes backbone and neck as a checkpoint of the config's network."""
    import torch

    from ..plugin.offline.foreign_weights import whole_model

    weights, said = whole_model(content, cfg)
    print(f"found    {printable(said)}")
    with write_atomically(out) as part:
        torch.save({"model": {name: weight.clone() for name, weight in weights.items()}}, part)
    print(f"wrote    {printable(out)}, {len(weights)} weights; measure or train with")
    print(f"  MODEL.WEIGHTS {printable(out)}")
    return 0


def _compared(weights: dict[str, Any], cfg: Any, *, partial: bool) -> dict[str, Any]:
    """The weights that fit the backbone of a config; says which do not.

    Raises:
        ClearError: if none fits, or some are missing without `partial`.
    """
    from ..plugin.offline.foreign_weights import fit

    node = cfg.MODEL.BACKBONE
    name = f"MODEL.BACKBONE.NAME {node.NAME} DEPTH {node.DEPTH} WITH_IBN {node.WITH_IBN}"
    fitting, missing, unexpected, misshapen = fit(weights, cfg)
    _line("dropped", unexpected, "that the config's backbone has not")
    shapes = [f"{n} {a}, wanted {b}" for n, (a, b) in misshapen.items()]
    _line("dropped", shapes, "of another shape")
    _line("missing", missing, "of the backbone's")
    if not any(weight.ndim > 1 for weight in fitting.values()):
        few = ", ".join(list(weights)[:_SHOWN])
        raise ClearError(f"none of the weights ({printable(few)}, ...) fits {name}.")
    absent = len(missing) + len(misshapen)
    if absent and not partial:
        raise ClearError(
            f"{absent} weights of {name} are missing or of another shape.\nNothing was written."
            " Name the backbone that the file is of, or say --partial: those stay random."
        )
    return fitting


def _line(verb: str, names: Sequence[str], what: str) -> None:
    if names:
        shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
        print(f"{verb:<8} {len(names)} {what}: {printable(shown)}")
