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

from fastreid_cc.requirements import explain_missing


def import_fastreid() -> None:
    """Imports what the shims patch.

    Breaks: `from torch._six import string_classes` and `from collections import Mapping`, on torch
    >= 2.0 and Python >= 3.10; `import faiss`, which only re-ranking uses. Does: lends the names
    while fastreid's modules import, then takes them away again. Test:
    test_compat_imports.py::test_fastreid_does_not_import_by_itself, ..._without_faiss. May go: when
    fastreid imports none of them.

    Raises:
        MissingPackage: if fastreid, or something it needs, is not installed.
    """
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
    """`collections.Mapping`, `torch._six` and, without faiss, a stand-in, while the block runs."""
    with contextlib.ExitStack() as undo:
        if not hasattr(collections, "Mapping"):
            vars(collections)["Mapping"] = collections.abc.Mapping
            undo.callback(delattr, collections, "Mapping")
        if importlib.util.find_spec("torch._six") is None:
            sys.modules["torch._six"] = types.ModuleType("torch._six")
            vars(sys.modules["torch._six"])["string_classes"] = (str, bytes)
            undo.callback(sys.modules.pop, "torch._six", None)
        if importlib.util.find_spec("faiss") is None:  # re-ranking alone needs it, and has ours
            sys.modules["faiss"] = types.ModuleType("faiss")
            vars(sys.modules["faiss"])["METRIC_L2"] = 1  # a default in a signature
            undo.callback(sys.modules.pop, "faiss", None)
        yield
