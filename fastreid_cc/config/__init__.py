"""The plug-in's config keys: their defaults, help and checks, and the configs that are shipped."""

from .checks import faults, validate
from .fixed_keys import FIXED_KEYS
from .keys import (
    REGISTRIES,
    add_key,
    all_keys,
    build_part,
    from_config,
    get_key,
    near_keys,
    part_keys,
    walk,
)
from .loss_stages import is_mined, losses_at
from .signatures import STOCK_LOSSES, Key
from .source_folders import source_folders, source_names

__all__ = [
    "FIXED_KEYS",
    "REGISTRIES",
    "STOCK_LOSSES",
    "Key",
    "add_key",
    "all_keys",
    "build_part",
    "faults",
    "from_config",
    "get_key",
    "is_mined",
    "losses_at",
    "near_keys",
    "part_keys",
    "source_folders",
    "source_names",
    "validate",
    "walk",
]
