"""What to do when clustering collapses: no cluster, one cluster, or too few to fill a batch.

In this order: move eps within a stated bound; let the batch shrink to the clusters there are; train
on with the last labels; stop with a message that names the keys. Never a hang, never an empty
loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ClearError
from ..structures import PseudoLabels

EPS_STEP = 0.05


@dataclass(frozen=True)
class CollapsePolicy:
    """Bounds of the way out of a collapse.

    Args:
        num_wanted: clusters that fill a batch, P.
        eps_bound: how far eps may move either way; 0 = it stays.
        shrink: fewer clusters than P, but at least 2, are enough.
        keep_previous: the last labels are better than stopping.

    >>> collapsed = PseudoLabels(np.full(40, -1), eps=0.5)
    >>> CollapsePolicy(num_wanted=8).radii_to_try(collapsed)
    [0.55, 0.6, 0.65]
    """

    num_wanted: int
    eps_bound: float = 0.15
    shrink: bool = True
    keep_previous: bool = True

    def radii_to_try(self, result: PseudoLabels, largest: float = 1.0) -> list[float]:
        """Other radii for a labelling that collapsed, the smallest move first; [] without a radius.

        Tighter ones where most images are in a cluster, looser ones otherwise.

        Args:
            result: the labelling.
            largest: no radius above it.
        """
        if result.eps is None:
            return []
        too_wide = len(result.labels) > 0 and (result.labels >= 0).mean() > 0.5
        steps = np.arange(1, int(self.eps_bound / EPS_STEP + 1e-9) + 1) * EPS_STEP
        radii = [round(float(result.eps + (-step if too_wide else step)), 6) for step in steps]
        return [radius for radius in radii if 0 < radius <= largest + 1e-6]  # 1e-6: as rounded


class CollapsedError(ClearError, ValueError):
    """Clustering gave nothing to train on, and the policy has no way out.

    >>> nothing = PseudoLabels(np.full(4, -1), eps=0.5)
    >>> recover_from_collapse(nothing, [], CollapsePolicy(num_wanted=2))
    Traceback (most recent call last):
    fastreid_cc.labeling.collapse.CollapsedError: Clustering gave 0 cluster(s) and 100% outliers...
    """


def recover_from_collapse(
    result: PseudoLabels,
    tried: Iterable[PseudoLabels],
    policy: CollapsePolicy,
    previous: PseudoLabels | None = None,
) -> PseudoLabels:
    """Labels one can train on; their `note` says what was done to get them.

    Args:
        result: a labelling; it stands if it has `num_wanted` clusters.
        tried: the same images at `policy.radii_to_try(result)`; read only as far as needed. That
            with the most clusters is taken, the smallest move among equals.
        policy: what is allowed.
        previous: the last labelling that was trained on, if any.

    Raises:
        CollapsedError: if no way out is left; the message names the keys.

    >>> none, some = PseudoLabels(np.full(4, -1), 0.5), PseudoLabels(np.array([0, 0, 1, 1]), 0.55)
    >>> recover_from_collapse(none, [some], CollapsePolicy(num_wanted=2)).note
    '0 clusters; eps moved 0.5 -> 0.55'
    """
    if result.num_clusters >= policy.num_wanted:
        return result
    best = result
    for other in tried:
        if other.num_clusters > best.num_clusters:
            best = other
        if best.num_clusters >= policy.num_wanted:
            break
    moved = "" if best is result else f"; eps moved {result.eps:.3g} -> {best.eps:.3g}"
    if best.num_clusters >= policy.num_wanted:
        return replace(best, note=f"{result.num_clusters} clusters{moved}")
    if policy.shrink and best.num_clusters >= 2:
        note = (
            f"{best.num_clusters} clusters, fewer than the {policy.num_wanted} of a batch{moved};"
            " batches shrink (CC.COLLAPSE.SHRINK_P)"
        )
        return replace(best, note=note)
    if policy.keep_previous and previous is not None:
        note = (
            f"{result.num_clusters} clusters; the labels before are kept"
            " (CC.COLLAPSE.KEEP_PREVIOUS)"
        )
        return replace(previous, note=note)
    outliers = result.num_outliers / max(len(result.labels), 1)
    raise CollapsedError(
        f"Clustering gave {result.num_clusters} cluster(s) and {outliers:.0%} outliers"
        + (f" at eps {result.eps:.3g}" if result.eps is not None else "")
        + f"; a batch wants {policy.num_wanted} (SOLVER.IMS_PER_BATCH / DATALOADER.NUM_INSTANCE)."
        f" Moving eps by up to CC.COLLAPSE.EPS_BOUND={policy.eps_bound} gave"
        f" {best.num_clusters}. Raise eps if nearly all are outliers, lower it if one cluster holds"
        " all; from random weights set CC.WARMUP.EPOCHS; see the eps sweep in the docs."
    )
