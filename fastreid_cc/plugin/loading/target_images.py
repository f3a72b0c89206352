"""The images of the target, in the place of the stock training loader until labels exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...data.sources import SourceImages


class _Extent(Dataset):
    """As long as an epoch. fastreid reads its length and the number of classes, of sources only."""

    def __init__(self, length: int, num_classes: int) -> None:
        self.length, self.num_classes = length, num_classes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        raise IndexError(
            "No pseudo-labels yet: the hook swaps the loader in before the first epoch."
        )


class TargetImages:
    """Stands where the stock training loader would, until pseudo-labels exist.

    Args:
        items: (path, camera) of every image, in data-set order.
        truth: i64 [N] identities for the log, or None; nothing else reads them.
        epoch_images: images trained on per epoch, over all processes, without those of sources.
        sources: the labelled images that train along, or None.
    """

    def __init__(
        self,
        items: list[tuple[str, int]],
        truth: np.ndarray | None,
        epoch_images: int,
        sources: SourceImages | None = None,
    ) -> None:
        self.paths = [path for path, _ in items]
        self.cameras = np.array([camera for _, camera in items], dtype=np.int64)
        self.truth = truth
        self.sources = sources
        self.style: Any = None  # camera styles of the images, see `styles.camera_style`
        self.dataset = _Extent(epoch_images, 0 if sources is None else sources.num_classes)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0
