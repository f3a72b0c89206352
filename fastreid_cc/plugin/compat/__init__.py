"""Run-time patches ("shims") of unmodified fastreid 1.4.0. No file of fastreid is edited.

`required/` holds those without which it does not import, train or evaluate on today's Python and
torch, or on a machine without CUDA; `repairs/` mends its other bugs. Files are by subject; a shim
is a public function in them without parameters. Its docstring says what breaks, for which
versions, what the shim does, which test shows it and when it may go. The environment variable
FASTREID_CC_WITHOUT_REPAIRS switches repairs off: "name,name" or "all" (docs/compatibility.md lists
them).
"""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

from fastreid_cc.errors import WrongUse
from fastreid_cc.parallel.launch_env import WITHOUT_REPAIRS

from . import patching
from .importing import import_fastreid

import_fastreid()  # the modules below subclass what is in it

from .repairs import REPAIRS
from .required import REQUIRED
from .required.loader_without_cuda import close_loader, swap_loader

__all__ = ["REPAIRS", "REQUIRED", "apply_shims", "close_loader", "disabled", "swap_loader"]

_applied: list[Callable[[], None]] = []


def apply_shims() -> None:
    """Applies what is required and every repair that is not switched off, once.

    Raises:
        WrongUse: if FASTREID_CC_WITHOUT_REPAIRS names a repair that there is not.
    """
    if _applied:
        return
    off = repairs_off()
    _applied.extend(shim for shim in (*REQUIRED, *REPAIRS) if shim.__name__ not in off)
    for shim in _applied:
        shim()
    if off:
        logging.getLogger("fastreid.cc.compat").warning(
            f"Repairs of fastreid that {WITHOUT_REPAIRS} switches off: {', '.join(sorted(off))}."
        )


def repairs_off() -> set[str]:
    """The repairs that FASTREID_CC_WITHOUT_REPAIRS names; "all" stands for every one.

    Raises:
        WrongUse: listing the repairs, if there is none of a name.
    """
    known = {shim.__name__ for shim in REPAIRS}
    asked = {name.strip() for name in os.environ.get(WITHOUT_REPAIRS, "").split(",")} - {""}
    if unknown := sorted(asked - known - {"all"}):
        raise WrongUse(
            f"{WITHOUT_REPAIRS}: no repair is called {', '.join(unknown)}. There are"
            f" {', '.join(sorted(known))}, and all."
        )
    return known if "all" in asked else asked


@contextlib.contextmanager
def disabled(*names: str) -> Iterator[None]:
    """For tests: stock behaviour in place of the shims called `names`, as long as the block runs.

    Raises:
        ValueError: if there is no such shim.
    """
    if unknown := set(names) - {shim.__name__ for shim in (*REQUIRED, *REPAIRS)}:
        raise ValueError(f"no shim called {sorted(unknown)}")
    with patching.without(names, _applied):
        yield
