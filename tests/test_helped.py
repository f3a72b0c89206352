"""The comparison without identities: who is warned of, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastreid_cc.labels.feature_figures import view_rank
from fastreid_cc.labels.helped import (
    MARGIN,
    early_warning,
    is_worse,
    sentence,
    start_warning,
    warning,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def rank(spread: float) -> float:
    """Of 200 images whose mirror images lie this far from them."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 16))
    return view_rank(unit(features), unit(features + spread * generator.normal(size=(200, 16))))


def test_features_that_confuse_images_are_warned_of_and_others_are_not() -> None:
    start, good, harmed = rank(0.4), rank(0.3), rank(1.5)
    assert not is_worse(start, good) and is_worse(start, harmed)
    line = "(mirror_rank, 1 = all) {:.3f} → {:.3f}"
    assert line.format(start, good) in sentence(start, good)
    for word in ("SOLVER.BASE_LR", "SOLVER.MAX_EPOCH", "starting weights", "docs/own-images.md"):
        assert word in warning(start, harmed)


@pytest.mark.parametrize(
    ("after", "is_said"),
    [(0.9, False), (0.9 - MARGIN / 2, False), (0.9 - 2 * MARGIN, True), (math.nan, True)],
)
def test_a_fall_within_the_margin_is_none(after: float, is_said: bool) -> None:
    assert is_worse(0.9, after) is is_said


def test_first_clusters_that_cannot_be_told_apart_are_warned_of() -> None:
    assert start_warning(0.134) == "" and "21 % of the answers" in start_warning(0.21)


def test_labels_that_are_nearly_all_outliers_or_never_alike_are_warned_of_early() -> None:
    assert early_warning(0, {"outlier_share": 0.5}) == ""
    assert "70 % of the images are in no cluster" in early_warning(0, {"outlier_share": 0.7})
    unlike = {"outlier_share": 0.1, "stability": 0.1}
    assert early_warning(1, unlike) == ""  # the second labelling differs from the first in any run
    assert "(ARI 0.10)" in early_warning(2, unlike)
    assert early_warning(2, {"outlier_share": 0.1, "stability": 0.4}) == ""
