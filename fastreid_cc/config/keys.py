"""All config keys, fixed ones and those of registered parts, and how a config is read by them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from .. import generators, losses, memories  # noqa: F401  register
from ..labeling import clusterers, distances, neighbors, refiners  # noqa: F401  register
from ..registry import (
    CLUSTERERS,
    DISTANCES,
    GENERATORS,
    LOSSES,
    MEMORIES,
    NEIGHBORS,
    REFINERS,
    Part,
    Registry,
    keyword_arguments,
)
from .fixed_keys import FIXED_KEYS
from .signatures import Key, argument_keys

P = TypeVar("P", bound=Part)

REGISTRIES = (NEIGHBORS, DISTANCES, CLUSTERERS, REFINERS, MEMORIES, LOSSES, GENERATORS)


def part_keys(registry: Registry, name: str) -> dict[str, Key]:
    """Full key -> `Key` of one part's arguments; a loss gets SCALE in front."""
    keys = argument_keys(registry.get(name))
    if registry is LOSSES:
        scale = Key(1.0, "Factor of the loss in the sum of MODEL.LOSSES.NAME.", "[0, inf)")
        keys = {f"{registry.node(name)}.SCALE": scale, **keys}
    return keys


def all_keys() -> dict[str, Key]:
    """Every key of the plug-in, with those of parts that were brought in from outside."""
    found = dict(FIXED_KEYS)
    for registry in REGISTRIES:
        for name in registry.names():
            found |= part_keys(registry, name)
    return found


def add_key(root: Any, key: str, default: Any) -> None:
    """Adds one key to a yacs node, making the nodes on the way; a key that exists stays.

    A default of {} is a node that configs put nodes of their own into.
    """
    node = root
    *path, leaf = key.split(".")
    for step in path:
        if step not in node:
            node[step] = type(root)()
        node = node[step]
    if leaf not in node:
        node[leaf] = type(root)() if isinstance(default, dict) else default


def get_key(cfg: Any, key: str) -> Any:
    """The value at a full key."""
    node = cfg
    for step in key.split("."):
        node = node[step]
    return node


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of every leaf below a config node."""
    for name, value in node.items():
        if hasattr(value, "items"):
            yield from walk(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def near_keys(wanted: str, keys: Iterable[str]) -> list[str]:
    """At most three keys or nodes like a misspelt one, the nearest first.

    Their last segments are compared, as many as `wanted` has: "dbscn" is near CC.CLUSTER.DBSCAN.
    """
    nodes = {key.rsplit(".", n)[0] for key in keys for n in range(key.count(".") + 1)}
    depth = wanted.count(".") + 1
    tails: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: (node.count("."), node)):
        tails.setdefault(".".join(node.split(".")[-depth:]).lower(), node)
    near = difflib.get_close_matches(wanted.lower(), tails, n=3, cutoff=0.6)
    return [tails[tail] for tail in near]


def arguments(cfg: Any, cls: type[Part]) -> dict[str, Any]:
    """What a config says of the arguments of a class."""
    names = keyword_arguments(cls)  # a part without any has no node
    return {name: get_key(cfg, f"{cls.key}.{name.upper()}") for name in names}


def from_config(cfg: Any, cls: type[P]) -> P:
    """An object of a class whose arguments are all config keys.

    Raises:
        ValueError: naming the keys out of their limits.
    """
    return cls(**arguments(cfg, cls))


def build_part(cfg: Any, registry: Registry, name: str) -> Any:
    """Builds a registered part from its config keys.

    Raises:
        KeyError: unknown name, with the known ones.
        ValueError: naming the keys out of their limits.
    """
    return from_config(cfg, registry.get(name))
