"""fastreid as its authors wrote it: lends the two names Python and torch dropped, nothing more.

Used by processes that must not know the plug-in. Importing this module imports stock fastreid.
"""

import collections
import collections.abc
import sys
import types

import torch

for _name in ("Mapping", "Sequence", "Iterable"):
    if not hasattr(collections, _name):
        setattr(collections, _name, getattr(collections.abc, _name))
if "torch._six" not in sys.modules:
    _six = types.ModuleType("torch._six")
    _six.string_classes, _six.int_classes = (str, bytes), int  # type: ignore[attr-defined]
    _six.container_abcs = collections.abc  # type: ignore[attr-defined]
    sys.modules["torch._six"] = _six

from fastreid.config import get_cfg  # noqa: E402
from fastreid.engine import DefaultPredictor  # noqa: E402
from fastreid.modeling import build_model  # noqa: E402
from fastreid.utils.checkpoint import Checkpointer  # noqa: E402


def plain_config(**model: object) -> object:
    """Baseline and EmbeddingHead around the tiny runs' backbone: no key of any plug-in."""
    cfg = get_cfg()
    assert "CC" not in cfg
    cfg.merge_from_list(
        [
            "MODEL.DEVICE",
            "cpu",
            "MODEL.META_ARCHITECTURE",
            "Baseline",
            "MODEL.BACKBONE.NAME",
            "build_osnet_backbone",
            "MODEL.BACKBONE.DEPTH",
            "x0_25",
            "MODEL.BACKBONE.FEAT_DIM",
            "128",
            "MODEL.BACKBONE.PRETRAIN",
            "False",
            "MODEL.HEADS.NAME",
            "EmbeddingHead",
            "MODEL.HEADS.WITH_BNNECK",
            "True",
            "MODEL.HEADS.NECK_FEAT",
            "after",
            "MODEL.HEADS.POOL_LAYER",
            "GeneralizedMeanPoolingP",
            "MODEL.LOSSES.NAME",
            '("TripletLoss",)',
            "INPUT.SIZE_TEST",
            "[32,16]",
        ]
    )
    for key, value in model.items():
        cfg.merge_from_list([key.replace("__", "."), str(value)])
    return cfg


def main(checkpoint: str, images: str, output: str) -> None:
    """Features of `images` by a checkpoint: Checkpointer and DefaultPredictor, 0 and 5 classes."""
    pixels = torch.load(images)
    found = {}
    for classes in (0, 5):
        cfg = plain_config(MODEL__HEADS__NUM_CLASSES=classes)
        model = build_model(cfg).eval()
        Checkpointer(model).load(checkpoint)
        with torch.no_grad():
            found[f"model {classes}"] = model({"images": pixels.clone()})
        cfg.merge_from_list(["MODEL.WEIGHTS", checkpoint])
        found[f"predictor {classes}"] = DefaultPredictor(cfg)(pixels.clone())
    foreign = sorted(name for name in sys.modules if name.startswith("fastreid_cc"))
    torch.save({"features": found, "foreign": foreign}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
