"""Whether training helped, said without identities: one figure before and after, and its words.

The figure is `mirror_rank`: how surely an image is found among all by its mirror image. How far
it goes with mAP was measured (`benchmarks/helped.py`, docs/own-images.md).
"""

from __future__ import annotations

#: A fall of the figure by more than this is warned of.
MARGIN = 0.03


def is_worse(before: float, after: float) -> bool:
    """Whether the figure fell by more than the margin; a figure that is no number did."""
    return not after >= before - MARGIN


def sentence(before: float, after: float) -> str:
    """The comparison in a line."""
    return (
        "trained model against the one it started from, without identities: images found by their"
        f" mirror image (mirror_rank, 1 = all) {before:.3f} → {after:.3f}"
    )


def warning(before: float, after: float) -> str:
    """What is said of a network that is worse, and what to do."""
    return (
        "The trained model looks worse than the one it started from: fewer images are found by"
        f" their mirror image (mirror_rank {before:.3f} → {after:.3f}, a fall of more than"
        f" {MARGIN}). Lower SOLVER.BASE_LR or SOLVER.MAX_EPOCH, or keep the starting weights; look"
        " at both by `report`. How far it fell does not tell how much was lost, it may miss harm"
        " and be wrong: docs/own-images.md says what was measured."
    )
