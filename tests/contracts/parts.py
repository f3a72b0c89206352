"""What the contract tests know of the parts: the cases, the images fed to them, how they compare.

A test module names its registries in FAMILIES; each test that takes `case` runs for every part of
them (see conftest.py). A part that is not listed here is tested with its defaults.
Longer than 300 lines: it is the one place that a change of a contract has to touch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import engine
import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_cc.config import REGISTRIES
from fastreid_cc.registry import (
    CLUSTERERS,
    DISTANCES,
    GENERATORS,
    LOSSES,
    MEMORIES,
    NEIGHBORS,
    Registry,
)
from fastreid_cc.structures import Batch, KnnGraph

__all__ = ["REGISTRIES"]

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]

#: Arguments that suit some forty images, where the defaults are made for thousands; further
#: variants of a part stand beside its name as "name:variant".
ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    DISTANCES.family: {
        "jaccard": {"k1": 8, "k2": 3},
        "ca_jaccard": {"k1_intra": 3, "k1_inter": 5, "k1": 8, "k2": 3},
        "cosine": {},
        "cosine:nearest": {"k1": 6},
    },
    NEIGHBORS.family: {
        "exact": {"precision": "float32"},
        "exact:bfloat16": {"precision": "bfloat16"},
    },
    CLUSTERERS.family: {
        "dbscan": {"min_samples": 3},
        "hdbscan": {"min_size": 3, "min_samples": 2},
        "infomap": {"k1": 5, "min_size": 2},
        "kmeans": {"num_clusters": 6},
    },
    MEMORIES.family: {
        "cluster": {},
        "cluster:hard": {"update": "hard"},
        "cluster:mean": {"update": "mean"},
        "cluster:random": {"update": "random", "init": "random"},
        "classifier": {},
        "classifier:sgd": {"optimizer": "sgd", "learning_rate": 0.1},
        "hybrid": {},
        "hybrid:mean": {"update": "mean"},
        "hybrid:drop": {"outliers": "drop"},
        "hybrid:reinit": {"reinit": True},
        "instance": {"init": "features"},
        "instance:mean": {"update": "mean", "init": "features"},
        "instance:zeros": {"init": "zeros"},
        "instance:same_camera": {"negatives": "same_camera", "init": "features"},
        "camera_proxy": {},
        "camera_proxy:hard": {"update": "hard"},
        "camera_proxy:mean": {"update": "mean"},
        "bidirectional": {"push": 0.2, "nearest": 2},
        "bidirectional:hard": {"update": "hard"},
        "selective": {"reciprocal": 4},
        "selective:all": {"accept": "all"},
        "selective:kept": {"reinit": False, "outliers": "singleton"},
    },
    LOSSES.family: {
        "AMDIM": {
            "feature_size": 8,
            "fine_channels": 8,
            "coarse_channels": 8,
            "fine_rows": 2,
            "fine_columns": 2,
        },
        "MemoryContrast:camera_entropy": {"camera_entropy": True},
        "MemoryContrast:spcl": {"probability_floor": 1e-6},
        "AdaSP:sp-h": {"type": "sp-h"},
        "AdaSP:sp-lh": {"type": "sp-lh"},
        "AverageK:two_head": {"use": "two_head"},
        "AverageK:rescue": {"use": "two_head", "rescue": True},
        "AverageK:soft_positives": {"use": "soft_positives"},
        "BatchHardTriplet:cosine": {"margin": 0.0, "distance": "cosine"},
        "BatchHardTriplet:weighted": {"margin": 0.0, "mining": "weighted"},
        "EasyPositive:semi_hard": {"semi_hard": True},
        "GraphPositives": {
            "feature_size": 8,
            "candidates": 6,
            "hidden": 16,
            "threshold": 0.49,
        },
        "ImplicitExtension": {"neighbors": 2, "ramp_epochs": 6},
        "NeighborConsistency": {"neighbors": 3, "temperature": 0.5},
        "GraphCorrelation": {"feature_size": 8, "hidden": 6, "neighbors": 4, "candidates": 7},
    },
    GENERATORS.family: {
        "blend": {"height": 32, "width": 16},
        "blend:mix": {"mode": "mix", "height": 32, "width": 16},
        "dcgan": {
            "height": 32,
            "width": 16,
            "channels": 4,
            "noise": 8,
            "batch": 4,
            "steps": 4,
            "rate": 0.01,
        },
        "pose_transfer": {
            "height": 32,
            "width": 24,
            "channels": 2,
            "blocks": 1,
            "views": 3,
            "steps": 4,
            "batch": 2,
            "rate": 0.01,
        },
    },
}
#: The memory a loss is made for, where that is not "cluster".
MEMORY_OF = {
    "CameraProxyContrast": "camera_proxy",
    "ECN": "instance",
    "GraphPositives": "instance",
    "MemoryContrast:spcl": "hybrid",
    "OnlineAssociation": "camera_proxy",
    "SelectiveContrast": "selective",
}
#: Parts that need an optional package.
NEEDS = {
    "infomap": "infomap",
    "cells": "faiss",
    "faiss_flat": "faiss",
    "faiss_hnsw": "faiss",
    "faiss_ivf": "faiss",
}
#: Clusterers whose labels depend on the order of the images, and why.
FROM_A_RANDOM_START = {"kmeans": "starts from images drawn by their number"}


@dataclass(frozen=True)
class Case:
    """A registered part, and the arguments it is tested with."""

    registry: Registry
    name: str
    arguments: Mapping[str, Any]
    variant: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def missing(self) -> str:
        """The package that it needs and that is not installed, "" if there is none."""
        package = NEEDS.get(self.name, "")
        return package if package and find_spec(package) is None else ""

    @property
    def part(self) -> type:
        return self.registry.get(self.name)

    def build(self, **changes: Any) -> Any:
        """The part; one that draws random weights draws the same ones each time."""
        state = torch.get_rng_state()
        torch.manual_seed(0)
        try:
            return self.part(**{**self.arguments, **changes})
        finally:
            torch.set_rng_state(state)


def cases(registry: Registry) -> list[Case]:
    """Every registered part of a family, with its variants."""
    listed = ARGUMENTS.get(registry.family, {})
    found = {name: Case(registry, name, MappingProxyType({})) for name in registry.names()}
    for label, arguments in listed.items():
        name, _, variant = label.partition(":")
        found[label] = Case(registry, name, MappingProxyType(arguments), variant)
    return [found[label] for label in sorted(found)]


SMALL_DISTANCE = Case(DISTANCES, "jaccard", ARGUMENTS[DISTANCES.family]["jaccard"])

# ---- how a part is called ----------------------------------------------------------------------


def distances_of(
    distance: Any, features: Tensor, radius: float = 1.0, cameras: np.ndarray | None = None
) -> sp.csr_array:
    """The distances from the searches it declares."""
    return engine.distances(distance, features, radius, cameras)


def food_of(clusterer: Any, features: Tensor) -> Any:
    """What a clusterer consumes, made from features."""
    if clusterer.consumes == "features":
        return features
    if clusterer.consumes == "neighbors":
        return knn_graph(features, min(clusterer.neighbors_needed, len(features)))
    return radius_graph(features)


def labels_of(clusterer: Any, food: Any, *radii: float) -> list[np.ndarray]:
    """Labels at each radius; at the clusterer's own without one."""
    return clusterer.fit_predict(food, radii or (None,))


