"""A linear classifier over source classes and clusters whose rows learn by gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MEMORIES
from ..structures import Batch
from .base import Memory

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's


@MEMORIES.register("classifier")
class ClassifierMemory(Memory):
    """One row per source class and per cluster: unit means at a labelling, then moved by gradient.

    What clustering baselines and Mutual Mean-Teaching train with. After a step all rows make a step
    of their own optimizer down the gradient of the cross-entropy, at the rows and features of the
    forward pass, (softmax - wanted)^T features / temperature, averaged over the images of the
    target and over those of the sources, added. It is in closed form, from the batch of all
    processes, so neither mixed precision nor the number of processes matters. Moments are zero
    after a labelling. Rows are not scaled to unit length.

    Args:
        temperature: logits are inner products divided by it.
        learning_rate: of the rows, constant; the network's schedule does not reach them.
        weight_decay: times the row, added to its gradient.
        optimizer: "adam" or "sgd", as torch.optim's, Adam with its usual constants.
        label_smoothing: share of the wanted probability spread evenly over all classes, in
            MemoryContrast and in the rows' gradient.

    Attributes:
        first_moment, second_moment: f32 [R, D], of Adam.
        steps: i64 [], since the labelling.

    Cost of a step: 3·B·R·D multiply-adds; 3·R·D floats; no host synchronisation.
    Sources: the strong baseline of OpenUnReID; Ge et al., Mutual Mean-Teaching, ICLR 2020.
    Differs: there features behind the neck are not scaled to unit length, so 1 / temperature stands
    for their length, about sqrt(D) (temperature 0.022 for 2048), held fixed; only MemoryContrast
    moves rows, as if its SCALE and CC.SOURCES.SCALE were 1 (to Adam a factor means nothing): soft
    labels do not, and a mean teacher shares the rows; source rows start anew at a labelling too;
    the network's moments are kept then.

    >>> memory = ClassifierMemory(temperature=1.0, optimizer="sgd", learning_rate=1.0)
    >>> memory.reset(torch.eye(2), torch.tensor([0, 1]))
    >>> memory.update(Batch.of(torch.eye(2)[:1], torch.tensor([0])))
    >>> memory.rows
    tensor([[ 1.2184,  0.0000],
            [-0.2189,  0.9995]])
    """

    unit_rows = False
    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor
    limits = {
        "learning_rate": "(0, inf)",
        "weight_decay": "[0, inf)",
        "optimizer": ("adam", "sgd"),
        "label_smoothing": "[0, 1)",
    }

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        learning_rate: float = 0.00035,
        weight_decay: float = 0.0005,
        optimizer: str = "adam",
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__(temperature=temperature)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.label_smoothing = label_smoothing
        self._start_moments()

    def _start_moments(self) -> None:
        for name in ("first_moment", "second_moment"):
            self.set_buffer(name, torch.zeros_like(self.rows))
        self.set_buffer("steps", torch.zeros((), dtype=torch.int64, device=self.rows.device))

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sets each row to the unit mean of its class, and the moments to zero."""
        self.set_buffer("rows", torch.cat([sources, self.cluster_means(features, labels)]))
        self._start_moments()

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """One optimizer step of all rows; none if no image has a target."""
        if not len(self.rows):
            return
        is_any = (batch.targets >= 0).any()
        gradient = self.gradient(features, batch) + self.weight_decay * self.rows
        if self.optimizer == "sgd":
            step = gradient
        else:
            moments = (self.first_moment, gradient), (self.second_moment, gradient.square())
            self.steps += is_any
            count, unbiased = self.steps.to(gradient.dtype), []
            for beta, (moment, value) in zip(BETAS, moments, strict=True):
                moment.copy_(torch.where(is_any, beta * moment + (1 - beta) * value, moment))
                unbiased.append(moment / (1 - beta**count))
            step = unbiased[0] / (unbiased[1].sqrt() + EPS)
        moved = self.rows - self.learning_rate * step
        self.rows.copy_(torch.where(is_any, moved, self.rows))

    def gradient(self, features: Tensor, batch: Batch) -> Tensor:
        """Of the smoothed cross-entropy with respect to the rows, [R, D], without weight decay.

        Args:
            features: [B, D], unit rows of the memory's dtype.
            batch: their targets (< 0: left out) and domains.
        """
        with torch.autocast(features.device.type, enabled=False):
            logits, smoothing = self.logits(features, batch), self.label_smoothing
            own = F.one_hot(batch.targets.clamp(min=0), len(self.rows)).to(logits.dtype)
            error = logits.softmax(1) - (1 - smoothing) * own - smoothing / len(self.rows)
            error *= share_of_its_part(batch).to(error.dtype)[:, None] / self.temperature
            return error.to(features.dtype).T @ features


def share_of_its_part(batch: Batch) -> Tensor:
    """1 / number of images with a target in the image's part, target or sources, f64 [B].

    0 for images without a target.
    """
    valid, is_source = batch.targets >= 0, batch.is_source
    counts = [(valid & part).sum().clamp(min=1) for part in (~is_source, is_source)]
    return valid.double() / torch.where(is_source, counts[1], counts[0])
