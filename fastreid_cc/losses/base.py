"""What every loss does: a scalar from a batch and, for some, a memory; no side effects.

A loss computes in float32 (float64 if the features are), whatever autocast does outside, scales
features to unit length itself, and ignores images whose target is negative. With several processes,
averaging the gradients over ranks (what DDP does) gives the gradient of the whole batch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..parallel.collectives import gather_rows, gather_rows_with_grad, world_size
from ..registry import LOSSES, Part
from ..structures import Batch, Figures, KnnGraph, MemoryLike, Positives


class Loss(Part, nn.Module):
    """Base of all losses: a subclass writes `compute` and declares what it needs.

    Attributes:
        log_name: the loss is logged as "loss_<log_name>". By default the words of the class's name,
            so MemoryContrast gives loss_memory_contrast.
        needs_memory: whether `compute` reads a memory.
        needs_teacher: whether it reads what a teacher makes of the batch.
        needs_roles: whether it reads the roles of mined images; epochs in which it works are
            trained on mined triplets (CC.MINING).
        needs_class_logits: whether it reads the logits of the labelled sources' classifier.
        needs_views: whether it compares views of an image: it works in CC.WARMUP.LOSSES only.
        learns_from_sources: whether parameters of its own learn from source images already in the
            epochs of source labels, against a memory that keeps a row for each of them.
        lr_factor: factor of SOLVER.BASE_LR for parameters of its own.
        positives: what the last call took for positives, if it tells; for the log.
        figures: means over the epoch, logged at its end as "cc/<log_name>_<name>".
        neighbors_to_refine: nearest images, itself included, that `refine_features` is given for
            each; 0 = the loss does not refine the features that are clustered.

    >>> class Spread(Loss):
    ...     def compute(self, batch, memory):
    ...         return -unit(batch.features).var(0).sum()
    >>> loss = Spread()
    >>> loss(Batch.of(torch.eye(2), torch.tensor([0, 1]))), loss.log_name
    (tensor(-1.), 'spread')
    """

    log_name: ClassVar[str]
    needs_memory: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    needs_roles: ClassVar[bool] = False
    needs_views: ClassVar[bool] = False
    learns_from_sources: ClassVar[bool] = False
    needs_class_logits: bool = False
    lr_factor: float = 1.0
    positives: Positives | None = None
    neighbors_to_refine: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.figures = Figures()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "log_name" not in vars(cls):
            words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+", cls.__name__)
            cls.log_name = "_".join(words).lower()

    @property
    def maps(self) -> dict[str, str]:
        """Map of the batch ("fine_map", "coarse_map") -> layer of the backbone that gives it."""
        return {}

    def applies_to(self, part: Literal["target", "source"], memory: MemoryLike | None) -> bool:
        """Whether the loss is computed on a batch's target images, or on its source images.

        By default on both, but on source images only if the memory it reads has rows of their
        classes. A batch without sources is all "target".
        """
        has_rows = memory is None or memory.num_sources > 0
        return part == "target" or not self.needs_memory or has_rows

    def factor(self, part: Literal["target", "source"], scale: float, source_scale: float) -> float:
        """What the loss of a part is multiplied by: SCALE, and CC.SOURCES.SCALE on sources."""
        return scale * source_scale if part == "source" else scale

    def forward(self, batch: Batch, memory: MemoryLike | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            batch: features [B, D] with gradient, any float dtype, any scale; targets < 0 ignored.
            memory: a `Memory`, for losses with `needs_memory`.
        Returns:
            scalar, float32 (float64 if the features are).
        Raises:
            ValueError: if a memory, a teacher, roles or class logits are needed and missing.
        """
        if self.needs_memory and memory is None:
            raise ValueError(
                f"{type(self).__name__} needs a memory (CC.MEMORY.NAME), and none is set: it works"
                " with CC.ENABLED True only."
            )
        given = batch.teacher_logits if self.needs_memory else batch.teacher_features
        if self.needs_teacher and given is None:
            raise ValueError(f"{type(self).__name__} needs a teacher: set CC.TEACHER.ENABLED True.")
        if self.needs_roles and batch.roles is None:
            raise ValueError(
                f"{type(self).__name__} needs the roles of mined images (CC.MINING), which this"
                " batch does not tell."
            )
        if self.needs_class_logits and batch.class_logits is None:
            raise ValueError(
                f"{type(self).__name__} needs a classifier of labelled sources: CC.SOURCES.NAMES,"
                " CC.SOURCES.MODE joint, and CrossEntropyLoss in CC.SOURCES.LOSSES."
            )
        features = batch.features
        with torch.autocast(features.device.type, enabled=False):
            features = features if features.dtype == torch.float64 else features.float()
            return self.compute(replace(batch, features=features), cast(MemoryLike, memory))

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """The formula, a scalar; autocast is off.

        Args:
            batch: as in `forward`, features float32 or float64.
            memory: only there for losses with `needs_memory`; others must not read it.
        """
        raise NotImplementedError

    def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
        """Features to cluster in place of those extracted; see `structures.FeatureRefiner`.

        Called once per labelling, on every process with the same bytes, without gradient, where
        `neighbors_to_refine` is above 0. The memory is filled by the features as they were.

        Args:
            features: f32 [N, D], unit rows of all images of the target.
            neighbors: their nearest ones, the image itself first.
        Returns:
            [N, D], of any length; permuting the images permutes it.
        """
        raise NotImplementedError


