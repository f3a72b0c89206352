"""Links are honoured exactly, change nothing else, and come out of tracklets in a stated order."""

from __future__ import annotations

from itertools import combinations

import engine
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import assume, example, given, settings
from oracles import labels as oracle

from fastreid_cc.data.tracks import Tracks
from fastreid_cc.labeling.answers import Answers, read_answers
from fastreid_cc.labeling.clusterers.components import ConnectedComponents
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.clusterers.hdbscan import HDBSCAN
from fastreid_cc.labeling.clusterers.kmeans import KMeans
from fastreid_cc.labeling.collapse import CollapsePolicy
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.links import LinkedGraph, Links
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
from fastreid_cc.labeling.refiners.min_size import MinimumSize
from fastreid_cc.labeling.refiners.self_paced import SelfPaced
from fastreid_cc.labeling.tracklets import Linker, LinkOptions, cut, overlapping
from fastreid_cc.labels.diagnostics import summarize
from fastreid_cc.labels.numbering import number_by_first_image
from fastreid_cc.structures import PseudoLabels

FEATURES = oracle.small_clouds(0, 120)
SHORT = JaccardDistance(k1=12, k2=4)
CLUSTERERS = (DBSCAN(), ConnectedComponents(eps=0.5), HDBSCAN())


def links(must=(), cannot=()):
    return Links(*(np.array(pairs, np.int64).reshape(-1, 2) for pairs in (must, cannot)))


def random_links(seed, images, musts=12, cannots=12):
    """Links that do not contradict each other."""
    generator = np.random.default_rng(seed)
    must = generator.integers(0, images, (musts, 2))
    group = links(must).groups(images)
    pairs = generator.integers(0, images, (cannots, 2))
    return links(must, pairs[group[pairs[:, 0]] != group[pairs[:, 1]]])


def broken(found, labels):
    """Every link that labels do not honour."""
    group = found.groups(len(labels))
    wrong = [g for g in set(group) if len(set(labels[group == g])) > 1]
    pairs = [(a, b) for a, b in found.cannot.tolist() if labels[a] == labels[b] >= 0]
    return wrong + pairs


def graph_of(seed, images, share=0.5):
    """Random distances, all different, of a share of the pairs."""
    generator = np.random.default_rng(seed)
    i, j = np.triu_indices(images, 1)
    kept = generator.random(len(i)) < share
    i, j = i[kept], j[kept]
    far = generator.permutation(np.linspace(0.05, 1, len(i))).astype(np.float32)
    table = sp.coo_array((np.r_[far, far], (np.r_[i, j], np.r_[j, i])), shape=(images, images))
    return sp.csr_array(table)


def slowly(found, graph, labels, eps):
    """What `LinkedGraph.labels` promises, by loops over images and pairs."""
    images, group = len(labels), found.groups(len(labels))
    table = graph.toarray()
    table[table == 0] = np.inf
    table[table > np.float32(eps)] = np.inf
    foes = {frozenset((group[a], group[b])) for a, b in found.cannot}
    for i, j in combinations(range(images), 2):
        if frozenset((group[i], group[j])) in foes:
            table[i, j] = table[j, i] = np.inf
    one = labels.copy()
    for g in range(group.max() + 1):
        own = np.flatnonzero(group == g)
        votes = [label for label in labels[own] if label >= 0]
        others = [j for j in range(images) if group[j] != g]

        def rank(label, own=own, votes=votes, others=others):
            near = [table[i, j] for i in own for j in others if labels[j] == label]
            return -votes.count(label), min(near, default=np.inf), label

        one[own] = min(set(votes), key=rank) if votes else -1
    result = one.copy()
    for label in set(one[one >= 0]):
        own = np.flatnonzero(one == label)
        parts = [{i for i in own if group[i] == g} for g in set(group[own])]

        def bad(union):
            return any(frozenset((group[a], group[b])) in foes for a in union for b in union)

        if not bad(own):
            continue
        near = sorted((table[i, j], i, j) for i, j in combinations(own, 2))
        for distance, i, j in near:
            a, b = (next(part for part in parts if x in part) for x in (i, j))
            if np.isfinite(distance) and a is not b and not bad(a | b):
                parts = [part for part in parts if part is not a and part is not b] + [a | b]
        for part in parts:
            fresh = -1 if len(part) < 2 else result.max() + 1
            result[list(part)] = fresh
    return number_by_first_image(result)


