"""The hook that keeps several processes in step; without them there is none."""

from __future__ import annotations

from fastreid.engine.train_loop import HookBase

from ...parallel.consistency import refuse_if_apart, share_buffers
from .pseudo_label_hook import PseudoLabelHook


class ConsistencyHook(HookBase):
    """After an epoch, before evaluation and checkpoint: equal batch norm, equal memories.

    Evaluation so gives the results of the checkpoint, which is the first process's, and a resumed
    run goes on like one that was never stopped.

    Args:
        hook: the PseudoLabelHook whose memory and targets are compared.
    """

    def __init__(self, hook: PseudoLabelHook) -> None:
        self.hook = hook

    def after_epoch(self) -> None:
        """Makes buffers equal; compares the memory.

        Raises:
            RuntimeError: on all processes, if their memories differ.
        """
        networks = [self.trainer.model]
        if self.hook.teacher is not None:
            networks.append(self.hook.teacher.model)
        for network in networks:
            share_buffers(network)
        memory = None if self.hook.memory is None else self.hook.memory.get_state()
        state = {"targets": self.hook.targets, "memory": memory}
        refuse_if_apart(f"epoch {self.trainer.epoch}: the memory", state)