LOSSES.base = Loss


class PairwiseLoss(Loss):
    """Base of losses on all pairs of the whole batch: a subclass writes `pairwise`.

    With several processes the features are gathered, every process computes the loss of all rows,
    and the gradient of its own rows is scaled so that averaging over processes gives the gradient
    of the whole batch. Every process must bring equally many rows. Cost: O(B²·D) time, O(B²) floats
    for B rows of all processes.

    >>> class Apart(PairwiseLoss):
    ...     def pairwise(self, features, labels):
    ...         _, other = pair_masks(labels)
    ...         return (unit(features) @ unit(features).T)[other].mean()
    >>> Apart()(Batch.of(torch.ones(2, 2), torch.tensor([0, 1])))
    tensor(1.0000)
    """

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Gathers, computes, scales."""
        features = gather_rows_with_grad(batch.features)
        return whole_batch(self.pairwise(features, gather_rows(batch.targets)))

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of rows [B, D] (not unit length) with labels i64 [B], < 0 ignored."""
        raise NotImplementedError


def whole_batch(loss: Tensor) -> Tensor:
    """A loss that every rank computes of all rows, scaled so that mean gradients are right."""
    ranks = world_size()
    return loss if ranks == 1 else loss * ranks - loss.detach() * (ranks - 1)


LOW = -1e30  # stands for -inf where -inf would turn gradients into NaN; exp(LOW - x) is exactly 0


class _Unit(torch.autograd.Function):
    """x / |x| with the closed-form gradient (g - f (f.g)) / |x|: two buffers instead of eight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
        norm = norm.clamp(min=1e-12).to(x.dtype)
        f = x / norm
        ctx.save_for_backward(f, norm)
        return f

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        f, norm = ctx.saved_tensors
        along = torch.linalg.vecdot(f, g)[:, None]
        return torch.addcmul(g, f, along, value=-1).div_(norm)


def unit(features: Tensor) -> Tensor:
    """Rows scaled to unit length; a zero row stays zero. Lengths are summed in float64."""
    return _Unit.apply(features)


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension where `mask` holds; LOW, gradient 0, where nowhere."""
    return values.masked_fill(~mask, LOW).logsumexp(-1)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), exact everywhere (torch's own is linear above 20)."""
    return -F.logsigmoid(-x)


def identity_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(same label, the image itself too; other label), bool [B, B]; False for labels < 0."""
    valid = (labels >= 0) & (labels >= 0)[:, None]
    same = labels == labels[:, None]
    return same & valid, ~same & valid


def pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(same label, not the image itself; other label), bool [B, B]; False for labels < 0."""
    same, other = identity_masks(labels)
    return same.fill_diagonal_(False), other


def euclidean_distances(x: Tensor) -> Tensor:
    """Distances of rows [B, D], [B, B]; at least 1e-6, where the gradient ends."""
    x = x.clamp(-1e15, 1e15)  # squares beyond would overflow
    squares = x.square().sum(1)
    return (squares[:, None] + squares - 2 * (x @ x.T)).clamp(min=1e-12).sqrt()


def mean_over(losses: Tensor, counted: Tensor) -> Tensor:
    """Sum of the losses where `counted`, over the number counted (at least 1)."""
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
