"""Whether a training helps, said without identities: a figure before and after, early signs, words.

The figure is `mirror_rank`: how surely an image is found among all by its mirror image. How far
it goes with mAP was measured (`benchmarks/helped.py`, docs/own-images.md).
"""

from __future__ import annotations

from collections.abc import Mapping

#: Above this share of outliers there is little to learn from.
MOST_OUTLIERS = 0.65
#: Labels less alike than this from one labelling to the next (ARI) tell nothing; from the third
#: labelling on. In the runs of docs/own-images.md that gained it was .35 and more by then.
LEAST_ALIKE = 0.3
#: Share of `open_set.wrong_answers` by the first clusters above which these may not be individuals.
#: Between a folder where nothing was learnt (.167) and five where training helped (.086 to .134).
MOST_WRONG = 0.15
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


def start_warning(wrong: float) -> str:
    """What is said of first clusters that given weights cannot tell apart; "" if they can.

    Args:
        wrong: `open_set.wrong_answers` of the features that training starts from.
    """
    if wrong <= MOST_WRONG:
        return ""
    return (
        "The first clusters may not be of individuals: were half of them enrolled by half of their"
        f" images, {100 * wrong:.0f} % of the answers to the others would be wrong by the best"
        " threshold (9 to 13 % in folders where training helped). They may be of poses or places,"
        " or the starting weights know nobody here, and training then learns that: look at"
        " `report`, measure a few individuals, or start from weights of more similar images."
    )


def early_warning(epoch: int, summary: Mapping[str, float]) -> str:
    """Why a labelling is perhaps not fit to learn from, and what to do; "" if nothing is seen.

    Args:
        epoch: that it is made before, from 0.
        summary: `outlier_share`, and from the second on `stability`, the ARI with the labelling
            before. No identity.

    >>> early_warning(0, {"outlier_share": 0.3}), early_warning(3, {"outlier_share": 0.9})[:30]
    ('', 'This folder may not be fit for')
    """
    signs = []
    if (share := summary["outlier_share"]) > MOST_OUTLIERS:
        signs.append(f"{100 * share:.0f} % of the images are in no cluster")
    alike = summary.get("stability", 1.0)
    if epoch >= 2 and alike < LEAST_ALIKE:
        signs.append(f"the labels have little to do with those before (ARI {alike:.2f})")
    if not signs:
        return ""
    return (
        f"This folder may not be fit for label-free training as configured: {' and '.join(signs)}."
        " Individuals may have too few images, or the starting weights may not tell them apart."
        " Try weights trained on more similar images, CC.FOLDER.CAMERA, or another"
        " CC.CLUSTER.DBSCAN.EPS; CC.KEEP_START True keeps the start where training harmed."
    )
