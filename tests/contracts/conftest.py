"""Gives the contract tests their cases: every registered part, or those of `--parts` alone."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from . import parts

BROUGHT: set[tuple[str, str]] = set()  # (family, name) of the parts that --parts brought in


def pytest_configure(config: pytest.Config) -> None:
    modules = [name for name in config.getoption("--parts").split(",") if name]
    if modules:
        BROUGHT.update(bring(modules))


def bring(modules: list[str]) -> set[tuple[str, str]]:
    """Imports the modules, looking in the working directory last; the parts they register."""
    before = registered()
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in modules:
        importlib.import_module(name)
    brought = registered() - before
    if not brought:
        raise pytest.UsageError(f"--parts {','.join(modules)} registers no part")
    return brought


def registered() -> set[tuple[str, str]]:
    return {(family.family, name) for family in parts.REGISTRIES for name in family.names()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case` runs for each part of its module's FAMILIES."""
    if "case" not in metafunc.fixturenames:
        return
    cases = [case for family in metafunc.module.FAMILIES for case in parts.cases(family)]
    if BROUGHT:
        cases = [case for case in cases if (case.registry.family, case.name) in BROUGHT]
    metafunc.parametrize("case", [parameter(case) for case in cases])


def parameter(case: parts.Case) -> object:
    lacks = pytest.mark.skipif(bool(case.missing), reason=f"{case.missing} is not installed")
    return pytest.param(case, id=case.id, marks=lacks)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--parts`, tests of other things than those parts are left out."""
    if not BROUGHT:
        return
    about = [item for item in items if isinstance(case_of(item), parts.Case)]
    config.hook.pytest_deselected(items=[item for item in items if item not in about])
    items[:] = about


def case_of(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("case") if callspec is not None else None
