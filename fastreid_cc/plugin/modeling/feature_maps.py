"""Outputs of a backbone's layers, for losses that read more than the feature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...errors import BadConfig
from ...losses.base import Loss


def wanted_maps(losses: Iterable[Loss]) -> dict[str, str]:
    """Map of the batch -> layer of the backbone, of all losses.

    Raises:
        BadConfig: if two losses want other layers under one name.
    """
    found: dict[str, str] = {}
    for loss in losses:
        for name, layer in loss.maps.items():
            if found.setdefault(name, layer) != layer:
                raise BadConfig(
                    f"Two losses of a stage want {found[name]} and {layer} as their {name}; they"
                    " can share one layer, or work in stages of their own."
                )
    return found


def find_layer(backbone: nn.Module, path: str, asker: str) -> nn.Module:
    """The layer of a backbone; of a sequence, which fastreid may run entry by entry, its last one.

    Raises:
        BadConfig: if there is none; with those that there are.
    """
    try:
        layer = backbone.get_submodule(path)
    except AttributeError:
        known = ", ".join(name for name, _ in backbone.named_children())
        raise BadConfig(
            f"{asker} reads the layer {path!r}, which this backbone does not have. It has: {known}."
        ) from None
    while isinstance(layer, (nn.Sequential, nn.ModuleList)) and len(layer):
        layer = layer[-1]
    return layer


@contextmanager
def maps_of(backbone: nn.Module, wanted: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Within it, a forward of the backbone fills the dictionary it gives: name -> [B, C, H, W]."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found.__setitem__(name, output)

    handles = [
        find_layer(backbone, layer, name).register_forward_hook(keep(name))
        for name, layer in wanted.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