@given(seed=st.integers(0, 10**6), images=st.integers(2, 14), eps=st.sampled_from([0.3, 0.6, 1.0]))
@settings(max_examples=60, deadline=None)
def test_labels_are_those_of_the_slow_loop_and_honour_every_link(seed, images, eps):
    found, graph = random_links(seed, images, 3, 6), graph_of(seed, images)
    labels = number_by_first_image(np.random.default_rng(seed).integers(-1, 3, images))
    linked, before = LinkedGraph(found, graph), labels.copy()
    ours = linked.labels(labels, eps)
    assert broken(found, ours) == []
    np.testing.assert_array_equal(ours, slowly(found, graph, labels, eps))
    np.testing.assert_array_equal(labels, before)
    assert linked.labels(ours, eps) is ours  # nothing is left to change


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
@example(seed=43195)  # two labels of one vote each, all distances gone
def test_permuting_the_images_permutes_the_clusters(seed):
    """All pairs have a distance: where nothing else decides, the order of the images does."""
    images, generator = 20, np.random.default_rng(seed)
    found, graph = random_links(seed, images, 6, 8), graph_of(seed, images, 1.0)
    order = generator.permutation(images)
    place = np.argsort(order)
    moved = Links(place[found.must], place[found.cannot])
    turned = sp.csr_array(graph[order][:, order])
    labels = number_by_first_image(generator.integers(-1, 4, images))
    linked = LinkedGraph(found, graph)
    assume(is_decided(linked, labels))
    ours = linked.labels(labels, 1.0)
    theirs = LinkedGraph(moved, turned).labels(number_by_first_image(labels[order]), 1.0)
    np.testing.assert_array_equal(theirs, number_by_first_image(ours[order]))


def is_decided(linked, labels):
    """No group is left to the order of the images: where two labels have as many votes in it, an
    image of one of them has a distance to it. Links of enemies take distances away."""
    for group in np.unique(linked.groups):
        own = np.flatnonzero(linked.groups == group)
        names, votes = np.unique(labels[own][labels[own] >= 0], return_counts=True)
        best = names[votes == votes.max(initial=0)]
        others = np.setdiff1d(np.flatnonzero(np.isin(labels, best)), own)
        if len(best) > 1 and not linked.graph[own][:, others].nnz:
            return False
    return True


def test_distances_within_groups_are_zero_and_those_between_enemies_gone():
    graph = engine.distances(SHORT, FEATURES[:40], 0.7)
    kept, found = graph.copy(), links([(0, 1), (1, 30), (5, 6)], [(30, 5), (10, 11)])
    ours = LinkedGraph(found, graph).graph
    expected, stored = graph.toarray(), np.zeros((40, 40), bool)
    stored[np.repeat(np.arange(40), np.diff(graph.indptr)), graph.indices] = True
    for group in ([0, 1, 30], [5, 6]):
        for i, j in combinations(group, 2):
            expected[i, j] = expected[j, i] = 0
    for i, j in [(a, b) for a in (0, 1, 30) for b in (5, 6)] + [(10, 11)]:
        stored[i, j] = stored[j, i] = False
    there = np.zeros((40, 40), bool)
    there[np.repeat(np.arange(40), np.diff(ours.indptr)), ours.indices] = True
    np.testing.assert_array_equal(there, stored)
    np.testing.assert_array_equal(ours.toarray(), np.where(stored, expected, 0))
    assert ours.data.dtype == graph.data.dtype and ours.indices.dtype == graph.indices.dtype
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(graph, name), getattr(kept, name))


