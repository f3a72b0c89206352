"""A config key, and the keys that a constructor makes: default, help and limits in one place.

An argument becomes `<key of its class>.<ARGUMENT>`: `DBSCAN(*, eps=0.6)`, registered as "dbscan",
gives `CC.CLUSTER.DBSCAN.EPS 0.6`. Its help is what the docstring says of `eps`, its limits are
those of the class.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple

from ..limits import Limit
from ..registry import LOSSES, Part, Registry, keyword_arguments

_LINES: dict[type, dict[str, str]] = {}
STOCK_LOSSES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


class Key(NamedTuple):
    """What is known of a config key.

    Attributes:
        default: the value where no config says otherwise; its type is the key's.
        help: what the key does, in sentences.
        limits: interval or choices (of each entry, where the value is a list); the registry whose
            names it holds; None = any value of its type.
    """

    default: Any
    help: str
    limits: Limit | Registry | None = None

    @property
    def range(self) -> str:
        """The limits in writing: "(0, 1]" or "drop | singleton"; "" for none."""
        limits = self.limits
        if isinstance(limits, Registry):
            limits = tuple(limits.names()) + (STOCK_LOSSES if limits is LOSSES else ())
        return " | ".join(map(str, limits)) if isinstance(limits, tuple) else limits or ""


def argument_keys(cls: type[Part]) -> dict[str, Key]:
    """Full key -> `Key` of each keyword-only argument of a class."""
    lines = {name: line[:1].upper() + line[1:] for name, line in argument_lines(cls).items()}
    return {
        f"{cls.key}.{name.upper()}": Key(default, lines.get(name, ""), cls.limits.get(name))
        for name, default in keyword_arguments(cls).items()
    }


def argument_lines(cls: type) -> dict[str, str]:
    """What the Args section of a class says of each argument, its base classes' where it is silent.

    Returns:
        Argument -> its text on one line. An argument nobody describes is left out.
    """
    if cls not in _LINES:  # asked for every key of every config that is checked
        found: dict[str, str] = {}
        for owner in cls.__mro__:
            for name, text in _section(owner.__dict__.get("__doc__") or ""):
                found.setdefault(name, text)
        _LINES[cls] = found
    return _LINES[cls]


def _section(docstring: str) -> list[tuple[str, str]]:
    """(argument, text) of a docstring; Python 3.13 has dedented it already, 3.12 has not."""
    _, _, section = inspect.cleandoc(docstring).partition("Args:\n")
    section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
    matches = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return [(name, " ".join(text.split())) for name, text in matches]
