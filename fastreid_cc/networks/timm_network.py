"""Any network of timm that gives features."""

from __future__ import annotations

import ast
import difflib
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadConfig, MissingWeights
from ..registry import Part
from .clip_tower import resize_positions
from .ics_stem import IcsStem
from .weights import refuse_other_shapes


class TimmNetwork(Part, nn.Module):
    """A network of timm without its classifier, as a backbone.

    Args:
        image_size: (height, width) in pixels; transformers get positions for it.
        given_pixels: (mean, std) in 0..255 that the images were normalised with.
        download: whether timm may fetch its own weights.
        name: of `timm.list_models()`, e.g. "vit_small_patch14_dinov2.lvd142m".
        features: "map": [B, C, H, W]; "class": the first token; "mean": the mean of the patch
            tokens; "pooled": what the network itself pools; "auto": the map of a network that has
            one, else "pooled". Parameters behind what is asked for are frozen.
        pixels: "config": images are normalised by MODEL.PIXEL_MEAN and PIXEL_STD; "model": by the
            mean and deviation that the weights were trained with.
        arguments: further arguments of the network, as "name=value", e.g. "drop_path_rate=0.1".
        stem: "own": what the network cuts patches with; "ics": four convolutions in its place, for
            a ViT with LUPerson's weights (`IcsStem`).
        layer_decay: factor of the learning rate from a layer to the one below it; 1 = one rate.
        checkpointing: compute blocks again in the backward pass: less memory, more time.

    Attributes:
        feature_size: C, channels of what `forward` gives.
        is_map: whether that is a map; else it is [B, C, 1, 1].

    Raises:
        BadConfig: if there is no such network, it takes no such argument, or has no such features.
        MissingWeights: if timm cannot fetch its weights.

    Source: Wightman, PyTorch Image Models (needs the package timm, `pip install '.[timm]'`).
    """

    key = "MODEL.BACKBONE.TIMM"
    limits = {
        "features": ("auto", "map", "class", "mean", "pooled"),
        "pixels": ("config", "model"),
        "stem": ("own", "ics"),
        "layer_decay": "(0, 1]",
    }
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        given_pixels: tuple[list[float], list[float]],
        download: bool = False,
        *,
        name: str = "",
        features: str = "auto",
        pixels: str = "config",
        arguments: tuple[str, ...] = (),
        stem: str = "own",
        layer_decay: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layer_decay = layer_decay
        more = dict(map(_argument, arguments))
        if stem == "ics":
            if download:
                raise MissingWeights(
                    f"{self.key}.STEM=ics: nobody's download has that stem. Name a file of"
                    " TransReID-SSL in MODEL.BACKBONE.PRETRAIN_PATH (docs/networks.md), or set"
                    " MODEL.BACKBONE.PRETRAIN False to start from random weights."
                )
            more["embed_layer"] = IcsStem
        self.model = _create(name, image_size, download, more)
        with torch.no_grad():
            found = self._forward_features(image_size)
        has_map = found.ndim == 4
        self.features = ("map" if has_map else "pooled") if features == "auto" else features
        self.is_map = self.features == "map"
        if has_map != self.is_map and self.features in ("map", "class", "mean"):
            kind = "a map" if has_map else "tokens"
            raise BadConfig(f"{self.key}.FEATURES={features}: {name} gives {kind}. Set it to auto.")
        pooled = self.features == "pooled"
        self.feature_size = self.model.head_hidden_size if pooled else self.model.num_features
        self.is_own_pixels = pixels == "model"
        trained = self.model.pretrained_cfg
        values = (*given_pixels, trained["mean"], trained["std"])
        mean, std, own_mean, own_std = (torch.tensor(three).view(-1, 1, 1) for three in values)
        self.register_buffer("scale", std / 255 / own_std, persistent=False)
        self.register_buffer("shift", (mean / 255 - own_mean) / own_std, persistent=False)
        self._freeze_unused(image_size)
        if checkpointing:
            self.model.set_grad_checkpointing()

    def _forward_features(self, image_size: tuple[int, int]) -> Tensor:
        image = torch.zeros(1, 3, *image_size, device=next(self.model.parameters()).device)
        found: Tensor = self.model.eval().forward_features(image)
        self.model.train()
        return found

    def _freeze_unused(self, image_size: tuple[int, int]) -> None:
        """Parameters that these features do not pass learn nothing.

        Without this, several processes would wait for their gradients.
        """
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.eval()
        with torch.enable_grad():
            found = self(torch.zeros(1, 3, *image_size, device=learning[0].device)).sum()
            gradients = torch.autograd.grad(found, learning, allow_unused=True)
        self.train()
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised by `given_pixels` -> [B, C, h, w] or [B, C, 1, 1]."""
        if self.is_own_pixels:
            images = images * self.scale + self.shift
        found = self.model.forward_features(images)
        if self.is_map:
            is_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            result: Tensor = found.permute(0, 3, 1, 2) if is_last else found
            return result
        if self.features == "pooled":
            found = self.model.forward_head(found, pre_logits=True)
        elif self.features == "class":
            found = found[:, 0]
        else:
            found = found[:, getattr(self.model, "num_prefix_tokens", 0) :].mean(1)
        result = found[..., None, None]
        return result

    def lr_factors(self) -> dict[str, float]:
        """Parameter -> factor of its learning rate, `layer_decay` to the power of layers above."""
        if self.layer_decay == 1:
            return {}
        from timm.models import group_parameters

        layers = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        last = max(layers.values())
        return {
            f"model.{name}": self.layer_decay ** (last - layer) for name, layer in layers.items()
        }


def _argument(text: str) -> tuple[str, Any]:
    """("embed_dim", 16) of "embed_dim=16"; what is no literal stays text."""
    name, is_there, value = text.partition("=")
    if not is_there:
        raise BadConfig(f"MODEL.BACKBONE.TIMM.ARGUMENTS: {text!r} must be name=value.")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return name.strip(), value.strip()


def _create(name: str, size: tuple[int, int], download: bool, arguments: dict[str, Any]) -> Any:
    key = "MODEL.BACKBONE.TIMM"
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 3, 0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise BadConfig(f"{key}.NAME={name!r}: timm has no such network.{hint}")
    faults = []
    sizes: tuple[dict[str, Any], ...] = ({"img_size": size}, {})
    for more in sizes:  # networks without positions take no size
        try:
            return timm.create_model(name, pretrained=download, num_classes=0, **more, **arguments)
        except BadConfig:  # what our own stem says
            raise
        except (TypeError, AssertionError, ValueError) as error:
            faults.append(str(error).splitlines()[0])
        except Exception as error:  # what a hub, a network or a disk may raise
            if not download:
                raise
            raise MissingWeights(
                f"{key}.NAME={name}: timm cannot fetch its weights ({type(error).__name__}). Put"
                " them on this machine and name the file in MODEL.BACKBONE.PRETRAIN_PATH"
                " (pytorch_model.bin or model.safetensors of timm's page on the hub), or set"
                " MODEL.BACKBONE.PRETRAIN False to start from random weights."
            ) from error
    fault = faults[0] if "img_size" not in faults[0] else faults[1]
    raise BadConfig(
        f"{key}.NAME={name} cannot be built for INPUT.SIZE_TRAIN={size} and {key}.ARGUMENTS="
        f"{tuple(f'{k}={v}' for k, v in arguments.items())}: {fault}"
    )


def load_timm(network: TimmNetwork, found: Mapping[str, Tensor]) -> str:
    """Loads weights as timm does, positions resized; returns a sentence on what was left out.

    Args:
        found: a state dict of timm, of whoever's names timm's own filter of that network knows, or
            of a `TimmNetwork` ("model.").

    Raises:
        MissingWeights: if a weight is missing or has another shape, with its name.
    """
    model = network.model
    inside = {k.removeprefix("model."): w for k, w in found.items() if k.startswith("model.")}
    weights = {name: weight.float() for name, weight in (inside or found).items()}
    own = model.state_dict()
    resized = _resize_portrait(weights, model)
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        weights = translate(weights, model)
    refuse_other_shapes(own, weights, network.key)
    model.load_state_dict({name: weights[name] for name in own})
    left = [name for name in weights if name not in own]
    text = f"{len(own)} weights read{resized}"
    return text + (f", {len(left)} left out ({', '.join(left[:3])})" if left else "")


def _resize_portrait(weights: dict[str, Tensor], model: nn.Module) -> str:
    """Resizes positions of a grid twice as high as wide, for which timm takes a square; says so.

    As in TransReID-SSL, whose ViTs were trained at 256x128: bilinear, without antialias.
    """
    old = weights.get("pos_embed")
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if old is None or grid is None or getattr(model, "num_prefix_tokens", 0) != 1:
        return ""
    count = old.shape[-2] - 1
    rows = math.isqrt(2 * count)
    if rows * rows != 2 * count or count == grid[0] * grid[1]:
        return ""
    weights["pos_embed"] = resize_positions(old[0], grid, ratio=2)[None]
    return f"; positions resized from {rows}x{rows // 2} patches to {grid[0]}x{grid[1]}, bilinear"
