"""Features refined by a graph of their neighbours, in training and before clustering (GCL)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parallel.collectives import gather_rows, gather_rows_with_grad, world_size
from ..registry import LOSSES
from ..structures import Batch, KnnGraph, MemoryLike
from .base import LOW, Loss, mean_over, unit
from .memory_contrast import cross_entropy

_ROWS = 512  # images refined together: N·k·D floats at once would be 5.3 GB for MSMT17


@LOSSES.register()
class GraphCorrelation(Loss):
    """Memory contrast of features mixed with their neighbours', which are also what is clustered.

    On unit features x: an edge has the logit e_ij = s cos(theta x_i, phi x_j) + b, the attention
    a_i is a softmax over the `neighbors` largest of an image's edges, and its refined feature is
    y_i = x_i + W sum_j a_ij x_j. W starts at 0, so that y is x at first. The loss is the memory's
    cross-entropy of y, plus `edge_scale` times the binary cross-entropy of the logits against
    "same label".

    The edges of a training image lead to the other images of the batch and to the `candidates` rows
    of the memory most similar to it, but its own: a batch of whole clusters alone would never show
    the look-alikes that the graph of all images holds. At a labelling they lead to the `candidates`
    most similar images. Evaluation, and the memory, use x.

    Args:
        feature_size: size of the features, D.
        hidden: rows of theta and phi.
        neighbors: edges that share the attention of an image.
        candidates: most similar images, or rows of the memory, that edges lead to.
        edge_scale: factor of the loss of the edges.
        lr_factor: factor of SOLVER.BASE_LR for theta, phi, s, b and W.

    Raises:
        ValueError: for features of another size, and at a labelling of too few images.

    Cost of a step, for B images of all processes and R rows: B·R·D for the candidates, as much
    again for the logits of y, B·candidates·D·hidden for their edges, B·candidates·D floats. At a
    labelling: a neighbour search, N·D·(2 hidden + D), 512·neighbors·D floats.
    Source: Jia et al., Mind Your Clever Neighbours, arXiv:2112.01839, re-derived from the abstract:
    that a graph module mines relations in a batch and that refined features are clustered is
    theirs, every formula and number here is ours. No parity is claimed. phi starts equal to theta
    (independent ones would start with edges at random), s at 10, b at -5.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(torch.eye(2), torch.tensor([0, 1]))
    >>> loss = GraphCorrelation(feature_size=2, edge_scale=0.0)  # W is 0: MemoryContrast's value
    >>> loss(Batch.of(torch.eye(2), torch.tensor([0, 1])), memory).detach()
    tensor(0.1269)
    """

    needs_memory = True
    limits = {
        "feature_size": "[1, inf)",
        "hidden": "[1, inf)",
        "neighbors": "[1, inf)",
        "candidates": "[1, inf)",
        "edge_scale": "[0, inf)",
        "lr_factor": "(0, inf)",
    }

    def __init__(
        self,
        *,
        feature_size: int = 2048,
        hidden: int = 256,
        neighbors: int = 20,
        candidates: int = 50,
        edge_scale: float = 0.1,
        lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if candidates < neighbors:
            raise ValueError(
                f"{self.key}.CANDIDATES={candidates} must not be below NEIGHBORS={neighbors}."
            )
        self.feature_size, self.neighbors, self.candidates = feature_size, neighbors, candidates
        self.edge_scale, self.lr_factor = edge_scale, lr_factor
        self.neighbors_to_refine = candidates + 1
        self.theta = nn.Linear(feature_size, hidden, bias=False)
        self.phi = nn.Linear(feature_size, hidden, bias=False)
        self.message = nn.Linear(feature_size, feature_size, bias=False)  # W
        self.sharpness = nn.Parameter(torch.tensor(10.0))  # s
        self.bias = nn.Parameter(torch.tensor(-5.0))  # b
        with torch.no_grad():
            self.phi.weight.copy_(self.theta.weight)
            self.message.weight.zero_()

    # ---- training ---------------------------------------------------------------------------

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Of the whole batch of all processes, whose images are each other's neighbours."""
        self._check_size(batch.features)
        x = gather_rows_with_grad(batch.features)
        if x.requires_grad and world_size() > 1:
            # Averaging over processes divides what each adds for its own images alone; all of them
            # have the whole gradient of the weights, so `whole_batch` would count these twice.
            x.register_hook(lambda gradient: gradient * world_size())
        rest = (batch.targets, batch.indices, batch.cameras)
        targets, indices, cameras = (gather_rows(values) for values in rest)
        whole = Batch.of(unit(x), targets, indices=indices, cameras=cameras)
        return self._of_whole(whole, memory)

    def _of_whole(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """The loss of a batch whose features are unit rows."""
        x, targets = batch.features, batch.targets
        found, usable = self._nearest_rows(batch, memory)
        rows = F.normalize(memory.rows[found].to(x.dtype), dim=2)  # [B, m, D]
        labels = torch.cat([targets.expand(len(x), -1), memory.classes_of_rows()[found]], 1)
        logits = torch.cat([self._edges(x, x), self._edges_to_own(x, rows)], 1)  # [B, B + m]
        others = (targets >= 0) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        is_there = torch.cat([others, usable], 1)

        share = self._attention(logits, is_there)
        in_batch, in_memory = share[:, : len(x)], share[:, len(x) :]
        mean = in_batch @ x + (in_memory[:, None] @ rows)[:, 0]
        y = unit(x + self._message(mean))

        same, known = labels == targets[:, None], (labels >= 0) & (targets >= 0)[:, None]
        self.figures.add("attention_same", (share * same).sum(1), (share > 0).any(1) & known.any(1))
        edges = F.binary_cross_entropy_with_logits(logits, same.to(x.dtype), reduction="none")
        edge_loss = mean_over(edges, is_there & known)
        columns = memory.targets(batch)
        contrast = cross_entropy(
            memory.logits(y, batch),
            columns,
            mask=memory.loss_mask(batch),
            smoothing=memory.label_smoothing,
        )
        return mean_over(contrast, columns >= 0) + self.edge_scale * edge_loss

    @torch.no_grad()
    def _nearest_rows(self, batch: Batch, memory: MemoryLike) -> tuple[Tensor, Tensor]:
        """The most similar rows of the memory, i64 [B, m], and which of them count, bool [B, m].

        Not the image's own row, no row that was never filled, none of the other side: images of the
        target meet rows of the target, as at a labelling, and source images rows of sources.
        """
        rows, own = memory.rows.to(batch.features.dtype), memory.rows_of_images(batch)
        at = torch.arange(len(rows), device=rows.device)
        is_source = (batch.targets >= 0) & (batch.targets < memory.num_sources)
        usable = rows.any(1) & (at != own[:, None])
        usable &= (at < memory.num_sources) == is_source[:, None]
        cosine = (batch.features @ F.normalize(rows).T).masked_fill(~usable, LOW)
        nearest, found = cosine.topk(min(self.candidates, len(rows)), dim=1)
        return found, nearest > LOW

    def _attention(self, logits: Tensor, is_there: Tensor) -> Tensor:
        """Softmax over the largest logits of each row, [B, n]; zeros where there is no edge."""
        logits = logits.masked_fill(~is_there, LOW)
        largest, at = logits.topk(min(self.neighbors, logits.shape[1]), dim=1)
        share = largest.softmax(1) * (largest > LOW)
        return torch.zeros_like(logits).scatter(1, at, share)

    def _projected(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Unit rows of x [..., D] behind theta or phi, [..., hidden]."""
        flat = unit(F.linear(x.flatten(0, -2), layer.weight.to(x.dtype)))
        return flat.view(*x.shape[:-1], -1)

    def _message(self, mean: Tensor) -> Tensor:
        return F.linear(mean, self.message.weight.to(mean.dtype))

    def _scaled(self, cosines: Tensor) -> Tensor:
        return self.sharpness.to(cosines.dtype) * cosines + self.bias.to(cosines.dtype)

    def _edges(self, x: Tensor, others: Tensor) -> Tensor:
        """Logits of the edges of x [n, D] to others [m, D], [n, m]."""
        return self._scaled(self._projected(self.theta, x) @ self._projected(self.phi, others).T)

    def _edges_to_own(self, x: Tensor, others: Tensor) -> Tensor:
        """Logits of the edges of each of x [n, D] to others of its own [n, m, D], [n, m]."""
        ends = self._projected(self.phi, others)
        return self._scaled((ends @ self._projected(self.theta, x)[:, :, None])[..., 0])

    def _check_size(self, features: Tensor) -> None:
        if features.shape[1] != self.feature_size:
            raise ValueError(
                f"{self.key}.FEATURE_SIZE={self.feature_size} must be the size of the features,"
                f" {features.shape[1]}."
            )

    # ---- labelling --------------------------------------------------------------------------

    @torch.no_grad()
    def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
        """y [N, D] of all images, each over its most similar others; x itself while W is 0."""
        self._check_size(features)
        if len(features) <= self.neighbors:
            raise ValueError(
                f"{self.key}.NEIGHBORS={self.neighbors} needs as many other images, found"
                f" {len(features) - 1}. Lower it."
            )
        starts, ends = (self._projected(layer, features) for layer in (self.theta, self.phi))
        refined = torch.empty_like(features)
        for rows in torch.arange(len(features), device=features.device).split(_ROWS):
            near = torch.from_numpy(neighbors.indices[rows.cpu().numpy(), 1:]).to(features.device)
            logits = self._scaled((ends[near] @ starts[rows][:, :, None])[..., 0])
            largest, at = logits.topk(self.neighbors, dim=1)
            chosen = features[near.gather(1, at)]  # [512, neighbors, D]
            mean = (largest.softmax(1)[:, None] @ chosen)[:, 0]
            refined[rows] = features[rows] + self._message(mean)
        return refined
