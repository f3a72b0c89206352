"""Importing fastreid at all: names that Python and torch dropped, packages that are missing."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import importlib
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastreid_cc.requirements import explain_missing, missing_fastreid

from .patching import assign, replace


def require_fastreid() -> None:
    """Raises MissingPackage, with the command to type, if fastreid cannot be found."""
    if sys.modules.get("fastreid") is None and importlib.util.find_spec("fastreid") is None:
        raise missing_fastreid()


@contextlib.contextmanager
def _removed_names() -> Iterator[None]:
    """`collections.Mapping` and `torch._six`, for as long as fastreid's modules import."""
    added = [n for n in ("Mapping", "Sequence", "Iterable") if not hasattr(collections, n)]
    for name in added:
        setattr(collections, name, getattr(collections.abc, name))
    stub = None
    if importlib.util.find_spec("torch._six") is None:
        stub = types.ModuleType("torch._six")
        vars(stub).update(
            string_classes=(str, bytes), int_classes=int, container_abcs=collections.abc
        )
        sys.modules["torch._six"] = stub
    try:
        yield
    finally:
        for name in added:
            delattr(collections, name)
        if stub is not None and sys.modules.get("torch._six") is stub:
            del sys.modules["torch._six"]


def import_fastreid() -> None:
    """Imports all of fastreid that later shims touch.

    Breaks: `from torch._six import string_classes` and `from collections import Mapping`, on torch
    >= 2.0 and Python >= 3.10. Does: lends both names while fastreid's modules import, then takes
    them away again. Test: test_compat_imports.py::test_fastreid_does_not_import_by_itself. May go:
    when fastreid imports neither.
    """
    require_fastreid()
    with _removed_names(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cython .* evaluation")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        for name in (
            "engine",
            "evaluation.rank",
            "evaluation.roc",
            "utils.compute_dist",
            "solver.optim",
        ):
            _import(f"fastreid.{name}")


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise explain_missing(error) from error


def fastreid_module(name: str) -> Any:
    """The module `fastreid.<name>`, also where an attribute hides it (engine.launch)."""
    return sys.modules[f"fastreid.{name}"]


class _NumpyWithBool:
    bool = bool

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def restore_numpy_bool() -> None:
    """`np.bool` in the CUHK03 evaluation.

    Breaks: AttributeError on numpy 1.24 to 1.26 (numpy 2 has the name again). Does: gives that one
    module a view of numpy with the name. Test: test_compat_evaluation.py. May go: with numpy < 2.
    """
    if "bool" not in vars(np):
        assign(fastreid_module("evaluation.rank"), "np", _NumpyWithBool())


def stand_in_for_bughook() -> None:
    """`import bughook` in tools/train_net.py.

    Breaks: the script of fast-reid's master branch imports a debugger's helper that neither
    fastreid nor its requirements install. Does: an empty module of that name, where there is none.
    Test: test_boot.py. May go: when the line does.
    """
    if "bughook" not in sys.modules and importlib.util.find_spec("bughook") is None:
        sys.modules["bughook"] = types.ModuleType("bughook", "Stand-in by fastreid_cc: empty.")


def describe_environment_or_carry_on() -> None:
    """`default_setup` logs the environment; a failure there must not stop training.

    Breaks: `torch.utils.cpp_extension` imports setuptools, which a Python >= 3.12 environment may
    lack. Does: logs why the description is missing. Test: test_compat_imports.py. May go: when
    fastreid guards the call.
    """
    module = fastreid_module("utils.collect_env")
    stock = module.collect_env_info

    def collect_env_info() -> str:
        try:
            return stock()
        except Exception as error:
            logging.getLogger("fastreid.cc.compat").debug("environment", exc_info=True)
            return f"not available ({type(error).__name__}: {error})"

    replace(module, "collect_env_info", collect_env_info)
