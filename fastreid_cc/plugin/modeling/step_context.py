"""What the network, the hooks and the losses tell each other while a training runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ...losses.base import Loss
from ...memories.base import Memory
from ...memories.pair import PairMemory
from ...structures import Batch


class Teacher(Protocol):
    """A network in evaluation mode that soft losses learn from."""

    def features_of(self, inputs: dict[str, Any]) -> list[Tensor]:
        """[features], [B, D], of a batch; of both networks where there are two."""


@dataclass
class StepContext:
    """The one object through which a step's participants talk; a network holds it as `step`.

    | attribute | written by | when |
    |---|---|---|
    | memory, losses | the pseudo-label hook, `start_stage` | a stage or a labelling begins |
    | teacher | the teacher hook | before training |
    | last_batch | the network | in every training forward |

    The network reads the first three in its forward, the pseudo-label hook takes `last_batch` after
    the step. Nothing else is set on a network from outside. A context is no part of the network's
    state, and the copy of a network (its mean teacher) starts with an empty one.

    Attributes:
        memory: what the losses compare with, a `PairMemory` for two networks; None while source
            labels are learnt alone, and with true labels.
        losses: the losses of the stage by name; None = those of the config.
        teacher: the mean teacher; None = there is none.
        teacher_memory: the memory of the teacher's logits; None = `memory`.
        last_batch: images of the last training step with detached features, for the memory's
            update; None where there is no memory.
    """

    memory: Memory | None = None
    losses: Mapping[str, Loss] | None = None
    teacher: Teacher | None = None
    teacher_memory: Memory | None = None
    last_batch: Batch | None = None

    def start_stage(self, memory: Memory | None, losses: Mapping[str, Loss] | None = None) -> None:
        """Sets what the steps from here on use; see the attributes."""
        self.memory, self.losses, self.last_batch = memory, losses, None

    def take_last_batch(self) -> Batch | None:
        """The last batch, once; None after that until the next step."""
        batch, self.last_batch = self.last_batch, None
        return batch

    def split(self) -> tuple[StepContext, StepContext]:
        """Contexts of two networks side by side: each has its half of the memory.

        They hold no teacher: its features come with each network's batch. The teacher of a network
        is that of the other one, so its logits are those of the other's half.
        """
        first, second = self.memory.both if isinstance(self.memory, PairMemory) else (None, None)
        return (
            StepContext(first, self.losses, teacher_memory=second),
            StepContext(second, self.losses, teacher_memory=first),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> StepContext:
        return StepContext()
