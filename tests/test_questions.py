"""The questions chosen are those of most gain, by loops over the formula; none is told already."""

from __future__ import annotations

import numpy as np
import pytest

from fastreid_cc.labeling import questions as module
from fastreid_cc.labeling.links import Links
from fastreid_cc.labeling.questions import choose_questions, threshold

NO = np.empty((0, 2), np.int64)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def labelled(seed, people=6):
    """Features of some people; cluster 0 holds two of them, the last one has two clusters."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(people), 8)
    features = unit(np.eye(people, 16)[truth] + generator.normal(0, 0.12, (len(truth), 16)))
    labels = truth - 1
    labels[truth == 0] = 0
    labels[-3:] = people - 1
    labels[generator.choice(np.arange(16, len(truth) - 8), 4, replace=False)] = -1
    return features, labels, truth


def gain(features, asked, t):
    """The formula of `choose_questions`, in its symbols."""
    a, b = asked.groups
    x, y = (features[rows[np.argmax(features[rows] @ features[rows].mean(0))]] for rows in (a, b))
    p = 1 / (1 + np.exp(-(x @ y - t) / module.WIDTH))
    size = len(a) * len(b)
    return module.JOIN * size * p if asked.kind == "join" else size * (1 - p)


@pytest.mark.parametrize("seed", range(3))
def test_gains_follow_the_formula_and_every_near_pair_is_weighed(seed):
    features, labels, _ = labelled(seed)
    found = choose_questions(features, labels, 10_000)
    t = threshold(features, labels, NO, NO)
    np.testing.assert_allclose([q.gain for q in found], [gain(features, q, t) for q in found], 1e-4)
    assert [q.gain for q in found] == sorted((q.gain for q in found), reverse=True)
    clusters = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    groups = clusters + [np.array([row]) for row in np.flatnonzero(labels < 0)]
    mean = np.array([[(features[a] @ features[b].T).mean() for b in groups] for a in groups])
    best = max(
        (
            module.JOIN * len(a) * len(b) / (1 + np.exp(-(x @ y - t) / module.WIDTH))
            for i, a in enumerate(groups)
            for j, b in enumerate(groups)
            if i < j and (mean[i] > mean[i, j]).sum() <= module.NEAREST
            for x, y in [
                [features[g[np.argmax(features[g] @ features[g].mean(0))]] for g in (a, b)]
            ]
        )
    )
    assert max(q.gain for q in found if q.kind == "join") == pytest.approx(best, rel=1e-4)


def test_two_people_in_one_cluster_and_one_person_in_two_are_asked_first():
    features, labels, truth = labelled(0)
    first, second = choose_questions(features, labels, 2)
    assert (first.kind, second.kind) == ("split", "join") and first.chance < second.chance
    for asked in (first, second):
        assert (truth[asked.first] == truth[asked.second]) == (asked.kind == "join")
        assert {len(set(truth[rows])) for rows in asked.groups} == {1}


def test_what_answers_tell_is_not_asked_again():
    features, labels, truth = labelled(1)
    answers = {True: [], False: []}
    for _ in range(6):  # rounds of answers about the same labels
        links = {
            name: np.array(answers[said], np.int64).reshape(-1, 2)
            for name, said in (("same", True), ("other", False))
        }
        chain = np.arange(len(truth))
        for a, b in answers[True]:
            chain[chain == chain[b]] = chain[a]
        told = {frozenset((chain[a], chain[b])) for a, b in answers[False]}
        asked = choose_questions(features, labels, 5, **links)
        for question in asked:
            pair = [chain[row] for row in (question.first, question.second)]
            assert pair[0] != pair[1] and frozenset(pair) not in told
            said = bool(truth[question.first] == truth[question.second])
            answers[said].append((question.first, question.second))
    assert len(answers[True]) + len(answers[False]) > 15


def test_what_links_tell_is_not_asked():
    features, labels, _ = labelled(0)
    split, join = choose_questions(features, labels, 2)
    must = np.array([[split.groups[0][-1], split.groups[1][-1]]])  # any images of the groups
    cannot = np.array([[join.groups[0][-1], join.groups[1][-1]]])
    found = choose_questions(features, labels, 10_000, links=Links(must, cannot))
    pairs = {(asked.first, asked.second) for asked in found}
    assert len(pairs) > 10 and not pairs & {(q.first, q.second) for q in (split, join)}


def test_no_question_follows_from_the_others():
    features, labels, _ = labelled(2)
    asked = choose_questions(features, labels, 10_000)
    chain = np.arange(len(labels))
    for question in asked:
        assert chain[question.first] != chain[question.second]
        chain[chain == chain[question.second]] = chain[question.first]


def test_answers_move_the_threshold():
    features, labels, _ = labelled(0)
    start = threshold(features, labels, NO, NO)
    alike = np.argwhere(np.triu(features @ features.T > start, 1))[:12]
    assert threshold(features, labels, NO, alike) > start + module.WIDTH
    unlike = np.argwhere(np.triu(features @ features.T < start, 1))[:12]
    assert threshold(features, labels, unlike, NO) < start - module.WIDTH


def test_equal_images_outliers_alone_and_few_images_are_legal():
    assert choose_questions(np.empty((0, 4), np.float32), np.empty(0, np.int64), 5) == []
    ones = unit(np.ones((6, 4)))
    assert choose_questions(ones, np.zeros(6, np.int64), 5) == []
    found = choose_questions(ones, np.full(6, -1), 50)
    assert [(q.first, q.second) for q in found] == [(0, row) for row in range(1, 6)]