def refined(
    refiner: Any,
    labels: np.ndarray,
    at_offset: Mapping[float, np.ndarray],
    cameras: np.ndarray | None = None,
    features: torch.Tensor | None = None,
) -> np.ndarray:
    """New labels; with features as a labelling asks for them."""
    if features is None:
        return refiner.refine(labels, at_offset, cameras=cameras)
    return refiner.refine_with(features, labels, at_offset, cameras)


def offsets_of(refiner: Any) -> tuple[float, ...]:
    """Radii that a refiner wants labels at, from the clusterer's own."""
    return refiner.eps_offsets


# ---- images ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """Six identities of five images, well apart, and six images of nobody, in mixed order.

    Attributes:
        features: f32 [36, 16], unit rows.
        truth: i64 [36], identity, numbered by first image; -1 = nobody's.
        cameras: i64 [36], one of three.
    """

    features: Tensor
    truth: np.ndarray
    cameras: np.ndarray

    def permuted(self, order: np.ndarray) -> Images:
        """The same images in another order; identities keep their numbers."""
        return Images(
            self.features[torch.from_numpy(order)], self.truth[order], self.cameras[order]
        )


def images(seed: int = 0) -> Images:
    """The images; another seed gives others."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(6), 5)
    near = np.eye(6, 16)[who] + 0.06 * rng.normal(size=(30, 16))
    nobody = rng.normal(size=(6, 16)) * np.r_[np.zeros(6), np.ones(10)]
    features, truth = np.r_[near, nobody], np.r_[who, np.full(6, -1)]
    order = rng.permutation(36)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    return Images(
        torch.from_numpy(features[order]), by_first_image(truth[order]), rng.integers(0, 3, 36)
    )


