"""Every way a clustering can collapse ends in labels to train on or in a message with the keys."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastreid_cc.labeling.collapse import CollapsedError, CollapsePolicy, recover_from_collapse
from fastreid_cc.structures import PseudoLabels


def labelled(num_clusters: int, eps: float | None = 0.5, outliers: int = 4) -> PseudoLabels:
    labels = np.concatenate([np.repeat(np.arange(num_clusters), 3), np.full(outliers, -1)])
    return PseudoLabels(labels.astype(np.int64), eps)


def recovered(
    result: PseudoLabels,
    counts: dict[float, int],
    previous: PseudoLabels | None = None,
    **policy: Any,
) -> tuple[PseudoLabels, list[float]]:
    """The labels and the radii that were read on the way; `counts` are clusters by radius."""
    rules, read = CollapsePolicy(**{"num_wanted": 8, **policy}), []

    def tried() -> Iterator[PseudoLabels]:
        for eps in rules.radii_to_try(result):
            read.append(eps)
            yield labelled(counts.get(eps, 0), eps)

    return recover_from_collapse(result, tried(), rules, previous), read


def test_enough_clusters_stand_as_they_are() -> None:
    result = labelled(8)
    assert recovered(result, {}) == (result, [])


def test_all_outliers_relax_eps_by_the_smallest_step_that_helps() -> None:
    result, read = recovered(labelled(0, outliers=40), {0.55: 3, 0.6: 9, 0.65: 20})
    assert (result.eps, result.num_clusters, read) == (0.6, 9, [0.55, 0.6])
    assert "0.5 -> 0.6" in result.note


def test_one_cluster_of_nearly_everything_tightens_eps() -> None:
    one = PseudoLabels(np.zeros(40, dtype=np.int64), 0.5)
    result, read = recovered(one, {0.45: 1, 0.4: 12})
    assert result.eps == 0.4
    assert read == [0.45, 0.4]


def test_eps_moves_no_farther_than_the_bound_and_the_graph() -> None:
    policy = CollapsePolicy(num_wanted=8, eps_bound=0.15)
    assert policy.radii_to_try(labelled(0)) == [0.55, 0.6, 0.65]
    assert policy.radii_to_try(labelled(0), largest=0.6) == [0.55, 0.6]
    assert policy.radii_to_try(labelled(0, eps=0.95)) == [1.0]
    assert policy.radii_to_try(PseudoLabels(np.zeros(9, np.int64), 0.1)) == [0.05]
    assert CollapsePolicy(num_wanted=8, eps_bound=0.0).radii_to_try(labelled(0)) == []


def test_fewer_clusters_than_p_shrink_the_batch_if_allowed() -> None:
    result, _ = recovered(labelled(5), {})
    assert result.num_clusters == 5 and "SHRINK_P" in result.note
    with pytest.raises(CollapsedError):
        recovered(labelled(5), {}, shrink=False)


def test_the_labels_before_are_kept_when_nothing_else_helps() -> None:
    previous = labelled(9)
    result, _ = recovered(labelled(0), {}, previous)
    assert result.labels is previous.labels and "KEEP_PREVIOUS" in result.note
    with pytest.raises(CollapsedError):
        recovered(labelled(0), {}, previous, keep_previous=False)


def test_the_last_word_names_what_was_found_wanted_and_the_keys() -> None:
    with pytest.raises(CollapsedError) as caught:
        recovered(labelled(1), {})
    for part in ("1 cluster", "eps 0.5", "wants 8", "CC.COLLAPSE.EPS_BOUND", "CC.WARMUP.EPOCHS"):
        assert part in str(caught.value)


def test_a_clusterer_without_eps_is_not_asked_again() -> None:
    assert CollapsePolicy(num_wanted=8).radii_to_try(labelled(0, eps=None)) == []
    with pytest.raises(CollapsedError):
        recovered(labelled(0, eps=None), {})
