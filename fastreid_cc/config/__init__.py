"""The plug-in's config keys: their defaults, help and checks, and the configs that are shipped."""

from .keys import (
    FIXED_KEYS,
    REGISTRIES,
    STOCK_LOSSES,
    add_key,
    all_keys,
    build_part,
    faults,
    get_key,
    loss_scale,
    part_keys,
    part_node,
    validate,
)

__all__ = [
    "FIXED_KEYS",
    "REGISTRIES",
    "STOCK_LOSSES",
    "add_key",
    "all_keys",
    "build_part",
    "faults",
    "get_key",
    "loss_scale",
    "part_keys",
    "part_node",
    "validate",
]
