"""What the parts hand to one another. Shapes: N images, B batch, D feature size, k neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

# Called from the main thread as work gets done: (what is done, pieces done, pieces in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Search:
    """A neighbour search that a distance or a clusterer asks for, declared before it is made.

    Args:
        k: neighbours per image, at least 1; at most N among all images.
        among: the images searched: all of them; those of the image's own camera, itself included;
            or those of other cameras.

    >>> Search(30)
    Search(k=30, among='all')
    """

    k: int
    among: Literal["all", "same_camera", "other_cameras"] = "all"


@dataclass(frozen=True)
class KnnGraph:
    """The k nearest images of each image by cosine similarity.

    Args:
        indices: i64 [M, k], dataset rows, nearest first, ties by lower index; the image itself is
            first wherever it is searched. -1 where a search among cameras finds fewer than k
            images. M is N, or the number of rows asked for.
        similarity: f32 [M, k], cosine in [-1, 1], descending; -2 where the index is -1.

    Raises:
        ValueError: if the two shapes differ or are not [M, k].

    >>> KnnGraph(np.array([[0, 1], [1, 0]]), np.array([[1.0, 0.8], [1.0, 0.8]], np.float32)).k
    2
    """

    indices: np.ndarray
    similarity: np.ndarray

    def __post_init__(self) -> None:
        if self.indices.shape != self.similarity.shape or self.indices.ndim != 2:
            raise ValueError(
                f"indices {self.indices.shape} and similarity {self.similarity.shape} must both"
                " be [M, k]."
            )

    @property
    def k(self) -> int:
        """Neighbours per image, itself included."""
        return int(self.indices.shape[1])


@dataclass(frozen=True)
class PseudoLabels:
    """One labelling of a data set.

    Args:
        labels: i64 [N], -1 = outlier, otherwise 0..C-1 without gaps, clusters numbered by their
            first image.
        eps: radius the clusters were found at; None where the clusterer has none.
        seconds: wall-clock per stage, e.g. {"neighbors": 1.2, "distance": 0.1, "cluster": 0.0}.
        note: what was done to recover from a collapse; empty if nothing.
        figures: more to tell in the log, by name.

    >>> found = PseudoLabels(np.array([0, 0, -1, 1, 1]))
    >>> found.num_clusters, found.num_outliers
    (2, 1)
    """

    labels: np.ndarray
    eps: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_clusters(self) -> int:
        """Number of clusters, C (outliers excluded)."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def num_outliers(self) -> int:
        """Images that belong to no cluster."""
        return int((self.labels < 0).sum())


