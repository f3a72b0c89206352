"""A trained network as one ONNX file: pixels in, unit features out, checked against onnxruntime.

Torch's exporter follows the network in evaluation mode once; pooling, neck and the scaling to unit
length are part of the graph, and so is fastreid's normalisation of pixels. The number of images is
free, their size is not.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.modeling import build_model
from fastreid.modeling.backbones.repvgg import RepVGG
from torch import Tensor, nn

from ... import __version__
from ...data.fit_and_pad import PADDING
from ...data.pixels import NORMALISED, normalised
from ...errors import ClearError

BATCHES = (1, 2, 5)
NOTHING = 1e-30  # weights below add nothing that float32 could hold beside features of length 1


class Embedder(nn.Module):
    """Images f32 [B, 3, H, W], RGB, 0 to 255, to features f32 [B, D] of unit length."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """What fastreid's evaluation compares: the head's output, scaled to unit length."""
        return F.normalize(self.model({"images": images.clone()}))  # fastreid works in place


def build_embedder(cfg: Any) -> Embedder:
    """The network of a config on the CPU in evaluation mode, with random weights."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.BACKBONE.COMPILE, cfg.TEST.AMP = "off", False
    return Embedder(build_model(cfg)).eval()


def fused(embedder: nn.Module) -> nn.Module:
    """A copy for deployment: RepVGG's branches become one convolution, attention plain products.

    timm's fused attention of BEiT cannot be exported; the plain one computes the same. Weights that
    decayed to nothing are 0: processors take many times as long for numbers below 1.2e-38.
    """
    embedder = copy.deepcopy(embedder)
    for module in list(embedder.modules()):
        if isinstance(module, RepVGG):
            module.deploy(True)
        if getattr(module, "fused_attn", False):
            module.fused_attn = False  # type: ignore[assignment]
    with torch.no_grad():
        for weight in (*embedder.parameters(), *embedder.buffers()):
            if weight.is_floating_point():
                weight[weight.abs() < NOTHING] = 0
    return embedder


def _why_not(error: Exception, version: str) -> str:
    """What the exporter found, without colours and advice, and what to do about an old torch."""
    reason = re.sub(r"\x1b\[[\d;]*m", "", " ".join(str(error).split())).split(". ")[0][:300]
    told = f"torch {version} cannot export this network: {reason.rstrip('.')}."
    if tuple(map(int, version.split(".")[:2])) < (2, 15):
        told += (
            "\nExport is tested with torch 2.15 and fails with 2.6. Make an environment with a"
            " newer one\nand type the command there: it reads the same checkpoint."
        )
    return told


def write_onnx(
    embedder: nn.Module,
    path: Path,
    *,
    size: Sequence[int],
    source: str = "",
    padding: Sequence[float] = (),
    takes_normalised: bool = False,
) -> None:
    """Exports to one file; input "images" [batch, 3, H, W], output "features" [batch, D].

    Args:
        embedder: an Embedder, or one that takes what a tracker normalised; in evaluation mode.
        path: of the file; weights are inside.
        size: (height, width) of the images.
        source: name of the checkpoint, noted in the file.
        padding: with INPUT.KEEP_RATIO the colour around images, noted in the file for `embed`.
        takes_normalised: whether images are (x / 255 - mean) / std by ImageNet's figures.

    Raises:
        ClearError: if torch cannot express the network in ONNX; the message says why.
    """
    import onnx

    height, width = size
    example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                fused(embedder),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:  # the exporter raises of many kinds
            raise ClearError(_why_not(error, torch.__version__)) from error
    model = program.model_proto
    pixels = "(x / 255 - mean) / std of ImageNet" if takes_normalised else "0..255"
    notes = {
        "images": f"float32, RGB, {pixels}, [batch, 3, {height}, {width}]",
        "features": "float32, unit length: compare by inner product",
        "producer": f"fastreid_cc {__version__}, torch {torch.__version__}",
        "checkpoint": source,
    }
    if takes_normalised:
        notes[NORMALISED] = "imagenet"
    if padding:
        notes[PADDING] = " ".join(str(round(value)) for value in padding)
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of its own progress and of its own deprecations."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def largest_difference(
    embedder: Embedder, path: Path, *, size: Sequence[int], takes_normalised: bool = False
) -> float:
    """Largest difference of a feature's entry, onnxruntime on the CPU against torch.

    Over batches of 1, 2 and 5 random images, noise and flat colours; entries lie in [-1, 1]. With
    `takes_normalised` the file gets them normalised, torch as they are.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    worst = 0.0
    for count in BATCHES:
        images = generator.integers(0, 256, (count, 3, *size)).astype(np.float32)
        images[-1] = generator.integers(0, 256, (3, 1, 1))
        with torch.no_grad():
            expected = embedder(torch.from_numpy(images)).numpy()
        given = normalised(images) if takes_normalised else images
        found = session.run(["features"], {"images": given})[0]
        difference = np.abs(found - expected).max()
        worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
    return worst
