"""Every way a clustering can collapse ends in labels to train on or in a message with the keys."""

import numpy as np
import pytest

from fastreid_cc.labeling.collapse import CollapsedError, CollapsePolicy, recover_from_collapse
from fastreid_cc.structures import PseudoLabels


def labelled(num_clusters: int, eps: float | None = 0.5, outliers: int = 4) -> PseudoLabels:
    labels = np.concatenate([np.repeat(np.arange(num_clusters), 3), np.full(outliers, -1)])
    return PseudoLabels(labels.astype(np.int64), eps)


class Table:
    """Labels by eps, as a labeller would give them for its last graph."""

    def __init__(self, counts: dict[float, int]) -> None:
        self.counts, self.asked = counts, []

    def relabel(self, eps: float) -> PseudoLabels:
        self.asked.append(eps)
        return labelled(self.counts.get(eps, 0), eps)


def test_enough_clusters_stand_as_they_are() -> None:
    table = Table({})
    result = labelled(8)
    assert recover_from_collapse(result, table, CollapsePolicy(num_wanted=8), None) == (result, "")
    assert table.asked == []


def test_all_outliers_relax_eps_by_the_smallest_step_that_helps() -> None:
    table = Table({0.55: 3, 0.6: 9, 0.65: 20})
    result, note = recover_from_collapse(
        labelled(0, outliers=40), table, CollapsePolicy(num_wanted=8), None
    )
    assert (result.eps, result.num_clusters) == (0.6, 9)
    assert "0.5 -> 0.6" in note


def test_one_cluster_of_nearly_everything_tightens_eps() -> None:
    table = Table({0.45: 1, 0.4: 12})
    one = PseudoLabels(np.zeros(40, dtype=np.int64), 0.5)
    result, _ = recover_from_collapse(one, table, CollapsePolicy(num_wanted=8), None)
    assert result.eps == 0.4
    assert table.asked == [0.45, 0.4]


def test_eps_moves_no_farther_than_the_bound() -> None:
    table = Table({0.75: 30})
    with pytest.raises(CollapsedError):
        recover_from_collapse(
            labelled(0), table, CollapsePolicy(num_wanted=8, eps_bound=0.15), None
        )
    assert table.asked == [0.55, 0.6, 0.65]
    table = Table({0.55: 30})
    with pytest.raises(CollapsedError):
        recover_from_collapse(labelled(0), table, CollapsePolicy(num_wanted=8, eps_bound=0.0), None)
    assert table.asked == []


def test_fewer_clusters_than_p_shrink_the_batch_if_allowed() -> None:
    result, note = recover_from_collapse(labelled(5), Table({}), CollapsePolicy(num_wanted=8), None)
    assert result.num_clusters == 5 and "SHRINK_P" in note
    with pytest.raises(CollapsedError):
        recover_from_collapse(
            labelled(5), Table({}), CollapsePolicy(num_wanted=8, shrink=False), None
        )


def test_the_labels_before_are_kept_when_nothing_else_helps() -> None:
    previous = labelled(9)
    result, note = recover_from_collapse(
        labelled(0), Table({}), CollapsePolicy(num_wanted=8), previous
    )
    assert result is previous and "KEEP_PREVIOUS" in note
    with pytest.raises(CollapsedError):
        recover_from_collapse(
            labelled(0), Table({}), CollapsePolicy(num_wanted=8, keep_previous=False), previous
        )


def test_the_last_word_names_what_was_found_wanted_and_the_keys() -> None:
    with pytest.raises(CollapsedError) as caught:
        recover_from_collapse(labelled(1), Table({}), CollapsePolicy(num_wanted=8), None)
    for part in ("1 cluster", "eps 0.5", "wants 8", "CC.COLLAPSE.EPS_BOUND", "CC.WARMUP.EPOCHS"):
        assert part in str(caught.value)


def test_a_clusterer_without_eps_is_not_asked_again() -> None:
    table = Table({})
    with pytest.raises(CollapsedError):
        recover_from_collapse(labelled(0, eps=None), table, CollapsePolicy(num_wanted=8), None)
    assert table.asked == []
