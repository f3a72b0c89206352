"""Arrows between modules point inward: families <- assembly <- plug-in. Read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastreid_cc"
FAMILIES = {"neighbors", "distances", "clusterers", "refiners", "memories", "losses", "data"}
ASSEMBLY = {"labeling", "config", "report"}
ENTRIES = {"__main__", "boot"}
OPTIONAL = {"faiss", "infomap"}


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
            name = node.func.attr if isinstance(node.func, ast.Attribute) else (
                node.func.id if isinstance(node.func, ast.Name) else "")  # fmt: skip
            literal = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(literal, ast.Constant):
                found.add(str(literal.value))
    return found


def ring(module: str) -> str:
    """The part of the package a module belongs to: a family, "plugin", "labeling", ..."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def violations(module: str, names: set[str]) -> list[str]:
    """What the rules say against a module with these imports."""
    found, own = [], ring(module)
    inside = {name for name in names if name.split(".")[0] == "fastreid_cc"}
    used = {ring(name) for name in inside}
    if own != "plugin" and own not in ENTRIES:
        for top in ("fastreid", "yacs"):
            if any(name.split(".")[0] == top for name in names):
                found.append(f"{module} imports {top}; only fastreid_cc.plugin may")
        if "plugin" in used and own != "commands":  # they do so when they run, not when imported
            found.append(f"{module} imports fastreid_cc.plugin; only entries and users may")
    if own in FAMILIES:
        for other in sorted(used & (FAMILIES | ASSEMBLY | {"collapse"}) - {own}):
            found.append(f"{module} imports fastreid_cc.{other}; a family knows no other")
    elif own not in ASSEMBLY | ENTRIES | {"plugin", "commands"}:
        for other in sorted(used & (FAMILIES | ASSEMBLY)):
            found.append(f"{module} imports fastreid_cc.{other}; it lies below the families")
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_imports_outward() -> None:
    found = []
    for path in sources():
        module = module_name(path)
        names = imported(path.read_text(), module, is_package=path.name == "__init__.py")
        found += violations(module, names)
    assert found == []
    assert len(sources()) > 40  # the walk saw the package


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("fastreid_cc.memories.x", "from fastreid.layers import pooling", "imports fastreid;"),
        ("fastreid_cc.labeling", "def f():\n    import yacs.config", "imports yacs;"),
        ("fastreid_cc.memories.x", "from ..losses.base import Loss", "imports fastreid_cc.losses"),
        ("fastreid_cc.memories.x", "from .. import losses", "imports fastreid_cc.losses"),
        ("fastreid_cc.losses.x", "from ..labeling import y", "imports fastreid_cc.labeling"),
        ("fastreid_cc.config", "from .plugin import engine", "imports fastreid_cc.plugin"),
        ("fastreid_cc.config", "import_module('fastreid_cc.plugin')", "imports fastreid_cc.plugin"),
        ("fastreid_cc.commands.x", "import fastreid.config", "imports fastreid;"),
        ("fastreid_cc.registry", "from . import memories", "lies below"),
        ("fastreid_cc.commands.x", "def f():\n    from ..plugin import engine", ""),
        ("fastreid_cc.memories.x", "from ..registry import MEMORIES", ""),
        ("fastreid_cc.config", "from . import memories, losses", ""),
        ("fastreid_cc.plugin.hooks", "import fastreid\nfrom ..config import validate", ""),
    ],
)
def test_the_rules_notice(module: str, source: str, expected: str) -> None:
    found = violations(module, imported(source, module))
    assert [expected in line for line in found] == ([True] if expected else [])


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
    modules = [name for name in modules if ring(name) not in ENTRIES | {"plugin"}]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "print(sorted({'fastreid', 'yacs', 'faiss', 'infomap'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
