"""Progress bars of the stages of a labelling."""

from __future__ import annotations

import sys
from typing import Any

from ..parallel.collectives import rank


class StageBars:
    """One tqdm bar per stage, on a terminal and on rank 0; otherwise nothing."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted and sys.stderr.isatty() and rank() == 0
        self.bars: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage."""
        if not self.wanted or total < 2:
            return
        if stage not in self.bars:
            from tqdm import tqdm

            self.bars[stage] = tqdm(total=total, desc=stage, leave=False, file=sys.stderr)
        bar = self.bars[stage]
        if done < bar.n or total != bar.total:
            bar.reset(total)
        bar.update(done - bar.n)

    def __enter__(self) -> StageBars:
        return self

    def __exit__(self, *error: object) -> None:
        for bar in self.bars.values():
            bar.close()
