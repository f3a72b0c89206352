"""Reads what docstrings say of constructor arguments, for the help of config keys."""

from __future__ import annotations

import inspect
import re


def argument_lines(cls: type) -> dict[str, str]:
    """What the Args section of a class says of each argument, its base classes' where it is silent.

    Returns:
        Argument -> its text on one line. An argument nobody describes is left out.
    """
    found: dict[str, str] = {}
    for owner in cls.__mro__:
        for name, text in _section(owner.__dict__.get("__doc__") or ""):
            found.setdefault(name, text)
    return found


def _section(docstring: str) -> list[tuple[str, str]]:
    """(argument, text) of a docstring; Python 3.13 has dedented it already, 3.12 has not."""
    _, _, section = inspect.cleandoc(docstring).partition("Args:\n")
    section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
    matches = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return [(name, " ".join(text.split())) for name, text in matches]
