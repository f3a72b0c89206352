"""A network in the form that other projects' trackers load, in half precision or int8 if wanted.

BoxMOT and Roboflow's `reid` feed RGB crops as (x / 255 - mean) / std by ImageNet's figures. The
graph undoes that and applies the config's own figures, so features are those of our evaluation.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...data.pixels import IMAGENET_MEAN, IMAGENET_STD, normalised, read_pixels
from ...files import write_atomically
from ..loading.datasets import configure_from
from ..loading.target_images import collect_images
from .onnx_export import Embedder, fused

logger = logging.getLogger("fastreid.cc.export")
Run = Callable[[np.ndarray], np.ndarray]


class FromNormalised(nn.Module):
    """Images f32 [B, 3, H, W] that a tracker normalised, to features f32 [B, D] of unit length.

    Args:
        embedder: takes RGB from 0 to 255.
        half: whether the embedder's weights are float16; features are float32 either way.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, embedder: nn.Module, *, half: bool = False) -> None:
        super().__init__()
        self.embedder = embedder.half() if half else embedder
        self.half_inside = half
        scale = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
        shift = 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The embedder's features of the images before they were normalised."""
        pixels = images * self.scale + self.shift
        features: Tensor = self.embedder(pixels.half() if self.half_inside else pixels)
        return features.float()


class Crops(NamedTuple):
    """Images to calibrate and compare with.

    Args:
        pixels: f32 [N, 3, H, W], RGB from 0 to 255.
        what: says where they are from, to be read by people.
    """

    pixels: np.ndarray
    what: str


def sample_crops(cfg: Any, *, size: Sequence[int], fill: Sequence[int], count: int) -> Crops:
    """Training images of a config, evenly over the list sorted by path; noise if there are none."""
    try:
        configure_from(cfg, draw=False)
        paths = collect_images(cfg).paths
        rows = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
        pixels = np.stack([read_pixels(paths[row], size, fill) for row in rows])
        return Crops(pixels, f"{len(pixels)} of the {len(paths):,} training images")
    except Exception as error:  # noqa: BLE001  data sets raise anything; the answer says it
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        logger.warning(f"No training images ({reason}): noise stands in for them.")
    coarse = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 4)).astype(np.float32)
    down, across = np.arange(size[0]) * 8 // size[0], np.arange(size[1]) * 4 // size[1]
    return Crops(np.ascontiguousarray(coarse[:, :, down][..., across]), f"{count} images of noise")


def write_torchscript(
    network: FromNormalised, path: Path, *, size: Sequence[int], notes: dict[str, str]
) -> None:
    """Traces a network to one file for `torch.jit.load`, notes inside; any number of images."""
    example = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and that torch has a newer exporter
        traced: Any = torch.jit.trace(network.eval(), (example,))
        torch.jit.save(traced, str(path), _extra_files={"fastreid_cc.json": json.dumps(notes)})


def for_tracker(embedder: Embedder, *, half: bool = False) -> FromNormalised:
    """The network as trackers feed it, RepVGG's branches fused; the embedder stays as it is."""
    return FromNormalised(fused(embedder), half=half).eval().requires_grad_(False)


def to_half(path: Path) -> None:
    """Makes an ONNX file's weights and arithmetic float16; images and features stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiny weights are clipped: the cosines tell what it did
        model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    onnx.save(model, str(path))


def to_int8(path: Path, images: np.ndarray) -> None:
    """Makes an ONNX file's convolutions and products int8, ranges measured on images (static).

    Weights by output channel; images and features stay float32.

    Args:
        path: of the file, which is replaced.
        images: f32 [N, 3, H, W], as the file takes them.
    """
    import onnx
    from onnxruntime import quantization as q

    notes = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    part = path.with_name(f"{path.name}.int8")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a step that changed nothing here
    try:
        q.quantize_static(
            str(path),
            str(part),
            _Reader(images),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: 8 overflow on processors without VNNI
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        model = onnx.load(str(part))
        onnx.helper.set_model_props(model, notes)
        onnx.save(model, str(path))
    finally:
        logging.disable(level)
        part.unlink(missing_ok=True)


class _Reader:
    """Images one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {"images": image[None]}


def write_boxmot_metadata(
    path: Path, *, backbone: str, size: Sequence[int], padded: bool, precision: str, source: str
) -> Path:
    """The JSON file beside an ONNX file in which BoxMOT 25 looks for size and preprocessing."""
    told = {
        "schema_version": 1,
        "format": "onnx",
        "source": source,
        "model_name": f"fastreid_cc_{backbone}",
        "model_kwargs_schema_version": 1,
        "model_kwargs": {"img_size": list(size)},
        "img_size": list(size),
        "num_classes": 1,
        "preprocess": "resize_pad" if padded else "resize",
        "input_name": "images",
        "output_names": ["features"],
        "input_shape": [1, 3, *size],
        "precision": precision,
        "dynamic_batch": True,
        "artifact_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    beside = path.with_name(f"{path.name}.metadata.json")
    with write_atomically(beside) as part:
        part.write_text(json.dumps(told, indent=2) + "\n")
    return beside


def as_given(pixels: np.ndarray, *, tracker: bool) -> np.ndarray:
    """Images as a file takes them, of pixels from 0 to 255."""
    return normalised(pixels) if tracker else pixels


def runner(path: Path, *, torchscript: bool = False) -> Run:
    """Features f32 [B, D] of images f32 [B, 3, H, W] by a file, on one core where it is ONNX."""
    if torchscript:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has a newer exporter; `reid` takes modules
            traced: Any = torch.jit.load(str(path), map_location="cpu")

        def by_torch(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return np.asarray(traced(torch.from_numpy(images)).numpy())

        return by_torch
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["features"], {"images": images})[0])


class Compared(NamedTuple):
    """A file against the network it was made of.

    Args:
        least, mean: cosine of the features with the float32 network's.
        milliseconds: of one crop, in batches of 16, on one core; the median of the batches.
    """

    least: float
    mean: float
    milliseconds: float


def compare(embedder: Embedder, run: Run, pixels: np.ndarray, *, tracker: bool) -> Compared:
    """Features of a file and of the float32 network on the same crops.

    Args:
        embedder: takes RGB from 0 to 255, as `pixels` f32 [N, 3, H, W] are.
        tracker: whether the file takes what a tracker normalised.
    """
    cosines, seconds = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for start in range(0, len(pixels), 16):
        batch = pixels[start : start + 16]
        with torch.no_grad():
            wanted = embedder(torch.from_numpy(batch)).numpy()
        images = as_given(batch, tracker=tracker)
        run(images[:1])  # the first call of a size prepares it
        begun = time.perf_counter()
        found = run(images)
        seconds.append((time.perf_counter() - begun) / len(batch))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines.append((found * wanted).sum(axis=1) / lengths)
    torch.set_num_threads(threads)
    both = np.concatenate(cosines).astype(float)
    return Compared(float(both.min()), float(both.mean()), 1000 * float(np.median(seconds)))