def test_features_are_drawn_to_the_mean_of_their_group_and_others_stay():
    rows = torch.from_numpy(FEATURES[:6])
    made = Links(np.array([(0, 2), (2, 5)]), np.empty((0, 2), np.int64), pool=0.75)
    found, expected = made.pooled(rows), rows.clone().double()
    mean = torch.nn.functional.normalize(rows[[0, 2, 5]].double().sum(0), dim=0)
    for row in (0, 2, 5):
        expected[row] = torch.nn.functional.normalize(rows[row] / 4 + mean * 3 / 4, dim=0)
    torch.testing.assert_close(found, expected.float())
    assert torch.equal(rows, torch.from_numpy(FEATURES[:6]))
    assert links([(0, 2)]).pooled(rows) is rows and links().pooled(rows) is rows


def test_tracklets_that_are_pooled_find_those_of_their_person():
    """Six people in six tracklets each, of eight noisy images that share a drift."""
    generator = np.random.default_rng(0)
    people, truth = generator.normal(size=(6, 24)), np.repeat(np.arange(6), 48)
    drift = np.repeat(generator.normal(size=(36, 24)), 8, axis=0)
    seen = people[truth] + 1.2 * generator.normal(size=(288, 24)) + 0.5 * drift
    chains = np.array([(i, i + 1) for i in range(287) if (i + 1) % 8])
    none = np.empty((0, 2), np.int64)
    labeler = PseudoLabeler(distance=JaccardDistance(k1=30, k2=4))
    ari = [
        summarize(
            labeler(oracle.unit(seen), links=Links(chains, none, pool=pool)).labels,
            np.zeros(288, int),
            truth,
        )["ari"]
        for pool in (0.0, 0.5)
    ]
    assert ari[0] < 0.1 and ari[1] > 0.9


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=lambda c: type(c).__name__)
def test_every_clusterer_of_distances_honours_links_and_without_them_nothing_changes(clusterer):
    plain = PseudoLabeler(distance=SHORT, clusterer=clusterer)(FEATURES)
    none = PseudoLabeler(distance=SHORT, clusterer=clusterer)(FEATURES, links=links())
    assert none.labels.tobytes() == plain.labels.tobytes()
    for seed in range(3):
        found = random_links(seed, 120, 30, 60)
        ours = PseudoLabeler(distance=SHORT, clusterer=clusterer)(FEATURES, links=found)
        assert broken(found, plain.labels) and broken(found, ours.labels) == []


def test_a_tracklet_of_outliers_stays_out_and_one_with_a_clustered_image_follows_it():
    apart = sp.csr_array((8, 8), dtype=np.float32)
    linked = LinkedGraph(links([(0, 1), (1, 2), (2, 3), (5, 6)]), apart)
    labels = np.array([-1, -1, -1, 0, 0, -1, -1, 0])
    assert linked.labels(labels, 0.6).tolist() == [0] * 5 + [-1] * 2 + [0]


@pytest.mark.parametrize("refiners", [[SelfPaced(eps_gap=0.05)], [MinimumSize(min_size=9)]])
def test_links_hold_after_refiners_and_at_every_radius(refiners):
    found = random_links(3, 120, 30, 60)
    labeler = PseudoLabeler(distance=SHORT, refiners=refiners)
    for one in labeler.sweep(FEATURES, (0.4, 0.7), links=found):
        assert broken(found, one.labels) == []


def test_links_hold_in_labels_of_before_that_a_collapse_falls_back_to():
    found = random_links(4, 120, 30, 60)
    policy = CollapsePolicy(num_wanted=50, eps_bound=0.0, shrink=False)
    labeler = PseudoLabeler(distance=SHORT, clusterer=DBSCAN(eps=0.02), collapse=policy)
    before = PseudoLabels(np.arange(120) % 30, 0.02)
    ours = labeler(FEATURES, links=found, previous=before)
    assert "labels before are kept" in ours.note and broken(found, before.labels)
    assert broken(found, ours.labels) == []


def test_links_are_refused_by_a_clusterer_of_features_and_if_they_contradict():
    with pytest.raises(ValueError, match="KMeans clusters features; links need"):
        PseudoLabeler(clusterer=KMeans(num_clusters=2))(FEATURES, links=links())
    with pytest.raises(ValueError, match=r"images \[\[0, 2\]\] must, and must not"):
        PseudoLabeler(distance=SHORT)(FEATURES, links=links([(0, 1), (1, 2)], [(0, 2)]))


