"""What scripts and modules of fastreid import or ask at their start."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import types
from typing import Any

import numpy as np
from fastreid.evaluation import rank
from fastreid.utils import collect_env

from fastreid_cc.parallel.launch_env import WITHOUT_REPAIRS

from ..patching import View, around, assign


def restore_numpy_bool() -> None:
    """Lets the CUHK03 evaluation say `np.bool`.

    Breaks: AttributeError on numpy 1.24 to 1.26 (numpy 2 has the name again). Does: gives that one
    module a view of numpy with the name. Test: test_compat_evaluation.py. May go: with numpy < 2.
    """
    if "bool" not in vars(np):
        assign(rank, "np", View(np, bool=bool))


def stand_in_for_bughook() -> None:
    """Lets tools/train_net.py `import bughook`.

    Breaks: the script of fast-reid's master branch imports a debugger's helper that neither
    fastreid nor its requirements install. Does: an empty module of that name, where there is none.
    Test: test_boot.py. May go: when the line does.
    """
    if "bughook" not in sys.modules and importlib.util.find_spec("bughook") is None:
        sys.modules["bughook"] = types.ModuleType("bughook", "Stand-in by fastreid_cc: empty.")


@around(collect_env, "collect_env_info")
def describe_environment_or_carry_on(stock: Any) -> str:
    """Keeps `default_setup` going where the environment cannot be described.

    Breaks: `torch.utils.cpp_extension` imports setuptools, which a Python >= 3.12 environment may
    lack. Does: logs why the description is missing; below it, which repairs are switched off. Test:
    test_compat_imports.py. May go: when fastreid guards the call.
    """
    try:
        found: str = stock()
    except Exception as error:
        logging.getLogger("fastreid.cc.compat").debug("environment", exc_info=True)
        found = f"not available ({type(error).__name__}: {error})"
    off = os.environ.get(WITHOUT_REPAIRS)
    return f"{found}\n{WITHOUT_REPAIRS}={off}" if off else found
