"""Data loaders of label-free training: extraction in data-set order, and pseudo-labelled batches.

Every image is augmented under random states of its own, fixed by seed, epoch and place in the
epoch, so the number of workers changes nothing and the global generators stay untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastreid.data.build import fast_batch_collator
from fastreid.data.data_utils import DataLoaderX, read_image
from fastreid.utils import comm
from torch.utils.data import Dataset

from ...parallel.trainings import cores
from ..seeding import random_state


class ContrastDataset(Dataset):
    """Images with labels; keys are (row, place in the epoch), or (row, place, role in a triplet).

    Args:
        paths: N image paths, row i everywhere.
        cameras: i64 [N].
        targets: i64 [N], row of the label space, -1 = not trained on.
        transform: fastreid's training or test transform.
        entropy: seed and epoch.
        domains: i64 [N], 0 = target, 1.. = sources; None = no sources, no such entry in batches.
        first_source: row of the first source image; rows of sources are counted from there.
        style: (image, path, camera) -> image, of the target's images; None = as they are.
        two_views: also give "images_2", another augmentation of the same image.
        views: images come so many times in a row; "views" says which time it is. 0 = no entry.
    """

    def __init__(
        self,
        paths: Sequence[str],
        cameras: np.ndarray,
        targets: np.ndarray,
        transform: Any,
        entropy: tuple[int, ...],
        *,
        domains: np.ndarray | None = None,
        first_source: int = 0,
        style: Any = None,
        two_views: bool = False,
        views: int = 0,
    ) -> None:
        self.paths, self.cameras, self.targets = paths, cameras, targets
        self.transform, self.entropy = transform, entropy
        self.domains, self.first_source = domains, first_source
        self.style, self.two_views, self.views = style, two_views, views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, ...]) -> dict[str, Any]:
        row, place, *role = key
        try:
            image = read_image(self.paths[row])
        except OSError as error:
            raise RuntimeError(
                f"Cannot read image {self.paths[row]} any more: {error}. Put it back and run again"
                " with --resume, or remove it and start anew."
            ) from error
        item = {
            "images": self._view(image, row, place),
            "targets": int(self.targets[row]),
            "camids": int(self.cameras[row]),
            "img_paths": self.paths[row],
            "indices": int(row),
        }
        if self.domains is not None:
            item["domains"] = int(self.domains[row])
            item["indices"] -= self.first_source if item["domains"] else 0
        if role:
            item["roles"] = role[0]
        if self.views:
            item["views"] = place % self.views
        if self.two_views:
            item["images_2"] = self._view(image, row, place, 1)
        return item

    def _view(self, image: Any, row: int, *words: int) -> Any:
        """The image, augmented by random states of its own."""
        is_target = self.domains is None or self.domains[row] == 0
        with random_state(*self.entropy, *words):
            if self.style is not None and is_target:
                image = self.style(image, self.paths[row], int(self.cameras[row]))
            return self.transform(image)


def build_loader(
    dataset: ContrastDataset,
    batches: Sequence[np.ndarray],
    num_workers: int,
    places: Sequence[np.ndarray] | None = None,
    roles: Sequence[np.ndarray] | None = None,
) -> Any:
    """A fastreid loader over stated batches.

    Args:
        dataset: what to read.
        batches: this process's batches, each i64 [b], dataset rows in order.
        num_workers: loader processes, at most one for each core; 0 reads in this one.
        places: i64 [b] each, the images' places in the epoch, which their augmentation depends on;
            None = their rows.
        roles: i64 [b] each, see `Batch.roles`; None = batches have no such entry.
    """
    columns = [batches, places or batches, *([] if roles is None else [roles])]
    keys = [
        list(zip(*(column.tolist() for column in of_batch), strict=True))
        for of_batch in zip(*columns, strict=True)
    ]
    generator = torch.Generator()
    generator.manual_seed(0)  # workers take their base seed from it, not from the global one
    return DataLoaderX(
        comm.get_local_rank(),
        dataset=dataset,
        batch_sampler=keys,
        num_workers=min(num_workers, len(keys), cores()),  # torch warns of more
        collate_fn=fast_batch_collator,
        pin_memory=torch.cuda.is_available(),
        generator=generator,
    )
