"""What the network, the hooks and the losses tell each other while a training runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ...memories.base import Memory
from ...memories.pair import PairMemory
from ...structures import Batch, Positives


class Teacher(Protocol):
    """A network in evaluation mode that soft losses learn from."""

    def features_of(self, inputs: dict[str, Any]) -> list[Tensor]:
        """[features], [B, D], of a batch; of both networks where there are two."""


@dataclass
class StepContext:
    """The one object through which a step's participants talk; a network holds it as `step`.

    | attribute | written by | when |
    |---|---|---|
    | memory, is_warm_up, sources_only | the pseudo-label hook, `start_stage` | a stage begins |
    | loss_stage | the loss-stage hook | before an epoch, with CC.LOSS_STAGES |
    | teacher | the teacher hook | before training |
    | last_batch, positives | the network | in every training forward |

    The network reads all but the last line in its forward; after the step the pseudo-label hook
    takes `last_batch`, the log `positives`. Nothing else is set on a network from outside. It is no
    part of the network's state, and its copy (the mean teacher) starts with an empty one.

    Attributes:
        memory: what the losses compare with, a `PairMemory` for two networks; None with true
            labels, and, unless a loss learns from sources, while source labels are learnt alone.
        is_warm_up: whether the losses of CC.WARMUP.LOSSES work, not those of MODEL.LOSSES.NAME.
        loss_stage: of MODEL.LOSSES.NAME, fastreid's own too, the losses at work; None = all.
        sources_only: whether source labels are learnt alone: no batch holds images of the target,
            and of the losses only those that learn from sources work.
        teacher: the mean teacher; None = there is none.
        teacher_memory: the memory of the teacher's logits; None = `memory`.
        last_batch: images of the last training step with detached features, for the memory's
            update; None where there is no memory.
        positives: part of the batch -> what a loss took for positives there; for the log.
    """

    memory: Memory | None = None
    is_warm_up: bool = False
    sources_only: bool = False
    loss_stage: frozenset[str] | None = None
    teacher: Teacher | None = None
    teacher_memory: Memory | None = None
    last_batch: Batch | None = None
    positives: dict[str, Positives] = field(default_factory=dict)

    def start_stage(
        self, memory: Memory | None, *, is_warm_up: bool = False, sources_only: bool = False
    ) -> None:
        """Sets what the steps from here on use; see the attributes."""
        self.memory, self.is_warm_up, self.sources_only = memory, is_warm_up, sources_only
        self.last_batch, self.positives = None, {}

    @property
    def trains_target(self) -> bool:
        """Whether images of the target are trained on, against a memory."""
        return self.memory is not None and not self.sources_only

    def take_last_batch(self) -> Batch | None:
        """The last batch, once; None after that until the next step."""
        batch, self.last_batch = self.last_batch, None
        return batch

    def take_positives(self) -> dict[str, Positives]:
        """The last step's, once; {} after that until the next step."""
        positives, self.positives = self.positives, {}
        return positives

    def split(self) -> tuple[StepContext, StepContext]:
        """Contexts of two networks side by side: each has its half of the memory.

        They hold no teacher: its features come with each network's batch. The teacher of a network
        is that of the other one, so its logits are those of the other's half.
        """
        first, second = self.memory.both if isinstance(self.memory, PairMemory) else (None, None)
        shared = self.is_warm_up, self.sources_only, self.loss_stage
        return (
            StepContext(first, *shared, teacher_memory=second),
            StepContext(second, *shared, teacher_memory=first),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> StepContext:
        return StepContext()
