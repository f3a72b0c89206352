"""The hook that keeps the target's batch norm fit to be measured while sources are learnt alone."""

from __future__ import annotations

from fastreid.engine.train_loop import HookBase

from .pseudo_label_hook import PseudoLabelHook


class TargetBranchHook(HookBase):
    """Adapts the target's branch before what is evaluated or saved in the epochs of source labels.

    No step of them moves that branch (CC.SOURCES.BN domain, rectified), so it would be the one the
    network started with; for good, if CC.SOURCES.PRETRAIN_EPOCHS is SOLVER.MAX_EPOCH. The end of
    those epochs adapts it again, from the same weights to the same bytes, so what is trained
    afterwards does not depend on when it was measured. Cost: one extraction of the target.

    Args:
        hook: adapts; this one comes before the hooks that evaluate and save.
    """

    def __init__(self, hook: PseudoLabelHook) -> None:
        self.hook = hook

    def after_epoch(self) -> None:
        """Adapts where TEST.EVAL_PERIOD, SOLVER.CHECKPOINT_PERIOD or the end is due."""
        done, cfg = self.trainer.epoch + 1, self.hook.cfg
        periods = (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD, self.trainer.max_epoch)
        is_due = any(period > 0 and done % period == 0 for period in periods)
        if is_due and self.hook.stages.at(self.trainer.epoch) == "source":
            self.hook.adapt_target()
