"""Every part of this repository has an example in its docstring, and every example is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

import fastreid_cc.generators
import fastreid_cc.labeling
import fastreid_cc.losses
import fastreid_cc.memories
from fastreid_cc.labeling import PseudoLabeler

from .parts import REGISTRIES

#: Modules whose examples need an optional package.
NEEDS = {"faiss_search": "faiss", "cells": "faiss", "infomap_communities": "infomap"}


def modules() -> list[ModuleType]:
    """All modules of the rooms that hold parts, the rooms' own included."""
    found: list[ModuleType] = []
    rooms = (fastreid_cc.labeling, fastreid_cc.memories, fastreid_cc.losses, fastreid_cc.generators)
    for room in rooms:
        names = [info.name for info in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]
        found += [room, *map(importlib.import_module, names)]
    return found


def examples_of(owner: object, name: str) -> list[doctest.DocTest]:
    """Docstrings with an example, of a module or class and what it defines."""
    more = {"torch": torch, "np": np}
    found = doctest.DocTestFinder().find(owner, name, extraglobs=more)
    return [test for test in found if test.examples]


@pytest.mark.parametrize(
    "module", [m for m in modules() if examples_of(m, m.__name__)], ids=lambda m: m.__name__
)
def test_the_examples_of_a_module_give_what_they_say(module: ModuleType) -> None:
    package = NEEDS.get(module.__name__.rpartition(".")[2], "")
    if package and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    heard: list[str] = []
    for test in examples_of(module, module.__name__):
        runner.run(test, out=heard.append)
    assert runner.failures == 0, "".join(heard)


def test_every_part_has_an_example() -> None:
    classes = {name: registry.get(name) for registry in REGISTRIES for name in registry.names()}
    classes["PseudoLabeler"] = PseudoLabeler
    assert {name for name, cls in classes.items() if ">>> " not in (cls.__doc__ or "")} == set()
