"""The hook that logs how many positives a loss took, and where identities are known, how good."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from fastreid.engine.train_loop import HookBase
from torch import Tensor

from ...parallel.collectives import gather_rows, unwrapped
from ...structures import Positives
from ..loading.target_images import TargetImages

logger = logging.getLogger("fastreid.cc.hooks")
PREFIX = {"target": "cc/positives", "source": "cc/source_positives"}


class PositivesHook(HookBase):
    """Sums the positives of an epoch on their device, and reads the sums once, at its end.

    Scalars, of the target as "cc/positives_...", of sources as "cc/source_positives_...":
    per_image, how many; fallback, share of images that took nearest rows for want of better ones;
    where identities are known, precision, share of the right ones among them, and recall, among all
    other images of the identity. True identities of the target reach nothing but these figures.

    Args:
        images: of the run, with the identities for the log.
    """

    def __init__(self, images: TargetImages) -> None:
        known = {"target": images.truth}
        if images.sources is not None:
            known["source"] = images.sources.classes
        self._truth = {part: Truth(ids) for part, ids in known.items() if ids is not None}
        self._sums: dict[str, Tensor] = {}

    def before_epoch(self) -> None:
        """Forgets the last epoch."""
        self._sums = {}

    def after_step(self) -> None:
        """Adds the step's counts; waits for no device."""
        step = getattr(unwrapped(self.trainer.model), "step", None)
        for part, positives in (step.take_positives() if step is not None else {}).items():
            truth = self._truth.get(part)
            counts = _counts(positives) if truth is None else truth.counts(positives)
            self._sums[part] = self._sums[part] + counts if part in self._sums else counts

    def after_epoch(self) -> None:
        """Writes the scalars, of the images of all processes, and a line."""
        for part, sums in sorted(self._sums.items()):
            found = figures(gather_rows(sums[None]).sum(0).tolist())
            scalars: Any = {f"{PREFIX[part]}_{name}": value for name, value in found.items()}
            self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)
            said = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            logger.info(f"epoch {self.trainer.epoch}: positives of the {part}: {said}")


class Truth:
    """The identities of a list of images, and how many others each image's has.

    Args:
        identities: i64 [N], -1 = unknown.
    """

    def __init__(self, identities: np.ndarray) -> None:
        sizes = np.bincount(identities[identities >= 0], minlength=1)
        others = np.where(identities >= 0, sizes[identities] - 1, 0)
        self._ids, self._others = torch.from_numpy(identities), torch.from_numpy(others)

    def counts(self, found: Positives) -> Tensor:
        """As `_counts`, with [images known, chosen there, right, possible] behind, f64 [7]."""
        device = found.images.device
        self._ids, self._others = self._ids.to(device), self._others.to(device)
        own = self._ids[found.images]
        is_known = own >= 0
        chosen = found.chosen & is_known[:, None]
        right = chosen & (self._ids[found.rows.clamp(min=0)] == own[:, None]) & (found.rows >= 0)
        more = [is_known.sum(), chosen.sum(), right.sum(), self._others[found.images].sum()]
        return torch.cat([_counts(found), torch.stack(more).double()])


def _counts(found: Positives) -> Tensor:
    """[images, chosen, fell back], f64 [3]."""
    size = found.images.new_tensor(len(found.images))
    return torch.stack([size, found.chosen.sum(), found.fell_back.sum()]).double()


def figures(sums: list[float]) -> dict[str, float]:
    """Name -> figure, of summed counts; precision only where something was chosen."""
    images, chosen, fell_back, *known = sums
    found = {"per_image": chosen / images, "fallback": fell_back / images}
    if known and known[0]:
        _, picked, right, possible = known
        found |= {"precision": right / picked} if picked else {}
        found["recall"] = right / max(possible, 1)
    return found
