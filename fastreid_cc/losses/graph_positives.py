"""ECN with learned neighbours: a graph network, taught on the source, says who is a positive."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import LOSSES
from ..structures import Batch, MemoryLike, Positives
from .base import Loss
from .ecn import can_be_positive, masked_logits, soft_cross_entropy
from .memory_contrast import batch_mean


@runtime_checkable
class SourceMemory(MemoryLike, Protocol):
    """A memory with a row for every image of the labelled sources (`InstanceMemory`).

    Attributes:
        source_rows: f32 [M, D], unit length, zero where never seen.
        source_classes: i64 [M].
    """

    source_rows: Tensor
    source_classes: Tensor


@LOSSES.register()
class GraphPositives(Loss):
    """ECN's loss with predicted positives in place of the k nearest (ECN+GPP).

    The candidates of an image are the rows of the memory most similar to it; they form a graph. On
    source images, whose identities are known, a graph network learns by binary cross-entropy which
    candidates are positives; no gradient reaches the features. It learns in the epochs of source
    labels too. On target images, from `start_epoch` on, candidates with a probability of at least
    `threshold` are positives: each weighs 1 / their number, the own row 1. An image without any has
    its `fallback` nearest rows, or only itself.

    Needs CC.MEMORY.NAME instance with CC.MEMORY.INSTANCE.SOURCE_ROWS True, and joint sources.

    Args:
        feature_size: size of the features, D; the graph network is built for it.
        candidates: rows looked at per image, k1.
        node_neighbors: neighbours, k2, of a candidate among the candidates.
        hidden: width of the graph network.
        layers: number of graph convolutions.
        threshold: probability from which a candidate is a positive.
        fallback: nearest rows that are positives of a target image where no candidate is one;
            0 = own row only, as in the paper.
        start_epoch: first epoch with positives on the target, 0 = the first with pseudo-labels.
        graph_scale: factor of the graph network's loss, in place of SCALE and CC.SOURCES.SCALE,
            which weigh losses of features.
        lr_factor: factor of SOLVER.BASE_LR for the graph network, which starts from random weights.

    Cost per image: N·D for the candidates, k1²·D for their graph, k1·2·D·hidden for the network.
    Source: Zhong et al., Learning to Adapt Invariance in Memory for Person Re-identification, TPAMI
    2020 (arXiv:1908.00485). Reconstructed from its description, for there is no code: sizes, node
    features (row - feature, beside their cosine), the number of layers, the fallback, the factors
    and the epochs in which the graph learns are ours.

    Before `start_epoch`, on the target, it is `ECN` without neighbours:

    >>> from fastreid_cc.memories.instance import InstanceMemory
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> memory = InstanceMemory(init="features", temperature=0.5)
    >>> memory.reset(x, torch.tensor([-1, -1, -1]))
    >>> GraphPositives(feature_size=2)(Batch.of(x, torch.arange(3)), memory)
    tensor(0.6008)
    """

    needs_memory = True
    learns_from_sources = True
    limits = {
        "feature_size": "[1, inf)",
        "candidates": "[1, inf)",
        "node_neighbors": "[1, inf)",
        "hidden": "[1, inf)",
        "layers": "[1, inf)",
        "threshold": "(0, 1]",
        "fallback": "[0, inf)",
        "start_epoch": "[0, inf)",
        "graph_scale": "[0, inf)",
        "lr_factor": "(0, inf)",
    }

    def __init__(
        self,
        *,
        feature_size: int = 2048,
        candidates: int = 100,
        node_neighbors: int = 5,
        hidden: int = 256,
        layers: int = 2,
        threshold: float = 0.9,
        fallback: int = 0,
        start_epoch: int = 5,
        graph_scale: float = 1.0,
        lr_factor: float = 10.0,
    ) -> None:
        super().__init__()
        self.feature_size, self.candidates = feature_size, candidates
        self.threshold, self.fallback, self.start_epoch = threshold, fallback, start_epoch
        self.graph_scale, self.lr_factor = graph_scale, lr_factor
        self.graph = CandidateGraph(feature_size + 1, hidden, layers, node_neighbors)

    def applies_to(self, part: Literal["target", "source"], memory: MemoryLike | None) -> bool:
        """To all images: source images are compared with `source_rows`."""
        return True

    def factor(self, part: Literal["target", "source"], scale: float, source_scale: float) -> float:
        """On sources `graph_scale`: only the graph network learns from that loss."""
        return self.graph_scale if part == "source" else scale

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Source images train the graph network, target images the features."""
        if batch.features.shape[1] != self.feature_size:
            raise ValueError(
                f"{self.key}.FEATURE_SIZE={self.feature_size} must be the size of the features,"
                f" {batch.features.shape[1]}."
            )
        if bool(batch.is_source.any()):
            return self._on_source(batch, memory)
        return self._on_target(batch, memory)

    def _on_source(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Binary cross-entropy over the candidates of source images, mean over images."""
        if not isinstance(memory, SourceMemory):
            raise ValueError("GraphPositives needs CC.MEMORY.NAME instance with SOURCE_ROWS True.")
        rows, classes = memory.source_rows, memory.source_classes
        found, nodes, seen = self._nodes(batch.features, rows)
        logits = self.graph(nodes, rows[found])
        is_same = (classes[found] == batch.targets[:, None]).to(logits.dtype)
        counted = (seen & (found != batch.indices[:, None])).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, is_same, reduction="none") * counted
        chosen = (self._probability(logits) >= self.threshold) & (counted > 0)
        nobody = torch.zeros_like(batch.is_source)
        self.positives = Positives(batch.indices, found, chosen, nobody)
        return batch_mean(losses.sum(1) / counted.sum(1).clamp(min=1), batch.targets >= 0)

    def _on_target(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Soft cross-entropy over all rows, mean over the images with a target."""
        targets, logits = memory.targets(batch), masked_logits(batch, memory)
        weights = torch.zeros_like(logits)
        self.positives = None
        if memory.epoch >= self.start_epoch:
            found, chosen, fell_back = self.choose(batch.features, memory.rows, targets, logits)
            share = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
            weights.scatter_(1, found, share.to(logits.dtype))
            images = found - memory.num_sources
            self.positives = Positives(batch.indices, images, chosen, fell_back)
        weights.scatter_(1, targets.clamp(min=0)[:, None], 1.0)
        weights *= (targets >= 0)[:, None]
        return batch_mean(soft_cross_entropy(logits, weights), targets >= 0)

    @torch.no_grad()
    def choose(
        self, features: Tensor, rows: Tensor, targets: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates i64 [B, k], which are positives bool [B, k], who fell back bool [B].

        Args:
            features: [B, D]; rows: [R, D]; targets: i64 [B], the own row, never a positive here.
            logits: [B, R], of `masked_logits`: rows that its mask leaves out are no positives.
        """
        found, nodes, seen = self._nodes(features, rows)
        usable = seen & (found != targets[:, None]) & can_be_positive(logits).gather(1, found)
        chosen = usable & (self._probability(self.graph(nodes, rows[found])) >= self.threshold)
        if not self.fallback:
            return found, chosen, torch.zeros_like(targets > 0)
        fell_back = ~chosen.any(1)
        nearest = usable & (usable.cumsum(1) <= self.fallback)  # the most similar come first
        return found, torch.where(fell_back[:, None], nearest, chosen), fell_back

    @staticmethod
    def _probability(logits: Tensor) -> Tensor:
        return logits.detach().sigmoid()

    @torch.no_grad()
    def _nodes(self, features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates i64 [B, k], node features f32 [B, k, D + 1], whether a row is filled [B, k].

        Rows that are still zero come last, and count as never seen.
        """
        f = F.normalize(features.detach().to(rows.dtype))
        is_filled = rows.any(1)
        similarity = (f @ rows.T).masked_fill(~is_filled, -torch.inf)
        near, found = similarity.topk(min(self.candidates, len(rows)), dim=1)
        seen = is_filled[found]
        nodes = torch.cat([rows[found] - f[:, None], near.masked_fill(~seen, 0)[..., None]], dim=2)
        return found, nodes, seen


class CandidateGraph(nn.Module):
    """Graph network over the candidates of an image: one logit per candidate.

    A layer is ReLU([X, G X] W + b), where G averages the nearest other candidates of each.

    Args:
        size: number of node features, E.
        hidden: width.
        layers: graph convolutions; a linear layer follows them.
        neighbors: other candidates that G averages, by cosine of their rows.
    """

    def __init__(self, size: int, hidden: int, layers: int, neighbors: int) -> None:
        super().__init__()
        sizes = [size] + [hidden] * layers
        self.layers = nn.ModuleList(
            nn.Linear(2 * wide, narrow) for wide, narrow in zip(sizes, sizes[1:], strict=False)
        )
        self.last = nn.Linear(hidden, 1)
        self.neighbors = neighbors

    def forward(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """Logits [B, k] of nodes [B, k, E] that stand for memory rows [B, k, D]."""
        x = nodes.to(self.last.weight.dtype)
        graph = self.adjacency(rows).to(x.dtype)
        for layer in self.layers:
            x = F.relu(layer(torch.cat([x, graph @ x], dim=2)))
        return self.last(x)[..., 0]

    @torch.no_grad()
    def adjacency(self, rows: Tensor) -> Tensor:
        """G, [B, k, k]: 1 / u for the u nearest others of each node; rows sum to 1 (0 if alone)."""
        unit_rows = F.normalize(rows, dim=2)
        similarity = unit_rows @ unit_rows.transpose(1, 2)
        k = rows.shape[1]
        similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        u = min(self.neighbors, k - 1)
        graph = torch.zeros_like(similarity)
        if u == 0:
            return graph
        return graph.scatter_(2, similarity.topk(u, dim=2).indices, 1.0 / u)
