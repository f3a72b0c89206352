import pytest
import torch

from fastreid_cc.labels.numbering import build_label_space, count_clusters

LABELS = torch.tensor([1, -1, 0, 1, -1])


@pytest.mark.parametrize(
    ("outliers", "expected"),
    [("drop", [4, -1, 3, 4, -1]), ("singleton", [4, 5, 3, 4, 6]), ("instance", [3, 4, 5, 6, 7])],
)
def test_sources_then_clusters_then_outliers(outliers, expected):
    assert build_label_space(LABELS, num_sources=3, outliers=outliers).tolist() == expected
    assert LABELS.tolist() == [1, -1, 0, 1, -1]


def test_all_outliers_and_no_images_are_legal():
    assert build_label_space(torch.full((3,), -1), outliers="singleton").tolist() == [0, 1, 2]
    assert build_label_space(LABELS[:0]).tolist() == []
    assert count_clusters(LABELS[:0]) == count_clusters(torch.tensor([-1])) == 0


def test_labels_below_minus_one_are_refused():
    with pytest.raises(ValueError, match="labels hold -2"):
        build_label_space(torch.tensor([0, -2]))
