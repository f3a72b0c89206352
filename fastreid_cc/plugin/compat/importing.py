"""Importing fastreid on a Python and torch that dropped names it asks for."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator

from fastreid_cc.requirements import explain_missing, missing_fastreid


def require_fastreid() -> None:
    """Raises MissingPackage, with the command to type, if fastreid cannot be found."""
    if sys.modules.get("fastreid") is None and importlib.util.find_spec("fastreid") is None:
        raise missing_fastreid()


def import_fastreid() -> None:
    """Imports what the shims patch.

    Breaks: `from torch._six import string_classes` and `from collections import Mapping`, on torch
    >= 2.0 and Python >= 3.10. Does: lends both names while fastreid's modules import, then takes
    them away again. Test: test_compat_imports.py::test_fastreid_does_not_import_by_itself. May go:
    when fastreid imports neither.

    Raises:
        MissingPackage: if fastreid, or something it needs, is not installed.
    """
    require_fastreid()
    with _removed_names(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cython .* evaluation")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            for name in ("engine", "evaluation.rank", "evaluation.roc", "utils.compute_dist"):
                importlib.import_module(f"fastreid.{name}")
        except ModuleNotFoundError as error:
            raise explain_missing(error) from error


@contextlib.contextmanager
def _removed_names() -> Iterator[None]:
    """`collections.Mapping` and `torch._six`, for as long as the block runs."""
    added = [n for n in ("Mapping", "Sequence", "Iterable") if not hasattr(collections, n)]
    for name in added:
        setattr(collections, name, getattr(collections.abc, name))
    lent = importlib.util.find_spec("torch._six") is None
    if lent:
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
        if lent:
            sys.modules.pop("torch._six", None)
