"""Parts that break their contracts; test_examples.py says which tests must fail for each."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fastreid_cc.generators.base import Drawn, Generator
from fastreid_cc.labeling.clusterers.base import Clusterer
from fastreid_cc.labeling.distances.cosine import CosineDistance
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.labeling.refiners.base import Refiner
from fastreid_cc.losses.base import Loss, unit
from fastreid_cc.memories.base import Memory
from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.registry import (
    CLUSTERERS,
    DISTANCES,
    GENERATORS,
    LOSSES,
    MEMORIES,
    NEIGHBORS,
    REFINERS,
)
from fastreid_cc.structures import KnnGraph


@MEMORIES.register("without_sources")
class WithoutSources(Memory):
    """The README's memory as it was: no rows for source classes, float32 only."""

    def __init__(self, *, temperature: float = 0.05) -> None:
        super().__init__(temperature=temperature)

    def reset_rows(self, features, labels, cameras, sources, generator):
        rows = torch.zeros(self.num_clusters, features.shape[1])
        rows.index_add_(0, labels[labels >= 0], features[labels >= 0].float())
        self.set_buffer("rows", F.normalize(rows).to(features))

    def update_rows(self, features, batch):
        pass


@MEMORIES.register("forgetful")
class Forgetful(ClusterMemory):
    """Counts steps beside its state, draws from the global generator, lets rows grow."""

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__()
        self.steps = 0
        self.strength = strength

    def update_rows(self, features, batch):
        self.steps += 1
        self.rows += self.strength * self.steps * torch.rand(())


@CLUSTERERS.register("careless")
class Careless(Clusterer):
    """Answers in its own numbers, spoils the graph, reads no radius."""

    consumes = "distances"
    limits = {"eps": "(0, 1]"}

    def __init__(self, *, eps: float = 0.5) -> None:
        """Args: eps: radius."""
        self.eps = eps

    def fit_predict(self, x, radii=(None,)):
        x.data[:] = np.random.random(len(x.data))
        return [np.arange(x.shape[0])[::-1] for _ in radii]


@REFINERS.register("blind")
class Blind(Refiner):
    """Writes into the labels, counts labellings beside its state, fails without cameras."""

    def __init__(self) -> None:
        self.calls = 0

    def refine(self, labels, at_offset, cameras=None):
        self.calls += 1
        labels[:] = labels + len(np.unique(cameras + 0)) + self.calls
        return labels


@LOSSES.register("Crooked")
class Crooked(Loss):
    """Detaches a factor, reads the order of the batch, ignores nobody, divides by zero.

    What it refines depends on the order of the images.
    """

    neighbors_to_refine = 3

    def compute(self, batch, memory):
        f = unit(batch.features)
        same = (batch.targets == batch.targets[:, None]).to(f).triu(1)
        order = torch.arange(len(f)).to(f)[:, None]
        values = (f @ f.T) * f.detach().sum(1) * order * torch.rand(()).to(f)
        return (values * same).sum() / same.sum()

    def refine_features(self, features, neighbors):
        return features.cumsum(0)


@DISTANCES.register("lopsided")
class Lopsided(CosineDistance):
    """Farther from left to right than back, and from the first images on."""

    def __call__(self, features, graphs, **more):
        graph = super().__call__(features, graphs, **more)
        graph.data *= np.linspace(0.5, 1, len(graph.data), dtype=np.float32)
        return graph


@NEIGHBORS.register("shortsighted")
class Shortsighted(ExactKNN):
    """Farthest first, and any k."""

    def __call__(self, features, k, rows=None, progress=None, **prepared):
        graph = super().__call__(
            features, min(max(k, 1), len(features)), rows, progress, **prepared
        )
        return KnnGraph(graph.indices[:, ::-1], graph.similarity[:, ::-1] * 0.5)


@GENERATORS.register("moody")
class Moody(Generator):
    """One name for all, noise of the global generator, steps that are counted beside the state."""

    num_steps = 3
    steps = height = width = 0

    def train_step(self, step):
        self.steps += 1
        return {"loss": torch.rand(())}

    def state_dict(self):
        return {"steps": torch.tensor(float(self.steps))}

    def draw(self, numbers):
        noise = self.photos.pixels([0], 32, 16)[0]
        return [Drawn("same.png", noise) for _ in numbers]
