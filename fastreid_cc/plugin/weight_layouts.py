"""Where the weights of a backbone are in a file of another project: entries, prefixes, names.

A file is unwrapped ("state_dict", a DINO "teacher", ...), the names lose what was put before them
("module.", MoCo's "encoder_q.", ...), the numbers of an unnamed ResNet become names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Entries that hold the weights, the better ones first: DINO's teacher before its student.
ENTRIES = ("teacher", "state_dict", "model", "model_state", "model_state_dict", "net", "params")
#: What stands before a backbone's names; of a MoCo file only the encoder that is trained.
PREFIXES = (
    *("module.", "_orig_mod.", "encoder_q.", "base_encoder.", "backbone.", "model.", "net."),
    *("encoder.", "base.", "visual.", "image_encoder."),
)
#: First words of the names of classifiers and of what lies between them and the backbone.
HEADS = (
    *("classifier", "fc", "head", "heads", "head_dist", "last_linear", "linear", "bottleneck"),
    *("feat_bn", "projector", "predictor", "queue", "queue_ptr"),
)
#: Batch norms behind a backbone, in the order of the features they normalise.
NECKS = ("bottleneck", "bottleneck_proj")
#: The children of an unnamed ResNet, `nn.Sequential(conv1, bn1, ..., layer4)`.
RESNET = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


class Found(NamedTuple):
    """What a file held.

    Args:
        weights: name -> tensor, a head's too: whether "head." is one depends on the backbone.
        heads: names among them that look like a classifier's.
        layout: the entries and prefixes that led there, e.g. ("state_dict", "module.").
        dropped: names in the file that were left out, e.g. of MoCo's second encoder.
    """

    weights: dict[str, Tensor]
    heads: tuple[str, ...]
    layout: tuple[str, ...]
    dropped: tuple[str, ...]


def find_weights(content: Any) -> Found:
    """A backbone's weights in a file of any layout; empty if it holds no tensors."""
    weights, layout = _unwrapped(content)
    inside = {name: name for name in weights}  # what is left of a name -> the name in the file
    while prefix := next((p for p in PREFIXES if any(n.startswith(p) for n in inside)), None):
        layout.append(prefix)
        inside = {n.removeprefix(prefix): o for n, o in inside.items() if n.startswith(prefix)}
    named = _named_resnet(inside)
    if named != inside:
        layout.append("numbers for names")
    kept = {name: weights[old] for name, old in named.items()}
    heads = tuple(name for name, weight in kept.items() if _is_head(name, weight))
    used = set(named.values())
    left_out = tuple(old for old in weights if old not in used)
    return Found(kept, heads, tuple(layout), left_out)


def find_neck(content: Any) -> dict[str, Tensor]:
    """The batch norm between backbone and features of a whole model, under a batch norm's names.

    PCL-CLIP's two, of its class token and of the projected one, are joined, which computes the
    same. Empty if there is none.
    """
    weights, _ = _unwrapped(content)
    names = {name.removeprefix("module."): weight for name, weight in weights.items()}
    parts = [n for n in NECKS if f"{n}.running_mean" in names]
    return {
        entry: torch.cat([names[f"{part}.{entry}"].float() for part in parts])
        for entry in ("weight", "bias", "running_mean", "running_var")
        if parts
    }


def _unwrapped(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file, and the entries that led to them."""
    layout: list[str] = []
    while isinstance(content, Mapping):
        entry = next((n for n in ENTRIES if isinstance(content.get(n), Mapping)), None)
        if entry is None:
            break
        layout.append(entry)
        content = content[entry]
    whole = content if isinstance(content, Mapping) else {}
    weights = {str(k): torch.as_tensor(v) for k, v in whole.items() if hasattr(v, "shape")}
    return weights, layout


def _is_head(name: str, weight: Tensor) -> bool:
    """Whether a tensor is of a classifier; convolutions of these names are a backbone's own."""
    return name.split(".")[0] in HEADS and weight.ndim < 4


def _named_resnet(inside: dict[str, str]) -> dict[str, str]:
    """Names for the numbered children of a ResNet; the same if it is none."""
    numbers = sorted({int(n.split(".")[0]) for n in inside if re.match(r"\d+\.", n)})
    numbered = {n: o for n, o in inside.items() if re.match(r"\d+\.", n)}
    if len(numbers) != len(RESNET) or f"{numbers[0]}.weight" not in inside:
        return inside
    words = {str(number): word for number, word in zip(numbers, RESNET, strict=True)}
    parts = {name: name.partition(".") for name in numbered}
    return {f"{words[head]}.{rest}": numbered[n] for n, (head, _, rest) in parts.items()}
