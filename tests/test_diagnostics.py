"""Diagnostics say what a person would count by hand."""

import numpy as np
import pytest

from fastreid_cc.labels.diagnostics import cameras_per_cluster, purity, summarize, summary_line

LABELS = np.array([0, 0, 0, 1, 1, -1])
CAMERAS = np.array([0, 1, 1, 2, 2, 0])
TRUTH = np.array([7, 7, 8, 9, 9, 8])


def test_cameras_and_purity_counted_by_hand() -> None:
    assert cameras_per_cluster(LABELS, CAMERAS) == 1.5  # {0, 1} and {2}
    assert purity(LABELS, TRUTH) == pytest.approx(4 / 5)


def test_summary_of_a_small_case() -> None:
    found = summarize(LABELS, CAMERAS, TRUTH)
    assert (found["num_clusters"], found["num_outliers"]) == (2, 1)
    assert (found["size_min"], found["size_median"], found["size_max"]) == (2, 2.5, 3)
    assert 0 < found["ari"] < 1
    line = summary_line(3, found, 0.6, 1.25)
    assert line.startswith("epoch 3: 2 clusters, 1 outlier (16.7%), sizes 2/2/3")
    assert "1.5 cameras per cluster, eps 0.6, ARI" in line


def test_perfect_labels_have_ari_nmi_and_purity_one_and_no_truth_gives_none() -> None:
    found = summarize(TRUTH - 7, CAMERAS, TRUTH)
    assert found["ari"] == found["nmi"] == found["purity"] == pytest.approx(1)
    assert "ari" not in summarize(LABELS, CAMERAS)


def test_no_cluster_at_all_is_summarised_too() -> None:
    found = summarize(np.full(4, -1), np.zeros(4, dtype=np.int64), np.arange(4))
    assert found["num_clusters"] == 0 and found["outlier_share"] == 1
    assert "0 clusters" in summary_line(0, found, None, 0.0)


def test_images_of_unknown_identity_do_not_count() -> None:
    more = np.append(TRUTH, [-1, -1]), np.append(LABELS, [0, 1]), np.append(CAMERAS, [0, 0])
    found, plain = summarize(more[1], more[2], more[0]), summarize(LABELS, CAMERAS, TRUTH)
    assert [found[k] for k in ("ari", "nmi", "purity")] == [
        plain[k] for k in ("ari", "nmi", "purity")
    ]


def test_one_camera_is_not_told_as_a_figure() -> None:
    """Read as a failure by a user whose images had no camera in their names."""
    found = summarize(LABELS, np.zeros_like(CAMERAS))
    line = summary_line(0, found, None, 0.0, has_cameras=False)
    assert "camera" not in line and "camera" in summary_line(0, found, None, 0.0)