# ---- links out of tracklets and answers ----------------------------------------------------


def tracks(tracklets, times=None):
    times = np.full(len(tracklets), np.nan) if times is None else np.array(times, float)
    return Tracks(np.array(tracklets), times)


def linker(found, answers=None, cameras=None, **options):
    cameras = np.zeros(len(found.tracklets), int) if cameras is None else np.array(cameras)
    return Linker(LinkOptions(**{"cut": 0.0, **options}), cameras, found, answers)


def answers(same=(), other=()):
    return Answers(*(np.array(pairs, np.int64).reshape(-1, 2) for pairs in (same, other)))


NOTHING = torch.zeros(0, 2)  # without cuts features are not read


def test_images_of_a_tracklet_are_linked_and_overlapping_tracklets_are_kept_apart():
    found = tracks([0, 0, -1, 1, 1, 2], [1, 5, 3, 5, 9, 10])
    made = linker(found)(NOTHING)
    assert made.groups(6).tolist() == [0, 0, 1, 2, 2, 3]
    assert made.cannot.tolist() == [[0, 3]]  # frame 5 shows both
    assert dict(made.figures) == {
        **{"links_must": 2, "links_cannot": 1},
        **{"cut_tracklets": 0, "link_conflicts": 0},
    }
    assert linker(found, cameras=[0, 0, 0, 1, 1, 1])(NOTHING).cannot.tolist() == []
    assert linker(found, overlap=False)(NOTHING).cannot.tolist() == []
    apart = linker(found, tracklets=False)(NOTHING)
    assert len(apart.must) == 0 and apart.cannot.tolist() == [[0, 3], [0, 4], [1, 3], [1, 4]]


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_overlaps_are_those_of_all_pairs(seed, images):
    generator = np.random.default_rng(seed)
    tracklets = generator.integers(-1, 8, images)
    times = np.where(generator.random(images) < 0.2, np.nan, generator.integers(0, 30, images))
    cameras = (tracklets + 1) % 2
    expected = []
    for a, b in combinations(range(8), 2):
        own, other = (times[(tracklets == t) & ~np.isnan(times)] for t in (a, b))
        if a % 2 == b % 2 and len(own) and len(other):
            if own.min() <= other.max() and other.min() <= own.max():
                expected.append([a, b])
    found = overlapping(tracklets, Tracks(tracklets, times), cameras)
    assert sorted(found.tolist()) == expected


def test_an_answer_counts_more_than_time_and_time_more_than_a_tracklet():
    found = tracks([0, 0, 1, 1], [1, 2, 2, 3])
    yes = linker(found, answers(same=[(1, 2)]))(NOTHING)
    assert yes.groups(4).tolist() == [0] * 4 and yes.figures["link_conflicts"] == 1
    no = linker(found, answers(other=[(0, 1)]))(NOTHING)
    assert no.groups(4).tolist() == [0, 1, 2, 2] and no.figures["link_conflicts"] == 1
    # Both parts of the tracklet that the answer took apart are still kept from the other one.
    assert no.cannot.tolist() == [[0, 1], [0, 2], [1, 2]]
    # Tracklet 0 may not come to hold both 1 and 2, which overlap: its second image is left out.
    third = tracks([0, 0, 1, 2], [1, 9, 20, 20])
    both = linker(third, answers(same=[(0, 2), (1, 3)]))(NOTHING)
    assert both.groups(4).tolist() == [0, 1, 0, 1] and both.figures["link_conflicts"] == 1


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_links_never_contradict_each_other_whatever_is_told(seed):
    generator = np.random.default_rng(seed)
    images, truth = 24, generator.integers(0, 5, 24)
    pairs = generator.integers(0, images, (10, 2))
    alike = truth[pairs[:, 0]] == truth[pairs[:, 1]]
    told = Answers(pairs[alike], pairs[~alike])
    tracklets = generator.integers(-1, 7, images)
    found = tracks(tracklets, generator.integers(0, 12, images))
    made = linker(found, told, cameras=np.maximum(tracklets, 0) % 2)(NOTHING)
    group = made.groups(images)  # raises where they contradict
    assert all(group[a] == group[b] for a, b in told.same)
    kept = {frozenset((group[a], group[b])) for a, b in made.cannot.tolist()}
    assert all(frozenset((group[a], group[b])) in kept for a, b in told.other)


