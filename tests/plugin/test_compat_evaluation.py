"""Shims of evaluation: no compiler, small galleries, flip test, re-ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compat_runs import build, config

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


# --- evaluate_without_compiling ------------------------------------------------------------------


def test_nothing_is_compiled_at_the_first_evaluation(data_root, tmp_path, without, monkeypatch):
    from fastreid.evaluation import ReidEvaluator, reid_evaluation

    compiled = []
    monkeypatch.setattr(reid_evaluation, "compile_helper", lambda: compiled.append(True))
    ReidEvaluator(config(data_root, tmp_path), 1)
    assert compiled == []
    with without("evaluate_without_compiling"):
        ReidEvaluator(config(data_root, tmp_path), 1)
    assert compiled == [True]


# --- rank_small_galleries ------------------------------------------------------------------------


def rank_by_loops(dist, q_pids, g_pids, q_cams, g_cams, max_rank):
    """Curve, AP and INP of the Market-1501 protocol, one query and one rank at a time."""
    curves, aps, inps = [], [], []
    for q in range(len(q_pids)):
        order = [
            g
            for g in sorted(range(len(g_pids)), key=lambda g: dist[q, g])
            if not (g_pids[g] == q_pids[q] and g_cams[g] == q_cams[q])
        ]
        hits = [rank + 1 for rank, g in enumerate(order) if g_pids[g] == q_pids[q]]
        if hits:
            curves.append([float(hits[0] <= rank) for rank in range(1, max_rank + 1)])
            aps.append(sum((i + 1) / rank for i, rank in enumerate(hits)) / len(hits))
            inps.append(len(hits) / hits[-1])
    return np.mean(curves, axis=0), aps, inps


@pytest.mark.parametrize("size", [3, 7, 30, 51, 80])
def test_small_galleries_are_ranked_as_by_loops(size, without):
    from fastreid.evaluation.rank import evaluate_rank

    rng = np.random.default_rng(size)
    g_pids, g_cams = rng.integers(0, 4, size), rng.integers(0, 2, size)
    q_pids, q_cams = g_pids[:3].copy(), 1 - g_cams[:3]  # every query has a match elsewhere
    dist = rng.random((3, size)).astype(np.float32)
    args = dist, q_pids, g_pids, q_cams, g_cams
    kept = dist.copy()
    cmc, aps, inps = evaluate_rank(*args)
    want = rank_by_loops(*args, 50)
    for got, expected in zip((cmc, aps, inps), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.array_equal(dist, kept) and len(cmc) == 50
    if size == 80:  # no row is missing: stock's own numbers, to the bit
        with without("rank_small_galleries"):
            stock = evaluate_rank(*args)
        assert all(np.array_equal(a, b) for a, b in zip((cmc, aps, inps), stock, strict=True))


def test_stock_cannot_rank_a_small_gallery(without):
    from fastreid.evaluation import rank

    pids, cams = np.array([1, 1, 2]), np.array([0, 1, 0])
    dist = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], dtype=np.float32)
    args = dist, np.array([1, 2]), pids, np.array([0, 1]), cams
    with without("rank_small_galleries"), pytest.raises(ValueError, match="inhomogeneous|sequence"):
        rank.evaluate_rank(*args)  # curves of two and of three
    assert rank.evaluate_rank(*args)[0][9] == 1.0  # Rank-10 of three images


def test_single_shot_ranking_works_on_small_galleries_and_old_numpy(without, monkeypatch):
    from fastreid.evaluation import rank

    from fastreid_cc.plugin.compat.required import imports

    class Numpy124:
        def __getattr__(self, name):
            if name == "bool":
                raise AttributeError(name)
            return getattr(np, name)

    monkeypatch.setattr(rank, "np", Numpy124())
    monkeypatch.setattr(imports, "np", Numpy124())
    pids, cams = np.array([1, 1, 2, 2, 3]), np.array([0, 1, 0, 1, 1])
    dist = np.array([[0.5, 0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    args = dist, np.array([1]), pids, np.array([0]), cams
    with without("restore_numpy_bool"), pytest.raises(AttributeError):
        rank.evaluate_rank(*args, use_metric_cuhk03=True)
    with without():  # the shims again, on this numpy
        cmc, mean_ap = rank.evaluate_rank(*args, use_metric_cuhk03=True)
    assert mean_ap == 1.0 and cmc.tolist() == [1.0] * 50


# --- normalise_images_once -----------------------------------------------------------------------


def test_the_stock_flip_test_normalises_twice(data_root, tmp_path, without):
    trainer = build(data_root, tmp_path)
    model = trainer.model.eval()
    images = torch.rand(4, 3, 64, 32, generator=torch.Generator().manual_seed(0)) * 255

    def flip_test():
        inputs = {"images": images.clone()}
        with torch.no_grad():
            model(inputs)
            inputs["images"] = inputs["images"].flip(dims=[3])
            return model(inputs)

    with torch.no_grad():
        right = model({"images": images.flip(dims=[3])})
    assert torch.equal(flip_test(), right)
    with without("normalise_images_once"):
        assert not torch.allclose(flip_test(), right, rtol=0.01)


def test_normalising_out_of_place_gives_the_same_bits(data_root, tmp_path, without):
    model = build(data_root, tmp_path).model
    images = torch.rand(2, 3, 64, 32) * 255
    ours = model.preprocess_image({"images": images})
    with without("normalise_images_once"):
        assert torch.equal(ours, model.preprocess_image(images.clone()))
    with pytest.raises(TypeError, match="batched_inputs"):
        model.preprocess_image([1])


# --- re-ranking ---------------------------------------------------------------------------------


def test_reranking_runs_without_a_gpu(without):
    from fastreid.utils import compute_dist

    features = torch.nn.functional.normalize(torch.randn(40, 16), dim=1)
    args = features[:10], features[10:], "jaccard"
    if torch.cuda.is_available():
        pytest.skip("stock runs with CUDA")
    with without("rerank_without_faiss_gpu"):
        with pytest.raises((RuntimeError, AssertionError, AttributeError)):
            compute_dist.build_dist(*args, k1=10, k2=3)
    ours = compute_dist.build_dist(*args, k1=10, k2=3)
    stock = compute_dist.compute_jaccard_distance(features, k1=10, k2=3, search_option=3)
    np.testing.assert_allclose(ours, stock[:10, 10:], atol=2e-5)
