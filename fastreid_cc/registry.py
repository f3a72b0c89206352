"""Registries of exchangeable parts: one part is one class in one file, found by its name.

A family package (for example `fastreid_cc.memories`) calls `discover` in its `__init__`, so adding
a part never edits a list. A part's parameters are the keyword-only arguments of its constructor;
`Registry.parameters` reads them, and the config keys are generated from them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


class Registry:
    """Maps names to classes of one family.

    Args:
        family: what the parts are, for messages, e.g. "memory".
        key: the config node that holds the parts' parameters, e.g. "CC.MEMORY".

    Attributes:
        listeners: called with the registry and the name whenever a part is registered, so that
            parts from outside get their config keys too.
    """

    def __init__(self, family: str, key: str) -> None:
        self.family = family
        self.key = key
        self._classes: dict[str, type] = {}
        self.listeners: list[Callable[[Registry, str], None]] = []

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that registers a class under `name` (default: its own name).

        Raises:
            KeyError: if another class holds the name already.
        """

        def add(cls: T) -> T:
            label = name or cls.__name__
            known = self._classes.get(label)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise KeyError(f"{self.family} {label!r} is registered already, by {known!r}.")
            self._classes[label] = cls
            for heard in self.listeners:
                heard(self, label)
            return cls

        return add

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def get(self, name: str) -> type:
        """The class called `name`.

        Raises:
            KeyError: with the known names and the nearest one, if there is no such part.
        """
        if name not in self._classes:
            near = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(
                f"{self.key}.NAME={name!r}: no such {self.family}.{hint} Known:"
                f" {', '.join(self.names())}."
            )
        return self._classes[name]

    def parameters(self, name: str) -> dict[str, Any]:
        """Keyword-only constructor arguments of a part and their defaults, in order."""
        signature = inspect.signature(self.get(name).__init__)  # type: ignore[misc]
        return {
            p.name: p.default
            for p in signature.parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }


NEIGHBORS = Registry("neighbour search", "CC.NEIGHBORS")
DISTANCES = Registry("distance", "CC.DISTANCE")
CLUSTERERS = Registry("clusterer", "CC.CLUSTER")
REFINERS = Registry("refiner", "CC.REFINE")
MEMORIES = Registry("memory", "CC.MEMORY")
LOSSES = Registry("loss", "MODEL.LOSSES")


def discover(package: str) -> None:
    """Imports every module of a package, so that its parts register themselves."""
    module = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda m: m.name):
        importlib.import_module(f"{package}.{info.name}")
