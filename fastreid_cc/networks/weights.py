"""Whether weights are those of a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import MissingWeights


def refuse_other_shapes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], key: str) -> None:
    """Raises MissingWeights, naming three, if weights of a network are missing or of other shapes.

    Args:
        own: the network's. weights: those given; more than the network's do no harm.
        key: config node of the network, for the message.

    >>> import torch
    >>> refuse_other_shapes({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, "MODEL.BACKBONE.CLIP")
    Traceback (most recent call last):
    fastreid_cc.errors.MissingWeights: 1 of 1 weights do not fit MODEL.BACKBONE.CLIP: a (3,) \
(wanted (2,))
    """
    wrong = [
        f"{name} {tuple(weights[name].shape) if name in weights else 'is missing'}"
        f" (wanted {tuple(weight.shape)})"
        for name, weight in own.items()
        if name not in weights or weights[name].shape != weight.shape
    ]
    if wrong:
        some = "; ".join(wrong[:3])
        raise MissingWeights(f"{len(wrong)} of {len(own)} weights do not fit {key}: {some}")