def by_first_image(labels: np.ndarray) -> np.ndarray:
    """Clusters renamed 0, 1, ... in the order of their first image; -1 stays."""
    names: dict[int, int] = {}
    return np.array([-1 if c < 0 else names.setdefault(int(c), len(names)) for c in labels], int)


def is_valid(labels: np.ndarray, count: int) -> bool:
    """Whether these are labels of `count` images: int64, -1 or 0..C-1 by first image."""
    right = isinstance(labels, np.ndarray) and labels.dtype == np.int64
    return right and labels.shape == (count,) and bool((labels == by_first_image(labels)).all())


def radius_graph(features: Tensor, radius: float = 1.0) -> sp.csr_array:
    """Cosine distances up to a radius, f32 [N, N], symmetric, zeros of the diagonal stored."""
    rows = features.double().cpu().numpy()
    distance = np.clip(1 - rows @ rows.T, 0, 2).astype(np.float32)
    distance = np.minimum(distance, distance.T)
    np.fill_diagonal(distance, 0)
    i, j = np.nonzero(distance <= np.float32(radius))
    return sp.csr_array((distance[i, j], (i, j)), shape=distance.shape)


def knn_graph(features: Tensor, k: int) -> KnnGraph:
    """The k nearest images of each, by sorting everything."""
    rows = features.double().cpu().numpy()
    cosine = np.clip((rows @ rows.T).astype(np.float32), -1, 1)
    first = cosine + 3 * np.eye(len(rows), dtype=np.float32)
    indices = np.argsort(-first, axis=1, kind="stable")[:, :k]
    return KnnGraph(indices, np.take_along_axis(cosine, indices, axis=1))


# ---- batches -----------------------------------------------------------------------------------


def unit_rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random unit rows."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


# ---- what a part must not do -------------------------------------------------------------------


def as_bytes(value: Any) -> Any:
    """The value with every array in it as bytes, so that == compares them bit by bit."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        return (
            str(value.dtype),
            tuple(value.shape),
            value.view(torch.uint8).numpy().tobytes()
            if (value.numel() and value.ndim)
            else str(value.tolist()),
        )
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes()
    if sp.issparse(value):
        return tuple(as_bytes(part) for part in (value.data, value.indices, value.indptr))
    if is_dataclass(value):
        return {f.name: as_bytes(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_bytes(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_bytes(entry) for entry in value]
    return value


def surroundings() -> tuple[Any, ...]:
    """What a part shares with the rest of the process."""
    state = np.random.get_state(legacy=True)
    return (
        random.getstate(),
        as_bytes(state[1]),
        state[2:],
        as_bytes(torch.get_rng_state()),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def repeated(call: Callable[[], Any], *inputs: Any) -> Any:
    """The answer of `call`, after making sure that it can be repeated and leaves no trace.

    Checks that two calls give the same bytes under different global seeds, that they neither draw
    from nor set the global random state, and that the inputs stay as they were.
    """
    before, answers = as_bytes(inputs), []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        around = surroundings()
        answers.append(call())
        assert surroundings() == around, "the part changed the random state or torch's settings"
        assert as_bytes(inputs) == before, "the part changed what it was given"
    assert as_bytes(answers[0]) == as_bytes(answers[1]), "two calls gave different answers"
    return answers[0]


def make_batch(
    features: Tensor,
    targets: Tensor,
    cameras: Tensor | None = None,
    indices: Tensor | None = None,
    domains: Tensor | None = None,
) -> Batch:
    """A batch; cameras and indices are 0 where not given."""
    zeros = torch.zeros(len(targets), dtype=torch.int64)
    return Batch(
        features,
        targets,
        zeros if indices is None else indices,
        zeros if cameras is None else cameras,
        domains,
    )
