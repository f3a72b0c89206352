"""The histogram baseline and its evaluation."""

import numpy as np
import pytest
from histogram import descriptors, evaluate_histograms, rank
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def slow_rank(distance, q_ids, g_ids, q_cams, g_cams):
    """The protocol in loops: (mAP, rank-1) in percent."""
    precisions, firsts = [], []
    for q in range(len(q_ids)):
        ranked = sorted(range(len(g_ids)), key=lambda g: (distance[q][g], g))
        ranked = [g for g in ranked if not (g_ids[g] == q_ids[q] and g_cams[g] == q_cams[q])]
        hits = [g_ids[g] == q_ids[q] for g in ranked]
        if not any(hits):
            continue
        at_hits = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]]
        precisions.append(sum(at_hits) / len(at_hits))
        firsts.append(hits[0])
    return 100 * np.mean(precisions), 100 * np.mean(firsts)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 25), st.booleans())
def test_evaluation_equals_the_protocol_in_loops(seed, num_query, num_gallery, ties):
    rng = np.random.default_rng(seed)
    q_ids, g_ids = rng.integers(0, 4, num_query), rng.integers(-1, 4, num_gallery)
    q_cams, g_cams = rng.integers(0, 2, num_query), rng.integers(0, 2, num_gallery)
    distance = rng.random((num_query, num_gallery))
    if ties:
        distance = np.round(distance * 4) / 4
    valid = [
        any(g == q and c != k for g, c in zip(g_ids, g_cams, strict=True))
        for q, k in zip(q_ids, q_cams, strict=True)
    ]
    if not any(valid):
        with pytest.raises(ValueError, match="No query"):
            rank(distance, q_ids, g_ids, q_cams, g_cams)
        return
    result = rank(distance, q_ids, g_ids, q_cams, g_cams)
    expected = slow_rank(distance, q_ids, g_ids, q_cams, g_cams)
    assert (result.mAP, result.rank1) == pytest.approx(expected)
    assert result.num_queries == sum(valid)


def test_perfect_order_gives_one_hundred():
    ids, cams = np.array([0, 1, 0, 1]), np.array([1, 1, 1, 1])
    distance = (ids[:2, None] != ids[None]).astype(float)
    assert rank(distance, ids[:2], ids, cams[:2] * 0, cams).mAP == 100


def test_descriptors_are_unit_rows_and_see_one_image_at_a_time():
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 12, 3), np.uint8)
    together, alone = descriptors(images), descriptors(images[2:3])
    for name, rows in together.items():
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(rows[2], alone[name][0], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("RGB, equalised", lambda x: 255 * (x / 255) ** np.array([0.6, 1.0, 1.7])),
        ("means, standardised", lambda x: 0.6 * x + np.array([30.0, 10.0, 50.0])),
        ("means, grey-world", lambda x: x * np.array([0.5, 0.8, 0.65])),
    ],
)
def test_a_normalised_descriptor_does_not_see_what_it_normalises(name, change):
    grey = np.random.default_rng(1).permutation(24 * 12).reshape(1, 24, 12, 1)
    channels = [np.roll(grey, s, axis=1) for s in (0, 5, 9)]
    images = np.concatenate(channels, -1) / 288 * 100 + 60  # away from clipping
    changed = np.clip(change(images), 0, 255)
    stretch = 1.0 if "equalised" in name else 1  # float input: no rounding in the way
    a = descriptors(images * stretch)[name]
    b = descriptors(changed * stretch)[name]
    assert float((a * b).sum()) > 0.999
    plain = descriptors(images)["RGB, plain"], descriptors(changed)["RGB, plain"]
    assert float((plain[0] * plain[1]).sum()) < 0.9


def test_plain_colours_are_found_again(tmp_path):
    items = []
    for person, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        for camera in (0, 1):
            path = tmp_path / f"{person}_{camera}.png"
            Image.new("RGB", (8, 16), tuple(c + 3 * camera for c in colour)).save(path)
            items.append((str(path), person, camera))
    result = evaluate_histograms(items[::2], items[1::2])
    assert result.best.mAP == 100 and result.best.rank1 == 100
    assert result.best == result.variants[result.name]
