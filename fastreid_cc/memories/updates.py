"""Row updates that memories share, vectorised over clusters and equal to the sequential rule.

All take rows f32 [R, D] (changed in place), index i64 [B] (row of each sample, < 0 = skipped),
features f32 [B, D] and momentum (weight of the old row). Identical inputs give identical bytes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def is_padded(index: Tensor) -> bool:
    """Whether `representatives` repeats rows instead of asking the device how many there are."""
    return index.is_cuda


def representatives(index: Tensor, key: Tensor | None = None) -> Tensor:
    """Positions in the batch, the sample of least `key` (then least position) for each row.

    On the CPU each row met appears once. On CUDA, where the number of distinct rows cannot be known
    without waiting for the device, there are B positions, with repetitions; skipped samples repeat
    the first row's. Either way the rows of the positions ascend.
    """
    order = torch.arange(len(index), device=index.device)
    if key is not None:
        order = torch.argsort(key, stable=True)
    order = order[torch.argsort(index[order], stable=True)]
    ordered = index[order]
    start = torch.searchsorted(ordered, ordered)
    if not is_padded(index):
        return order[(start == torch.arange(len(index), device=index.device)) & (ordered >= 0)]
    first = (ordered < 0).sum().clamp(max=len(index) - 1)
    return order[torch.where(ordered < 0, first, start)]


def blend(rows: Tensor, index: Tensor, values: Tensor, momentum: float) -> None:
    """rows[index] <- unit(momentum * old + (1 - momentum) * values); equal rows, equal values."""
    if momentum == 1.0 or not len(index):
        return
    slots = index.clamp(min=0)
    old = rows[slots]
    new = F.normalize(momentum * old + (1 - momentum) * values)
    rows[slots] = torch.where(index[:, None] >= 0, new, old)


def update_all(rows: Tensor, index: Tensor, features: Tensor, momentum: float) -> None:
    """Every sample moves its row, in batch order, as if one by one.

    Rows do not depend on one another, so the k-th samples of all rows move together: K rounds on
    [P, D] for P rows met at most K times.

    Cost: O(B·D). The host reads the round sizes, B integers: free if `index` is on the CPU (rows
    may still be on CUDA), one small wait for the device otherwise.
    """
    if momentum == 1.0 or not len(index):
        return
    size = len(index)
    order = torch.argsort(index, stable=True)
    ordered = index[order]
    start = torch.searchsorted(ordered, ordered)
    count = torch.searchsorted(ordered, ordered, right=True) - start
    occurrence = torch.arange(size, device=index.device) - start
    occurrence = torch.where(ordered < 0, size, occurrence)
    # rounds in order; in a round the rows that will meet most rounds first, so rounds are prefixes
    plan = torch.argsort(occurrence * (size + 1) - count, stable=True)
    per_round = occurrence.new_zeros(size + 1).scatter_add_(
        0, occurrence, torch.ones_like(occurrence)
    )
    sizes = [n for n in per_round[:size].tolist() if n]
    if not sizes:
        return
    order = order[plan][: sum(sizes)]
    slots = index[order[: sizes[0]]].to(rows.device, non_blocking=True)
    moving = rows[slots]  # [P, D]
    parts = features[order.to(rows.device, non_blocking=True)].mul_(1 - momentum).split(sizes)
    for part in parts:
        row = moving[: len(part)]
        torch.add(part, row, alpha=momentum, out=row)
        row.div_(torch.linalg.vector_norm(row, dim=1, keepdim=True).clamp_(min=1e-12))
    rows[slots] = moving


def update_hard(rows: Tensor, index: Tensor, features: Tensor, momentum: float) -> None:
    """One sample per row moves it: the one least similar to the row as it was; ties by position.

    Cost: O(B·D); no host synchronisation.
    """
    index = index.to(rows.device)
    similarity = (features * rows[index.clamp(min=0)]).sum(1)
    update_least(rows, index, features, momentum, similarity)


def update_mean(
    rows: Tensor, index: Tensor, features: Tensor, momentum: float, *, unit_means: bool = False
) -> None:
    """The mean of a row's samples, scaled to unit length first if asked, moves it once.

    Cost: O(P·B·D) on the CPU, O(B²·D) on CUDA; no host synchronisation.
    """
    index = index.to(rows.device)
    chosen = representatives(index)
    slots = index[chosen]
    members = (slots[:, None] == index).to(features.dtype)
    means = members @ features / members.sum(1, keepdim=True)
    if unit_means:
        means = F.normalize(means)
    means = means[torch.searchsorted(slots, slots)]  # repeated slots carry the same bytes
    blend(rows, slots, means, momentum)


def update_least(
    rows: Tensor, index: Tensor, features: Tensor, momentum: float, key: Tensor
) -> None:
    """One sample per row moves it: the one with the least `key`, [B]; ties by position."""
    index = index.to(rows.device)
    chosen = representatives(index, key)
    blend(rows, index[chosen], features[chosen], momentum)


#: Rules by the name that CC.MEMORY.*.UPDATE gives them; "random" needs a draw more.
RULES = {"all": update_all, "hard": update_hard, "mean": update_mean}


def group_sums(features: Tensor, labels: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Sum of each group's features, [num_groups, D], and its size, i64 [num_groups].

    Rows with label < 0 are left out. Summed in dataset order on every device, so that ranks get the
    same bytes.

    Raises:
        ValueError: if a group in 0..num_groups-1 has no row.

    Cost: O(N·D) time, one copy of the features.
    """
    kept = labels[labels >= 0]
    sizes = torch.bincount(kept, minlength=num_groups)
    if bool((sizes == 0).any()):
        empty = torch.nonzero(sizes == 0)[:5, 0].tolist()
        raise ValueError(f"clusters {empty} of 0..{num_groups - 1} have no image.")
    if not num_groups:
        return features[:0], sizes
    order = torch.argsort(labels, stable=True)[len(labels) - len(kept) :]
    return torch.segment_reduce(features[order], "sum", lengths=sizes, axis=0), sizes


def group_means(features: Tensor, labels: Tensor, num_groups: int) -> Tensor:
    """Mean feature of each group, [num_groups, D]; see `group_sums`."""
    sums, sizes = group_sums(features, labels, num_groups)
    return sums / sizes[:, None]
