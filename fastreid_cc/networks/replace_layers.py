"""Layers of a model replaced by others that hold the same parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def replace_layers(
    model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    """Puts `replacement(layer)` in the place of every layer for which it is not None.

    As torch's `SyncBatchNorm.convert_sync_batchnorm`: the new layers are set on their parents, and
    what is returned is the model, but for a model that is such a layer itself. A layer with several
    places gets one replacement in all of them. What `replacement` returns is not searched further.
    """
    replaced: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in replaced:
            new = replacement(module)
            if new is None:
                for name, child in module._modules.items():  # named_children skips repeated ones
                    if child is not None:
                        module.add_module(name, visit(child))
            replaced[module] = module if new is None else new
        return replaced[module]

    return visit(model)


def rebuild(cls: type[Layer], layer: nn.Module) -> Layer:
    """A `cls` with what a layer holds: the same parameters, buffers, children, hooks, settings.

    No constructor runs and nothing random is drawn. `layer` stays whole, but is not to be used on.
    """
    made = cls.__new__(cls)
    vars(made).update(
        (k, v.copy() if isinstance(v, dict | set) else v) for k, v in vars(layer).items()
    )
    return made


def specialise(layer: nn.Module, behaviour: type[Layer]) -> Layer:
    """`layer`, rebuilt, that behaves as `behaviour` and is still of its own kind (`made.kind`).

    Both classes are batch norms; `super()` in `behaviour` is the layer's own class. So a
    synchronised or chunked layer stays one, and `isinstance` knows it.
    """
    classes: tuple[Any, Any] = behaviour, type(layer)
    return rebuild(_special_class(*classes), layer)


@functools.cache
def _special_class(behaviour: type, kind: type) -> Any:
    name = f"{behaviour.__name__.removesuffix('BatchNorm')}{kind.__name__}"
    return type(name, (behaviour, kind), {"kind": kind, "__doc__": behaviour.__doc__})
