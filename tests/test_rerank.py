import numpy as np
import pytest
import torch
from oracles import labels as oracle

from fastreid_cc.labeling.rerank import jaccard_query_gallery


def clouds(seed, images):
    return oracle.clouds(np.random.default_rng(seed), images, 16, images // 8, 0.6, 4)


@pytest.mark.parametrize("lengths", [(20, 6), (30, 1), (5, 3)])
def test_the_block_equals_the_dense_formula(lengths):
    features = clouds(0, 90)
    block = jaccard_query_gallery(
        torch.from_numpy(features[:30]),
        torch.from_numpy(features[30:]),
        k1=lengths[0],
        k2=lengths[1],
    )
    expected = oracle.jaccard(features, *lengths)[:30, 30:]
    np.testing.assert_allclose(block.numpy(), expected, atol=1e-6)


def euclidean_jaccard(features, k1, k2):
    """The formula of the oracle with squared Euclidean distances, through unit lists."""
    exact = features.astype(np.float64)
    squares = ((exact[:, None] - exact[None]) ** 2).sum(-1)
    similarity = 1 - squares / 2
    saved = oracle.cosine_matrix
    oracle.cosine_matrix = lambda _: similarity
    try:
        return oracle.jaccard(features, k1, k2)
    finally:
        oracle.cosine_matrix = saved


def test_rows_of_any_length_use_euclidean_distance():
    rng = np.random.default_rng(1)
    features = clouds(1, 80) * rng.uniform(0.5, 1.5, size=(80, 1)).astype(np.float32)
    block = jaccard_query_gallery(
        torch.from_numpy(features[:20]), torch.from_numpy(features[20:]), k1=20, k2=6
    )
    np.testing.assert_allclose(
        block.numpy(), euclidean_jaccard(features, 20, 6)[:20, 20:], atol=1e-6
    )
