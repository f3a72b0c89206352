"""Replacing names in modules that are not ours, so that it can be undone.

A shim calls `assign` or, by way of `wrap` or by itself, `replace`; each call is recorded, so
`disabled` can take one shim away for the length of a test and put everything back. `replace` also
follows copies: a module that did `from x import y` before the plug-in came holds the old object.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

_MISSING = object()
_undo: list[tuple[Any, str, Any]] = []


def assign(owner: Any, name: str, value: Any) -> None:
    """Sets `owner.name` (a module global or a class attribute) and remembers what was there."""
    _undo.append((owner, name, vars(owner).get(name, _MISSING)))
    setattr(owner, name, value)


def replace(owner: Any, name: str, value: Any) -> None:
    """`assign` in `owner` and in every imported module that copied the same object by that name."""
    old = vars(owner)[name]
    assign(owner, name, value)
    for module in list(sys.modules.values()):
        namespace = getattr(module, "__dict__", None)
        if namespace is not None and module is not owner and namespace.get(name) is old:
            assign(module, name, value)


def wrap(owner: Any, name: str, advice: Callable[..., Any]) -> None:
    """`replace` by a function that calls `advice`, the stock function as its first argument."""
    stock = getattr(owner, name)

    @functools.wraps(stock)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return advice(stock, *args, **kwargs)

    is_static = isinstance(vars(owner)[name], staticmethod)
    replace(owner, name, staticmethod(wrapped) if is_static else wrapped)


def around(owner: Any, *names: str) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Decorator that makes a function the shim which wraps it around `owner`'s functions."""

    def make(advice: Callable[..., Any]) -> Callable[[], None]:
        @functools.wraps(advice)
        def shim() -> None:
            for name in names:
                wrap(owner, name, advice)

        return shim

    return make


def shims_of(package: str, *modules: str) -> tuple[Callable[[], None], ...]:
    """The shims of a package in order: each public function of its modules without parameters."""
    found = (importlib.import_module(f"{package}.{name}") for name in modules)
    return tuple(
        function
        for module in found
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.signature(function, follow_wrapped=False).parameters
    )


def with_values(cfg: Any, *values: Any) -> Any:
    """A copy of a fastreid config with other values: key, value, key, value, ..."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(values))
    return cfg


class View:
    """A module as it is, but for the names given."""

    def __init__(self, module: Any, **names: Any) -> None:
        vars(self).update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _restore(entries: list[tuple[Any, str, Any]]) -> None:
    for owner, name, value in entries:
        if value is not _MISSING:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)


def _snapshot() -> list[tuple[Any, str, Any]]:
    return [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in _undo]


@contextlib.contextmanager
def without(names: tuple[str, ...], shims: list[Callable[[], None]]) -> Iterator[None]:
    """Inside, all `shims` but those called `names` are applied; later all is as before."""
    now, recorded = _snapshot(), list(_undo)
    _restore(_undo[::-1])
    _undo.clear()
    try:
        for shim in shims:
            if shim.__name__ not in names:
                shim()
        yield
    finally:
        _restore(_undo[::-1])
        _undo[:] = recorded
        _restore(now)
