"""Runs an unmodified fastreid script with the plug-in, here and in the processes it spawns.

`run` executes the script as `__main__` with a `__spec__` that names this module. Processes that
`multiprocessing` spawns import the module named there before they unpickle anything: so this module
runs in them too, activates the plug-in, imports the out-of-tree parts and then executes the script
as `__mp_main__`, which defines `main` without calling it. What children need to know travels in
environment variables.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from fastreid_cc.errors import MissingPackage
from fastreid_cc.parallel.launch_env import IMPORTS, SCRIPT
from fastreid_cc.requirements import explain_missing, missing_fastreid


def run(script: str, arguments: Sequence[str], imports: Sequence[str] = ()) -> None:
    """Does what `python script arguments...` does, with the plug-in active.

    Args:
        script: path of a Python file that uses fastreid.
        arguments: what the script finds in `sys.argv[1:]`.
        imports: modules with out-of-tree parts, imported after the plug-in and before the script.

    Raises:
        FileNotFoundError: if there is no such script.
        MissingPackage: if fastreid, what it needs, or a module of `imports` is not installed.

    Changes `sys.argv`, `sys.path`, `sys.modules["__main__"]` and two environment variables. What
    the script raises, SystemExit included, comes through.
    """
    path = Path(script).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such script: {script}")
    sys.argv = [script, *arguments]
    _set_path(path)
    os.environ[SCRIPT] = str(path)
    os.environ[IMPORTS] = ",".join(imports)
    activate()
    main = types.ModuleType("__main__")
    spec = importlib.util.find_spec("fastreid_cc.boot")
    main.__dict__.update(__file__=str(path), __spec__=spec, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    _execute(path, main.__dict__)


def activate() -> None:
    """Imports the plug-in, then the out-of-tree parts named in the environment."""
    if sys.modules.get("fastreid") is None and importlib.util.find_spec("fastreid") is None:
        raise missing_fastreid()  # before torch is imported, which takes seconds
    try:
        importlib.import_module("fastreid_cc.plugin")
    except ModuleNotFoundError as error:
        raise explain_missing(error) from error
    import_parts([name for name in os.environ.get(IMPORTS, "").split(",") if name])


def import_parts(names: Sequence[str]) -> None:
    """Imports out-of-tree modules by name, looking in the working directory last.

    Raises:
        MissingPackage: naming the module and the folders searched, if it is not found.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.split(".")[0] and error.name != name:
                raise
            raise MissingPackage(
                f"--import {name}: no such module. Put its folder on PYTHONPATH, or run from there "
                f"(searched: {', '.join(sys.path)})."
            ) from error


def _set_path(script: Path) -> None:
    """`sys.path` as the script alone would have it; then the folders that were found so far."""
    before = sys.path[0] if sys.path else ""
    ours = str(Path(__file__).resolve().parent.parent)
    sys.path[:1] = [str(script.parent)]
    clone = script.parent.parent
    candidates = [os.path.abspath(before), os.getcwd(), ours]
    if (clone / "fastreid" / "__init__.py").is_file():
        candidates.append(str(clone))
    known = {os.path.abspath(entry) for entry in sys.path}
    for folder in dict.fromkeys(candidates):
        if folder not in known:
            sys.path.append(folder)


def _execute(path: Path, namespace: dict[str, object]) -> None:
    exec(compile(path.read_bytes(), str(path), "exec"), namespace)


if __name__ == "__mp_main__":  # a spawned process imports its parent's main module by this name
    activate()
    _execute(Path(os.environ[SCRIPT]), globals())
