"""The hook that logs, once an epoch, the figures that losses and memories tell of themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from fastreid.engine.train_loop import HookBase

from ...losses.base import Loss
from ...memories.base import Memory
from ...parallel.collectives import gather_objects
from ...structures import Figures
from .pseudo_label_hook import PseudoLabelHook


class FiguresHook(HookBase):
    """Scalars "cc/<loss>_<name>" and "cc/memory_<name>": means over the epoch, of all processes.

    Args:
        hook: of the pseudo-labels, whose memory and network are asked.
    """

    def __init__(self, hook: PseudoLabelHook) -> None:
        self._hook = hook

    def after_epoch(self) -> None:
        """Reads what was added up; the only wait for the device."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for found in gather_objects([*self._told()]):
            for name, total, count in found:
                sums[name][0] += total
                sums[name][1] += count
        means: Any = {f"cc/{name}": total / count for name, (total, count) in sums.items() if count}
        if means:
            self.trainer.storage.put_scalars(**means, smoothing_hint=False)

    def _told(self) -> Iterator[tuple[str, float, float]]:
        """(name, sum, count) of this process."""
        for prefix, figures in self._figures():
            for name, (total, count) in figures.take().items():
                yield f"{prefix}_{name}", total, count

    def _figures(self) -> Iterator[tuple[str, Figures]]:
        for part in self._hook.network.modules():
            if isinstance(part, Loss):
                yield part.log_name, part.figures
        for part in self._hook.memory.modules() if self._hook.memory is not None else ():
            if isinstance(part, Memory):
                yield "memory", part.figures
