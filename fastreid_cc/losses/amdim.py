"""AMDIM: a view of an image is told from others by locations of another view of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadConfig
from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, mean_over, unit, whole_batch


@LOSSES.register()
class AMDIM(Loss):
    """Maximises the information that views of an image share, over locations and scales.

    A vector of one view is to be told, among the locations of the other views of all images, to
    belong to those of its own image. Vectors are the feature of the whole image (1), and those at
    the locations of a fine map (7 in the paper) and of a coarse map (5). The loss is the sum of the
    terms 1 to 5, 1 to 7 and 5 to 5, each the mean over vectors a and own locations b of

        -log(exp s(a, b) / (exp s(a, b) + sum of exp s(a, .) over the locations of other images)),

    and of `penalty` times the mean of the squared scores of each term. Scores are inner products
    over sqrt(D); they are brought into (-clip, clip) by clip·tanh(score / clip) after the penalty.
    All ordered pairs of different views count, so two views give both directions.

    Works in the warm-up: CC.WARMUP.LOSSES ("AMDIM",) and CC.WARMUP.VIEWS 2.

    Args:
        feature_size: size of the features, D.
        fine_layer: layer of the backbone with the fine map; of a sequence its last entry counts.
        coarse_layer: layer with the coarse map.
        fine_channels: channels of the fine map.
        coarse_channels: channels of the coarse map.
        fine_rows: the fine map is pooled to so many rows, the coarse map to half as many.
        fine_columns: the same of columns.
        clip: bound of the scores, c.
        penalty: factor of the mean squared score.
        lr_factor: factor of SOLVER.BASE_LR for the heads, which start from random weights.

    Cost for R rows of all processes and L locations of the fine map: R²·L·D time and about four
    times R²·L floats for 1 to 7, as much for 5 to 5 with (L/4)² in place of L; heads of D·(2C + D)
    weights for each map. Source: Bachman et al., arXiv:1906.00910, as used for few-shot learning by
    Chen et al., arXiv:1911.06045. Differs from the authors' code: vectors have length sqrt(D), in
    place of batch norm in the heads; 5 to 5 starts from all locations, the expectation of the one
    drawn there; a common backbone with padding; with more than two views, all others together.

    At scores of 0 each term is log(1 + (B - 1)·L), for B images in two views:

    >>> size = {"feature_size": 2, "fine_channels": 1, "coarse_channels": 1}
    >>> loss = AMDIM(**size, fine_rows=2, fine_columns=2)
    >>> maps = {"fine_map": torch.zeros(4, 1, 2, 2), "coarse_map": torch.zeros(4, 1, 1, 1)}
    >>> views = torch.tensor([0, 1, 0, 1])
    >>> loss(Batch.of(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), views=views, **maps))
    tensor(2.9957, grad_fn=<AddBackward0>)
    """

    needs_views = True
    limits = {
        "feature_size": "[1, inf)",
        "fine_channels": "[1, inf)",
        "coarse_channels": "[1, inf)",
        "fine_rows": "[1, 64]",
        "fine_columns": "[1, 64]",
        "clip": "(0, inf)",
        "penalty": "[0, inf)",
        "lr_factor": "(0, inf)",
    }

    def __init__(
        self,
        *,
        feature_size: int = 2048,
        fine_layer: str = "layer2",
        coarse_layer: str = "layer4",
        fine_channels: int = 512,
        coarse_channels: int = 2048,
        fine_rows: int = 8,
        fine_columns: int = 4,
        clip: float = 20.0,
        penalty: float = 0.05,
        lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.feature_size, self.clip, self.penalty = feature_size, clip, penalty
        self.fine_layer, self.coarse_layer, self.lr_factor = fine_layer, coarse_layer, lr_factor
        self.fine_grid = fine_rows, fine_columns
        self.coarse_grid = -(-fine_rows // 2), -(-fine_columns // 2)
        self.fine_head = LocationHead(fine_channels, feature_size)
        self.coarse_head = LocationHead(coarse_channels, feature_size)

    @property
    def maps(self) -> dict[str, str]:
        """The layers of the two maps."""
        return {"fine_map": self.fine_layer, "coarse_map": self.coarse_layer}

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Sum of the three terms and their penalties, of the rows of all processes."""
        whole, fine, coarse = self._vectors(batch)
        assert batch.views is not None
        targets, views = gather_rows(batch.targets), gather_rows(batch.views)
        valid = (targets >= 0) & (targets >= 0)[:, None]
        apart = valid & (views != views[:, None])
        same = targets == targets[:, None]
        loss = whole.sum() * 0
        for own, other in ((whole, coarse), (whole, fine), (coarse, coarse)):
            loss = loss + self._term(own, other, apart & same, apart & ~same)
        return whole_batch(loss)

    def _vectors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of length sqrt(D), of all processes: whole [R, 1, D], fine and coarse [R, L, D].

        Raises:
            BadConfig: if the batch holds no views or maps, or they have another size.
        """
        if batch.views is None or batch.fine_map is None or batch.coarse_map is None:
            raise BadConfig(
                "AMDIM compares views of an image by maps of the backbone, and the batch holds"
                " none: it belongs into CC.WARMUP.LOSSES, with CC.WARMUP.VIEWS 2."
            )
        x = batch.features
        self._check_size("FEATURE_SIZE", self.feature_size, x.shape[1], "the features'")
        found = [x[:, None]]
        for name, head, grid, maps in (
            ("FINE", self.fine_head, self.fine_grid, batch.fine_map),
            ("COARSE", self.coarse_head, self.coarse_grid, batch.coarse_map),
        ):
            layer = self.maps[f"{name.lower()}_map"]
            self._check_size(f"{name}_CHANNELS", head.channels, maps.shape[1], f"{layer}'s")
            pooled = F.adaptive_avg_pool2d(maps.to(x.dtype), grid)  # [B, C, rows, columns]
            found.append(head(pooled.flatten(2).transpose(1, 2)))  # [B, L, D]
        length = self.feature_size**0.5
        scaled = (length * unit(v.flatten(0, 1)).view_as(v) for v in found)
        whole, fine, coarse = (gather_rows_with_grad(v) for v in scaled)
        return whole, fine, coarse

    def _check_size(self, name: str, wanted: int, size: int, whose: str) -> None:
        if size != wanted:
            raise BadConfig(f"{self.key}.{name}={wanted} must be {whose} size, {size}.")

    def _term(self, own: Tensor, other: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """One term with its penalty.

        Args:
            own: [R, K, D], vectors to tell from. other: [R, L, D], locations to tell.
            positive, negative: bool [R, R], whether row j shows row i's image in another view, or
                another image in another view than i's.
        """
        rows, size = len(own), self.feature_size
        raw = own.flatten(0, 1) @ other.flatten(0, 1).T / size**0.5
        raw = raw.view(rows, own.shape[1], rows, other.shape[1])  # [R, K, R, L]
        s = self.clip * torch.tanh(raw / self.clip)
        positive, negative = (m[:, None, :, None].expand_as(s) for m in (positive, negative))
        others = s.masked_fill(~negative, LOW).flatten(2).logsumexp(2)[..., None, None]
        losses = torch.logaddexp(s, others) - s
        penalty = mean_over(raw.square(), positive | negative)
        return mean_over(losses, positive) + self.penalty * penalty


class LocationHead(nn.Module):
    """x -> E x + W relu(V x) at every location, E an identity at the start; without biases.

    Args:
        channels: size of x, C.
        size: size of the result, D.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        self.straight = nn.Linear(channels, size, bias=False)
        self.hidden = nn.Linear(channels, size, bias=False)
        self.out = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.straight.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., D], in the precision of x."""
        layers = self.straight, self.hidden, self.out
        straight, hidden, out = (layer.weight.to(x.dtype) for layer in layers)
        return F.linear(x, straight) + F.linear(F.relu(F.linear(x, hidden)), out)
