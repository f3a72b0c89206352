"""Imports point from outer rings to inner ones, and no two rooms of a ring meet; by the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastreid_cc"
#: Rings from the inside out: a room imports itself and the rooms of lower rings, nothing else.
RINGS = (
    {"limits", "structures", "errors", "files", "__version__"},
    {"registry"},
    {"requirements", "parallel", "networks", "data"},
    {"labels", "gallery"},
    {"labeling", "memories", "losses", "generators"},
    {"config", "report"},
    {"plugin"},
    {"boot"},
    {"commands"},
    {"__main__"},
)
RING_OF = {room: number for number, rooms in enumerate(RINGS) for room in rooms}
FAMILIES = ("neighbors", "distances", "clusterers", "refiners")  # of labeling: none knows another
WITH_FASTREID = {"plugin", "boot", "__main__"}
OPTIONAL = {"faiss", "infomap", "timm", "qdrant_edge", "qdrant_client"}


def module_name(path: Path) -> str:
    """fastreid_cc/memories/base.py -> fastreid_cc.memories.base; a package is its own name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Full names that a source imports anywhere in it, `import_module` of a literal included.

    `from a import b` gives a and a.b, since b may be a module.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call):
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else (node.func.id if isinstance(node.func, ast.Name) else "")
            )
            literal = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(literal, ast.Constant):
                found.add(str(literal.value))
    return found


def at_import(source: str, module: str, is_package: bool = False) -> set[str]:
    """What a source imports when it is imported itself: its statements outside functions."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    return imported(ast.unparse(tree), module, is_package=is_package)


def room(module: str) -> str:
    """The folder or file below fastreid_cc that a module belongs to; "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def family(module: str) -> str:
    """The family of labeling that a module belongs to, "" for none."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in FAMILIES else ""


def violations(module: str, names: set[str], lazy: set[str] = frozenset()) -> list[str]:
    """What the rules say against a module with these imports; `lazy` ones run inside functions."""
    found, own = [], room(module)
    if own not in WITH_FASTREID:
        for top in ("fastreid", "yacs"):
            if any(name.split(".")[0] == top for name in names):
                found.append(f"{module} imports {top}; only fastreid_cc.plugin may")
    inside = {name for name in names if name.split(".")[0] == "fastreid_cc"}
    for other in sorted({room(name) for name in inside} - {own, ""}):
        if other not in RING_OF:
            continue  # a name of the package's own __init__
        if RING_OF.get(own, 0) <= RING_OF[other]:
            found.append(f"{module} imports fastreid_cc.{other}, which is no lower ring")
    if own == "commands" and "plugin" in {room(name) for name in inside - lazy}:
        found.append(f"{module} imports fastreid_cc.plugin before it runs")
    for name in sorted(inside):
        if room(name) == own == "labeling" and family(module) and family(name):
            if family(name) != family(module):
                found.append(f"{module} imports {name}; a family knows no other")
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_imports_outward() -> None:
    found = []
    for path in sources():
        module = module_name(path)
        source, is_package = path.read_text(), path.name == "__init__.py"
        names = imported(source, module, is_package=is_package)
        found += violations(module, names, names - at_import(source, module, is_package))
    assert found == []
    assert len(sources()) > 40  # the walk saw the package


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("memories.x", "from fastreid.layers import pooling", "imports fastreid;"),
        ("labeling.x", "def f():\n    import yacs.config", "imports yacs;"),
        ("memories.x", "from ..losses.base import Loss", "imports fastreid_cc.losses"),
        ("memories.x", "from .. import losses", "imports fastreid_cc.losses"),
        ("losses.x", "from ..labeling import y", "imports fastreid_cc.labeling"),
        ("labels.x", "from ..memories import y", "imports fastreid_cc.memories"),
        ("parallel.x", "from ..labels import y", "imports fastreid_cc.labels"),
        ("labeling.distances.x", "from ..neighbors.exact import y", "knows no other"),
        ("config.x", "from ..plugin import trainer", "imports fastreid_cc.plugin"),
        ("config.x", "import_module('fastreid_cc.plugin')", "imports fastreid_cc.plugin"),
        ("commands.x", "import fastreid.config", "imports fastreid;"),
        ("commands.x", "from ..plugin import trainer", "before it runs"),
        ("registry", "from . import memories", "imports fastreid_cc.memories"),
        ("commands.x", "def f():\n    from ..plugin import trainer", ""),
        ("memories.x", "from ..registry import MEMORIES", ""),
        ("labeling.distances.x", "from ..kernels import jit", ""),
        ("config.x", "from .. import memories, losses", ""),
        ("plugin.trainer.x", "import fastreid\nfrom ...config import validate", ""),
    ],
)
def test_the_rules_notice(module: str, source: str, expected: str) -> None:
    module = f"fastreid_cc.{module}"
    names = imported(source, module)
    found = violations(module, names, names - at_import(source, module))
    assert bool(found) == bool(expected)
    assert all(expected in line for line in found)


def test_every_room_has_a_ring_and_there_are_few() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__", "configs"} == set(RING_OF) - {"__version__"}
    assert len(entries) <= 22


def test_optional_packages_are_imported_where_they_are_used() -> None:
    """faiss and infomap may be missing, so no module of the core needs them to be imported."""
    for path in sources():
        if "plugin" in path.parts:
            continue
        for node in ast.parse(path.read_text()).body:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not OPTIONAL & {name.split(".")[0] for name in names}, path


def test_importing_the_core_imports_neither_fastreid_nor_yacs() -> None:
    """At run time too: everything but the plug-in and the entries, in a fresh process."""
    modules = [module_name(path) for path in sources()]
    modules = [name for name in modules if room(name) not in WITH_FASTREID]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "print(sorted({'fastreid', 'yacs', 'faiss', 'infomap'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
