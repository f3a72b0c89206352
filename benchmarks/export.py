"""ONNX of every backbone family: largest difference between onnxruntime and torch, size, seconds.

python benchmarks/export.py [NAME ...]    e.g. R18 R50-IBN OSNet; random weights, 256x128
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import fastreid_cc.plugin  # noqa: F401  isort: skip  activates the plug-in
import torch

from fastreid_cc.config.shipped import PREFIX
from fastreid_cc.errors import ClearError
from fastreid_cc.plugin.offline.onnx_export import build_embedder, largest_difference, write_onnx
from fastreid_cc.plugin.offline.run_folder import read_config

IBN = ("MODEL.BACKBONE.WITH_IBN", True)
IDENTITY = ("MODEL.HEADS.POOL_LAYER", "Identity")
VIT = ("MODEL.BACKBONE.STRIDE_SIZE", "[16, 16]", *IDENTITY)
#: name -> builder, DEPTH, FEAT_DIM, further pairs
FAMILIES: dict[str, tuple[str, str, int, tuple[object, ...]]] = {
    "R18": ("resnet", "18x", 512, ()),
    "R50": ("resnet", "50x", 2048, ()),
    "R50-IBN": ("resnet", "50x", 2048, IBN),
    "R50-IBN-NL": ("resnet", "50x", 2048, (*IBN, "MODEL.BACKBONE.WITH_NL", True)),
    "ResNeSt-50": ("resnest", "50x", 2048, ()),
    "ResNeXt-50": ("resnext", "50x", 2048, ()),
    "OSNet-x0.25": ("osnet", "x0_25", 128, ()),
    "OSNet-x1.0": ("osnet", "x1_0", 512, ()),
    "RegNetX-200MF": ("regnet", "200x", 368, ()),
    "RegNetY-400MF": ("regnet", "400y", 440, ()),
    "EfficientNet-b0": ("effnet", "b0", 1280, ()),
    "ShuffleNetV2-0.5x": ("shufflenetv2", "0.5x", 1024, ()),
    "MobileNetV2-1.0x": ("mobilenetv2", "1.0x", 1280, ()),
    "MobileNetV3-Small": ("mobilenetv3", "Small", 1024, ()),
    "MobileNetV3-Large": ("mobilenetv3", "Large", 1280, ()),
    "RepVGG-A0": ("repvgg", "A0", 1280, ()),
    "ViT-small": ("vit", "small", 768, VIT),
    "ViT-base": ("vit", "base", 768, VIT),
    "CLIP ViT-B/16": ("clip", "", 1280, IDENTITY),
    **{
        f"timm {name}": ("timm", "", size, (*more, "MODEL.BACKBONE.TIMM.NAME", name))
        for name, size, more in (
            ("vit_small_patch16_224", 384, IDENTITY),
            ("vit_small_patch16_dinov3", 384, IDENTITY),
            ("vit_base_patch16_siglip_224", 768, IDENTITY),
            ("beit_base_patch16_224", 768, IDENTITY),
            ("swin_tiny_patch4_window7_224", 768, ()),
            ("convnext_tiny", 768, ()),
            ("resnet50", 2048, ()),
            ("efficientnet_b0", 1280, ()),
            ("dm_nfnet_f0", 3072, ()),
            ("mambaout_tiny", 576, ()),
            ("regnety_016", 888, ()),
            ("mobilenetv4_conv_small", 960, ()),
        )
    },
}


def config(name: str) -> Any:
    """The label-free base config with another backbone."""
    builder, depth, size, more = FAMILIES[name]
    pairs = (
        "MODEL.BACKBONE.NAME",
        f"build_{builder}_backbone",
        "MODEL.BACKBONE.DEPTH",
        depth,
        "MODEL.BACKBONE.FEAT_DIM",
        size,
        *more,
    )
    return read_config(f"{PREFIX}Base-ClusterContrast.yml", [str(word) for word in pairs])


def measure(name: str, folder: Path) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    cfg = config(name)
    start, path = time.perf_counter(), folder / f"{name}.onnx"
    try:
        embedder = build_embedder(cfg)
        _move_statistics(embedder)
        write_onnx(embedder, path, size=cfg.INPUT.SIZE_TEST)
        worst = largest_difference(embedder, path, size=cfg.INPUT.SIZE_TEST)
    except ClearError as error:
        return f"| {name} | no: {error} | | |"
    seconds, size = time.perf_counter() - start, path.stat().st_size / 1e6
    path.unlink()
    return f"| {name} | {worst:.1e} | {size:.1f} | {seconds:.0f} |"


def _move_statistics(embedder: torch.nn.Module) -> None:
    """One training pass, so that batch norms hold other statistics than 0 and 1."""
    embedder.train()
    with torch.no_grad():
        embedder.model.backbone(torch.randn(4, 3, 256, 128))
    embedder.eval()


def main() -> None:
    """Prints the table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(FAMILIES))
    names = parser.parse_args().names or list(FAMILIES)
    unknown = sorted(set(names) - set(FAMILIES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    print("| backbone | largest difference | MB | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(measure(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
