"""A warm-up of the learning rate whose steps are epochs."""

from __future__ import annotations

from fastreid.solver.lr_scheduler import WarmupLR, _get_warmup_factor_at_epoch

from ...errors import BadConfig


class WarmupByEpoch(WarmupLR):
    """fastreid's warm-up, its rate constant within an epoch: that of the epoch's first step.

    Args:
        stock: the warm-up it takes the place of.
        iters_per_epoch: steps of an epoch.

    Raises:
        BadConfig: if the warm-up would end within an epoch.
    """

    def __init__(self, stock: WarmupLR, iters_per_epoch: int) -> None:
        if stock.warmup_iters % iters_per_epoch:
            raise BadConfig(
                f"SOLVER.WARMUP_ITERS={stock.warmup_iters} must be a multiple of the"
                f" {iters_per_epoch} steps of an epoch with SOLVER.WARMUP_BY_EPOCH."
            )
        self.iters_per_epoch = iters_per_epoch
        super().__init__(
            stock.optimizer, stock.warmup_factor, stock.warmup_iters, stock.warmup_method
        )

    def get_lr(self) -> list[float]:
        """Rates of the groups at step `last_epoch` (it counts steps)."""
        first_step = self.last_epoch - self.last_epoch % self.iters_per_epoch
        factor = _get_warmup_factor_at_epoch(
            self.warmup_method, first_step, self.warmup_iters, self.warmup_factor
        )
        return [rate * factor for rate in self.base_lrs]
