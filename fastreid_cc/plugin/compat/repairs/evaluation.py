"""Evaluation: small galleries, the flip test, re-ranking without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fastreid.evaluation import rank
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils import compute_dist

from fastreid_cc.labeling.rerank import jaccard_query_gallery

from ..patching import around


@around(rank, "evaluate_rank")
def rank_small_galleries(
    stock: Any,
    distmat: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    **kw: Any,
) -> Any:
    """Ranks galleries smaller than the longest rank asked for.

    Breaks: curves of different length per query (ValueError), and Rank-10 of fewer than 10 gallery
    images (IndexError). All versions. Does: adds images of nobody at infinite distance, which
    lengthen each curve by its last value and change neither AP nor INP. Larger galleries are left
    alone. Test: test_compat_evaluation.py. May go: when fastreid pads its curves.
    """
    missing = _rows_missing(g_pids, g_camids, max_rank)
    if missing > 0:
        nobody = min(g_pids.min(initial=0), q_pids.min(initial=0)) - 1 - np.arange(missing)
        g_pids = np.concatenate([g_pids, nobody.astype(g_pids.dtype)])
        g_camids = np.concatenate([g_camids, np.full(missing, -1, g_camids.dtype)])
        far = np.full((len(distmat), missing), np.inf, dtype=distmat.dtype)
        distmat = np.concatenate([distmat, far], axis=1)
    return stock(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, **kw)


def _rows_missing(g_pids: np.ndarray, g_camids: np.ndarray, max_rank: int) -> int:
    """How many rows make every curve `max_rank` long; single-shot curves count identities."""
    if len(g_pids) == 0:
        return max_rank
    _, per_camera = np.unique(np.stack([g_pids, g_camids]), axis=1, return_counts=True)
    rows = len(g_pids) - int(per_camera.max())
    return max(0, max_rank - min(rows, len(np.unique(g_pids)) - 1))


@around(Baseline, "preprocess_image")
def normalise_images_once(stock: Any, model: Any, batched_inputs: Any) -> Any:
    """Keeps a model from normalising the images it is given in place.

    Breaks: `Baseline.preprocess_image` normalises in place, so the flip test (and any second
    forward of one batch) normalises twice; the mean cosine to the right feature was 0.986. All
    versions. Does: hands it a copy, in the model's precision. Test: test_compat_evaluation.py::
    test_the_stock_flip_test_normalises_twice. May go: when fastreid stops working in place.
    """
    if isinstance(batched_inputs, dict):
        batched_inputs = batched_inputs["images"]
    if isinstance(batched_inputs, torch.Tensor):
        batched_inputs = batched_inputs.to(model.pixel_mean.dtype, copy=True)
    return stock(model, batched_inputs)


@around(compute_dist, "build_dist")
@torch.no_grad()
def rerank_without_faiss_gpu(
    stock: Any, feat_1: Any, feat_2: Any, metric: str = "euclidean", **kwargs: Any
) -> Any:
    """Computes TEST.RERANK without CUDA or without a GPU build of faiss.

    Breaks: `build_dist(metric="jaccard")` calls `.cuda()` and `faiss.StandardGpuResources`. Does:
    there, our own sparse Jaccard distance. On a machine with CUDA and faiss-gpu stock runs. Test:
    test_compat_evaluation.py. May go: when fastreid chooses by what the machine has.
    """
    has_gpu = torch.cuda.is_available() and hasattr(compute_dist.faiss, "StandardGpuResources")
    if metric != "jaccard" or has_gpu:
        return stock(feat_1, feat_2, metric, **kwargs)
    k1, k2 = kwargs["k1"], kwargs["k2"]
    return np.asarray(jaccard_query_gallery(feat_1.cpu(), feat_2.cpu(), k1=k1, k2=k2))
