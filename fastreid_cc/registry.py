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
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from .errors import BadConfig
from .limits import Limit, fault

P = TypeVar("P", bound="Part")
T = TypeVar("T", bound=type)


class Part:
    """Base of every class that is built from config keys; checks arguments before `__init__`.

    A subclass says beside its signature what each argument may be, and its constructor only stores:

    >>> class Dropper(Part):
    ...     limits = {"share": "[0, 1)", "which": ("largest", "smallest")}
    ...
    ...     def __init__(self, *, share: float = 0.1, which: str = "largest") -> None:
    ...         self.share, self.which = share, which
    >>> Dropper(share=1.5)
    Traceback (most recent call last):
    ValueError: Dropper.SHARE=1.5 must lie in [0, 1).

    Attributes:
        limits: argument -> interval or choices, see `fastreid_cc.limits`; those of base classes
            for arguments that the class has are added by themselves.
        key: the config node of the arguments, e.g. "CC.CLUSTER.DBSCAN", set by `register`; the name
            of the class until then.
    """

    limits: ClassVar[Mapping[str, Limit]] = {}
    key: ClassVar[str] = "Part"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = [base.limits for base in reversed(cls.__mro__) if issubclass(base, Part)]
        cls.limits = {name: limit for limits in bases for name, limit in limits.items()}
        if "key" not in cls.__dict__:
            cls.key = cls.__name__

    def __new__(cls: type[P], *args: Any, **arguments: Any) -> P:
        """Raises ValueError if a keyword argument is out of its limits, naming its config key."""
        faults = argument_faults(cls, arguments)
        if faults:
            raise ValueError(" ".join(faults))
        return super().__new__(cls)

    def __init__(self) -> None:  # refuses arguments, which object.__init__ would swallow
        super().__init__()


def argument_faults(cls: type[Part], arguments: Mapping[str, Any]) -> list[str]:
    """One message for each argument that is out of the limits of a class."""
    found = (
        fault(f"{cls.key}.{name.upper()}", value, cls.limits[name])
        for name, value in arguments.items()
        if name in cls.limits
    )
    return [message for message in found if message]


class Registry:
    """Maps names to classes of one family.

    Args:
        family: what the parts are, for messages, e.g. "memory".
        key: the config node that holds the parts' parameters, e.g. "CC.MEMORY".
        name_key: the key that names the part or parts in use, e.g. "CC.MEMORY.NAME".
        upper: whether a part's node is its name in capitals.

    Attributes:
        base: the class that all parts of the family derive from; the family's module sets it.
        listeners: called with the registry and the name whenever a part is registered, so that
            parts from outside get their config keys too.
    """

    def __init__(
        self, family: str, key: str, *, name_key: str | None = None, upper: bool = True
    ) -> None:
        self.family = family
        self.key = key
        self.name_key = name_key or f"{key}.NAME"
        self.upper = upper
        self.base: type[Part] = Part
        self._classes: dict[str, type[Any]] = {}
        self.listeners: list[Callable[[Registry, str], None]] = []

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that registers a class under `name` (default: its own) and sets its `key`.

        Raises:
            KeyError: if another class holds the name already.
            TypeError: if the class does not derive from the family's base.
            ValueError: if a default is out of the class's own limits.
        """

        def add(cls: T) -> T:
            label = name or cls.__name__
            known = self._classes.get(label)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise KeyError(f"{self.family} {label!r} is registered already, by {known!r}.")
            if not issubclass(cls, self.base):
                raise TypeError(
                    f"{cls.__qualname__} is no {self.family}: derive it from"
                    f" {self.base.__module__}.{self.base.__qualname__}."
                )
            cls.key = self.node(label)
            defaults = keyword_arguments(cls)
            cls.limits = {name: limit for name, limit in cls.limits.items() if name in defaults}
            faults = argument_faults(cls, defaults)
            if faults:
                raise ValueError(f"default of {cls.__qualname__}: {' '.join(faults)}")
            self._classes[label] = cls
            for heard in self.listeners:
                heard(self, label)
            return cls

        return add

    def node(self, name: str) -> str:
        """Key of a part's parameters, e.g. "CC.CLUSTER.DBSCAN" or "MODEL.LOSSES.AdaSP"."""
        return f"{self.key}.{name.upper() if self.upper else name}"

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def get(self, name: str) -> type[Any]:
        """The class called `name`.

        Raises:
            BadConfig: with the known names and the nearest one, if there is no such part.
        """
        if name not in self._classes:
            near = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise BadConfig(
                f"{self.name_key}={name!r}: no such {self.family}.{hint} Known:"
                f" {', '.join(self.names())}."
            )
        return self._classes[name]

    def parameters(self, name: str) -> dict[str, Any]:
        """Keyword-only constructor arguments of a part and their defaults, in order."""
        return keyword_arguments(self.get(name))


def keyword_arguments(cls: type[Any]) -> dict[str, Any]:
    """Keyword-only arguments of a constructor and their defaults, in order."""
    signature = inspect.signature(cls.__init__)
    return {
        p.name: p.default
        for p in signature.parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


NEIGHBORS = Registry("neighbour search", "CC.NEIGHBORS")
DISTANCES = Registry("distance", "CC.DISTANCE")
CLUSTERERS = Registry("clusterer", "CC.CLUSTER")
REFINERS = Registry("refiner", "CC.REFINE", name_key="CC.REFINE.NAMES")
MEMORIES = Registry("memory", "CC.MEMORY")
LOSSES = Registry("loss", "MODEL.LOSSES", upper=False)
GENERATORS = Registry("generator", "CC.GENERATE")


def discover(package: str) -> None:
    """Imports every module of a package, so that its parts register themselves."""
    module = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda m: m.name):
        importlib.import_module(f"{package}.{info.name}")
