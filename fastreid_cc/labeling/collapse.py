"""What to do when clustering collapses: no cluster, one cluster, or too few to fill a batch.

In this order: move eps within a stated bound; let the batch shrink to the clusters there are; train
on with the last labels; stop with a message that names the keys. Never a hang, never an empty
loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..structures import PseudoLabels

EPS_STEP = 0.05


class Relabels(Protocol):
    """What `recover_from_collapse` needs of a labeller."""

    def relabel(self, eps: float) -> PseudoLabels:
        """Clusters the last graph again at another radius."""


@dataclass(frozen=True)
class CollapsePolicy:
    """Bounds of the way out of a collapse.

    Args:
        num_wanted: clusters that fill a batch, P.
        eps_bound: how far eps may move either way; 0 = it stays.
        shrink: fewer clusters than P, but at least 2, are enough.
        keep_previous: the last labels are better than stopping.
    """

    num_wanted: int
    eps_bound: float = 0.15
    shrink: bool = True
    keep_previous: bool = True


class CollapsedError(ValueError):
    """Clustering gave nothing to train on, and the policy has no way out."""


def recover_from_collapse(
    result: PseudoLabels, labeler: Relabels, policy: CollapsePolicy, previous: PseudoLabels | None
) -> tuple[PseudoLabels, str]:
    """Labels one can train on, and what was done to get them ("" if nothing).

    Args:
        result: a labelling; it stands if it has `num_wanted` clusters.
        labeler: clusters the same graph again at another eps.
        policy: what is allowed.
        previous: the last labelling that was trained on, if any.

    Raises:
        CollapsedError: if no way out is left; the message names the keys.
    """
    if result.num_clusters >= policy.num_wanted:
        return result, ""
    best = _move_eps(result, labeler, policy)
    if best.num_clusters >= policy.num_wanted:
        return best, f"{result.num_clusters} clusters; eps moved {result.eps:.3g} -> {best.eps:.3g}"
    if policy.shrink and best.num_clusters >= 2:
        moved = "" if best is result else f"; eps moved {result.eps:.3g} -> {best.eps:.3g}"
        return best, (
            f"{best.num_clusters} clusters, fewer than the {policy.num_wanted} of a batch{moved};"
            " batches shrink (CC.COLLAPSE.SHRINK_P)"
        )
    if policy.keep_previous and previous is not None:
        return previous, (
            f"{result.num_clusters} clusters; the labels before are kept"
            " (CC.COLLAPSE.KEEP_PREVIOUS)"
        )
    outliers = result.num_outliers / max(len(result.labels), 1)
    raise CollapsedError(
        f"Clustering gave {result.num_clusters} cluster(s) and {outliers:.0%} outliers"
        + (f" at eps {result.eps:.3g}" if result.eps is not None else "")
        + f"; a batch wants {policy.num_wanted} (SOLVER.IMS_PER_BATCH / DATALOADER.NUM_INSTANCE)."
        f" Moving eps by up to CC.COLLAPSE.EPS_BOUND={policy.eps_bound} gave"
        f" {best.num_clusters}. Raise eps if nearly all are outliers, lower it if one cluster holds"
        " all; from random weights set CC.WARMUP.EPOCHS; see the eps sweep in the docs."
    )


def _move_eps(result: PseudoLabels, labeler: Relabels, policy: CollapsePolicy) -> PseudoLabels:
    """The labelling with the most clusters within the bound; the smallest move wins ties."""
    best = result
    if result.eps is None:
        return best
    too_wide = (result.labels >= 0).mean() > 0.5 if len(result.labels) else False
    steps = np.arange(1, int(policy.eps_bound / EPS_STEP + 1e-9) + 1) * EPS_STEP
    for step in steps:
        eps = round(float(result.eps - step if too_wide else result.eps + step), 6)
        if not 0 < eps <= 1:
            break
        tried = labeler.relabel(eps)
        if tried.num_clusters > best.num_clusters:
            best = tried
        if best.num_clusters >= policy.num_wanted:
            break
    return best