@dataclass(frozen=True)
class Batch:
    """What a loss or a memory sees of one training batch.

    Args:
        features: [B, D], as the head gives them (not scaled to unit length), with gradient in a
            loss, without in `Memory.update`.
        targets: i64 [B], row of the label space: source classes, then clusters, then outliers.
        indices: i64 [B], row of each image in its list: that of the target, or that of all sources.
        cameras: i64 [B], camera of each image, 0 for all where unknown.
        domains: i64 [B], 0 = target, 1.. = the labelled sources; None = all target.
        teacher_features: [B, D], the teacher's features of the same images, as its head gives them;
            None without.
        teacher_logits: [B, L], the teacher's logits over its memory; None without.
        roles: i64 [B], 3 t + r: image r (0 query, 1 positive, 2 negative) of the batch's triplet t,
            below 0 = of none; None where batches are not made of triplets. A memory never sees it.
        class_logits: [B, S], what the classifier of labelled sources makes of the images; None
            unless a loss asks for it. A memory never sees it.
        views: i64 [B], which augmented view of its image a row is, from 0; None where images are
            not drawn in views.
        fine_map: [B, C, H, W], output of a layer of the backbone that a loss names; None without.
        coarse_map: the same, of a later layer.
    """

    features: Tensor
    targets: Tensor
    indices: Tensor
    cameras: Tensor
    domains: Tensor | None = None
    teacher_features: Tensor | None = None
    teacher_logits: Tensor | None = None
    roles: Tensor | None = None
    class_logits: Tensor | None = None
    views: Tensor | None = None
    fine_map: Tensor | None = None
    coarse_map: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, targets: Tensor, **given: Tensor | None) -> Batch:
        """A batch with the given fields; indices and cameras are 0 where they are not."""
        zeros = torch.zeros_like(targets)
        columns: dict[str, Any] = {"indices": zeros, "cameras": zeros, **given}
        return cls(features, targets, **columns)

    @property
    def is_source(self) -> Tensor:
        """bool [B], whether an image is of a labelled source."""
        domains = torch.zeros_like(self.targets) if self.domains is None else self.domains
        return domains > 0

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `function` applied to every tensor of it."""
        values = [getattr(self, field.name) for field in fields(self)]
        found: list[Any] = [value if value is None else function(value) for value in values]
        return Batch(*found)

    def select(self, rows: Tensor | slice) -> Batch:
        """The batch of some rows (a mask, positions or a slice), in their order."""
        return self.map(lambda values: values[rows])


@dataclass(frozen=True)
class Positives:
    """What a loss took for positives of a batch beside each image itself; for the log.

    Args:
        images: i64 [B], row of each image in its list: that of the target, or that of all sources.
        rows: i64 [B, k], candidates, rows of the same list; below 0: no image.
        chosen: bool [B, k], which of them are positives.
        fell_back: bool [B], images whose positives are nearest rows for want of better ones.
    """

    images: Tensor
    rows: Tensor
    chosen: Tensor
    fell_back: Tensor


class MemoryLike(Protocol):
    """What a loss, or a refiner that watches the training, may read of a memory; never written.

    `memories.base.Memory` is the memories' base class; losses and refiners know only this.

    Attributes:
        epoch: the epoch at hand, from 0 = the first with pseudo-labels.
        num_sources: S, classes of labelled sources with a row; 0 without.
        num_clusters: C, outliers excluded.
        temperature: what `logits` divides cosines by.
        label_smoothing: share of the wanted probability to spread evenly over all classes.
        rows: f32 [R, D], unit length (or zero, where nothing was written yet), but for memories
            that say otherwise.
    """

    epoch: int
    num_sources: int
    num_clusters: int
    temperature: float
    label_smoothing: float
    rows: Tensor

    def targets(self, batch: Batch) -> Tensor:
        """Column of `logits` that is right for each image, i64 [B], -1 = ignored."""

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        """Logits [B, L] of unit features [B, D] over the memory's L classes; f32 or f64."""

    def loss_mask(self, batch: Batch) -> Tensor | None:
        """bool [B, L], the classes that stay in the softmax; None = all."""

    def classes_of_rows(self) -> Tensor:
        """Target that each row belongs to, i64 [R], -1 = none."""

    def rows_of_images(self, batch: Batch) -> Tensor:
        """The row that is the image's alone, i64 [B]; -1 where there is none."""


class FeatureRefiner(Protocol):
    """What makes the features that are clustered out of those of the images and their neighbours.

    Attributes:
        neighbors_to_refine: nearest images that `refine_features` is given for each, itself
            included; fewer in a smaller data set. 0 = it refines nothing and is not called.
    """

    neighbors_to_refine: int

    def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
        """New features [N, D], any length, of unit rows f32 [N, D], which it leaves alone."""


class Figures:
    """Means over an epoch that a part tells the log: summed on their device, read at its end.

    >>> figures = Figures()
    >>> figures.add("accepted", torch.tensor([True, False, True]))
    >>> figures.take(), figures.take()
    ({'accepted': (2.0, 3.0)}, {})
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, counted: Tensor | None = None) -> None:
        """Adds values [B], or those that are `counted`, bool [B]; waits for no device."""
        values = values.detach().double()
        weights = torch.ones_like(values) if counted is None else counted.double()
        found = torch.stack([(values * weights).sum(), weights.sum()])
        self._sums[name] = self._sums[name] + found if name in self._sums else found

    def take(self) -> dict[str, tuple[float, float]]:
        """Name -> (sum, number of values) since the last call; begins anew."""
        sums, self._sums = self._sums, {}
        return {name: (float(total), float(count)) for name, (total, count) in sums.items()}
