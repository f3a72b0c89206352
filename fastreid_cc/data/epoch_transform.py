"""Transforms of training images that know the epoch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class EpochTransform(Protocol):
    """A transform of training images that changes over the epochs.

    Every epoch's loader is given what `at_epoch` returns, before its workers start, so nothing has
    to reach a worker that runs. A transform is otherwise as any other: an image in, an image out,
    its randomness from the global generators, which are seeded image by image.
    """

    def at_epoch(self, epoch: int, num_epochs: int) -> Any:
        """The transform of `epoch`, one of 0..num_epochs-1; this one stays as it is."""


def knows_epoch(transform: Any) -> bool:
    """Whether a step of `transform.transforms` (torchvision's Compose) is an `EpochTransform`."""
    return any(isinstance(step, EpochTransform) for step in transform.transforms)


def transform_at(transform: Any, epoch: int, num_epochs: int) -> Any:
    """The transforms of an epoch: each step that knows the epoch is asked for that of its turn.

    Args:
        transform: torchvision's Compose, which stays as it is.
        epoch: one of 0..num_epochs-1.
        num_epochs: SOLVER.MAX_EPOCH.
    Returns:
        `transform` itself if no step knows the epoch.
    """
    if not knows_epoch(transform):
        return transform
    return type(transform)(
        [
            step.at_epoch(epoch, num_epochs) if isinstance(step, EpochTransform) else step
            for step in transform.transforms
        ]
    )