def test_a_tracklet_of_two_people_is_cut_where_it_changes_and_others_stay_whole():
    generator = np.random.default_rng(0)
    people = generator.normal(size=(13, 16))
    truth = np.repeat(np.arange(12), 8)
    tracklets = truth.copy()
    truth[5:8] = 12  # tracklet 0 changes to somebody else
    times = np.tile(np.arange(8.0), 12)
    features = torch.from_numpy(people[truth] + 0.3 * generator.normal(size=(96, 16)))
    shuffled = generator.permutation(96)
    for order in (np.arange(96), shuffled):
        found = cut(features[order], tracks(tracklets[order], times[order]), np.zeros(96), 0.95)
        whole = found[np.argsort(order)]
        assert len(np.unique(whole)) == 13 and len(set(whole[:5])) == len(set(whole[5:8])) == 1
        np.testing.assert_array_equal(whole[8:], tracklets[8:])
    made = linker(tracks(tracklets, times), cut=0.95)(features)
    assert made.figures["cut_tracklets"] == 1 and len(np.unique(made.groups(96))) == 13
    # Its parts overlap what they were seen with, not each other.
    assert len(made.cannot) == 12 * 11 / 2 + 11


def test_what_is_cut_stays_cut_when_the_network_has_learnt_the_mistake():
    generator = np.random.default_rng(0)
    people = generator.normal(size=(13, 16))
    tracklets, times = np.repeat(np.arange(12), 8), np.tile(np.arange(8.0), 12)
    truth = tracklets.copy()
    truth[5:8] = 12
    before, after = (torch.from_numpy(people[seen]) for seen in (truth, tracklets))
    one = linker(tracks(tracklets, times), cut=0.9)
    assert one(before).figures["cut_tracklets"] == 1
    found = one(after)
    assert found.figures["cut_tracklets"] == 1 and len(np.unique(found.groups(96))) == 13
    assert linker(tracks(tracklets, times), cut=0.9)(after).figures["cut_tracklets"] == 0


@pytest.fixture
def table(tmp_path):
    def write(*lines, header="first,second,same"):
        file = tmp_path / "answers.csv"
        file.write_text("\n".join([header, *lines]) + "\n")
        return file

    return write


NAMES = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]


def test_answers_are_read_and_unknown_images_told(table):
    file = table("a/0.jpg,a/1.jpg,yes", "b/0.jpg,a/1.jpg,no", "b/0.jpg,b/1.jpg,", "b/0.jpg,x,yes")
    found = read_answers(file, NAMES)
    assert found.same.tolist() == [[0, 1]] and found.other.tolist() == [[2, 1]]
    assert found.unknown == ["x"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("a/0.jpg,a/1.jpg,maybe",), "line 2: same='maybe' must be yes, no, or empty"),
        (("x,y,yes",), "none of its 1 pairs is of two training images"),
        ((), "none of its 0 pairs"),
        (
            ("a/0.jpg,a/1.jpg,yes", "a/1.jpg,b/0.jpg,yes", "b/0.jpg,a/0.jpg,no"),
            "1 pairs with the answer no are the same by a chain of yes: b/0.jpg, a/0.jpg",
        ),
        (("a/0.jpg,a/0.jpg,no",), "by a chain of yes: a/0.jpg, a/0.jpg"),
    ],
)
def test_answers_that_make_no_sense_are_refused(table, lines, message):
    with pytest.raises(ValueError, match=message):
        read_answers(table(*lines), NAMES)


def test_a_missing_table_or_column_is_named(table, tmp_path):
    with pytest.raises(ValueError, match="CC.LINKS.FILE=.*No such file"):
        read_answers(tmp_path / "none.csv", NAMES)
    with pytest.raises(ValueError, match="no table with the columns first, second, same"):
        read_answers(table("a,b,yes", header="first,other,same"), NAMES)
