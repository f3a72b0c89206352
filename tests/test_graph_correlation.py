"""GraphCorrelation: loops, what W = 0 leaves alone, chunks, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from oracles.losses import graph_correlation, make_batch, memory_by_name, unit, unit_rows
from torch import Tensor

from fastreid_cc.labeling.neighbor_lists import find_neighbors
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.losses import graph_correlation as module
from fastreid_cc.losses.graph_correlation import GraphCorrelation
from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.structures import KnnGraph, Search

TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 3, 3, 1, 2])


def batch_of(x: Tensor, targets: Tensor = TARGETS) -> Any:
    """Images 7, 14, ... of the memory's thirty, so that their own rows are among the nearest."""
    return make_batch(x, targets, indices=torch.arange(len(x)) * 7 % 30)


@pytest.mark.parametrize("name", ["cluster", "hybrid", "selective"])
@pytest.mark.parametrize("seed", [1, 2])
def test_value_and_gradient_equal_loops(name: str, seed: int) -> None:
    memory, loss = memory_by_name(name), graph_correlation()
    x = (2 * unit_rows(12, 8, seed=seed)).requires_grad_()
    batch = batch_of(x)
    own = torch.full((12,), -1) if name == "cluster" else batch.indices
    row_classes = torch.arange(5) if name == "cluster" else memory.row_classes
    expected = oracle.gcl(
        loss,
        x,
        memory.rows,
        TARGETS,
        row_classes,
        own,
        lambda f: memory.logits(f[None], batch)[0],
    )
    (wanted,) = torch.autograd.grad(expected, x)
    found = loss(batch, memory)
    (gradient,) = torch.autograd.grad(found, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-9)


def test_with_w_0_it_is_memory_contrast_beside_the_edges() -> None:
    memory, batch = memory_by_name("cluster"), batch_of(unit_rows(12, 8, seed=1))
    loss = GraphCorrelation(feature_size=8, neighbors=4, candidates=5, edge_scale=0.0)
    torch.testing.assert_close(loss(batch, memory), MemoryContrast()(batch, memory))


def test_gradients_reach_w_first_and_theta_and_phi_by_the_edges() -> None:
    """All five by the contrast too once W has moved."""
    memory, batch = memory_by_name("cluster"), batch_of(unit_rows(12, 8, seed=1))
    for scale, is_moved, reached in (
        (0.0, False, {"message.weight"}),
        (0.1, False, {"message.weight", "theta.weight", "phi.weight", "sharpness", "bias"}),
        (0.0, True, {"message.weight", "theta.weight", "phi.weight", "sharpness"}),
    ):
        loss = GraphCorrelation(feature_size=8, neighbors=4, candidates=5, edge_scale=scale)
        if is_moved:
            torch.nn.init.normal_(loss.message.weight, std=0.3)
        loss(batch, memory).backward()
        moved = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
        # b shifts all edges alike: a softmax does not see it
        assert {n for n in moved if n != "bias" or scale} == reached


def test_the_images_own_row_and_rows_of_the_sources_are_no_neighbours() -> None:
    memory, loss = memory_by_name("hybrid"), graph_correlation()
    memory.reset(
        unit_rows(30, 8), torch.arange(30) % 6 - 1, source_centroids=unit_rows(4, 8, seed=3)
    )
    batch = make_batch(memory.rows[[10, 11, 2, 3]].clone(), torch.tensor([6, 4, 2, 3]))
    batch.indices[:] = torch.tensor([6, 7, 0, 1])
    found, usable = loss._nearest_rows(batch, memory)
    rows = [set(r[u].tolist()) for r, u in zip(found, usable, strict=True)]
    assert all(len(listed) == 7 and min(listed) >= 4 for listed in rows[:2])
    assert 10 not in rows[0] and 11 not in rows[1]
    assert rows[2:] == [{0, 1, 3}, {0, 1, 2}]  # source images: the other classes of the sources


def test_edges_in_a_batch_of_one_cluster_hold_look_alikes_of_others() -> None:
    """Without rows of the memory such a batch has no edge that is wrong: nothing to learn."""
    memory, loss = memory_by_name("cluster"), graph_correlation(edge_scale=1.0)
    x = unit_rows(4, 8, seed=1)
    batch = make_batch(x, torch.zeros(4, dtype=torch.int64))
    rows, found = memory.rows.clone(), []
    for similarity in (0.0, 0.95):  # of the row of another cluster to the images
        rows[3] = unit(similarity * x.mean(0) + (1 - similarity) * unit_rows(1, 8, seed=8)[0])
        memory.rows.copy_(rows)
        loss.zero_grad()
        loss(batch, memory).backward()
        found.append(loss.bias.grad.item())
    assert found[1] > found[0]  # pushes logits down


# ---- at a labelling ----------------------------------------------------------------------------


def refined_by_loops(loss: Any, x: Tensor, graph: KnnGraph) -> Tensor:
    theta, phi, W = (p.detach() for p in (loss.theta.weight, loss.phi.weight, loss.message.weight))
    rows = []
    for i in range(len(x)):
        near = graph.indices[i, 1:].tolist()
        e = [loss.sharpness * (unit(theta @ x[i]) @ unit(phi @ x[j])) + loss.bias for j in near]
        best = sorted(range(len(e)), key=lambda n: -float(e[n]))[: loss.neighbors]
        a = torch.stack([e[n] for n in best]).softmax(0).detach()
        mean = sum(a_n * x[near[n]] for a_n, n in zip(a, best, strict=True))
        rows.append(x[i] + W @ mean)
    return torch.stack(rows)


def graph_of(x: Tensor, k: int) -> KnnGraph:
    return find_neighbors(ExactKNN(), x, (Search(min(k, len(x))),))[0]


def test_refined_features_equal_loops_and_chunks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, x = graph_correlation(), unit_rows(40, 8, seed=5).float()
    graph = graph_of(x, loss.neighbors_to_refine)
    whole = loss.refine_features(x, graph)
    torch.testing.assert_close(whole, refined_by_loops(loss, x, graph), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(module, "_ROWS", 7)
    torch.testing.assert_close(loss.refine_features(x, graph), whole)


def test_with_w_0_features_keep_their_bytes() -> None:
    loss, x = GraphCorrelation(feature_size=8, neighbors=4, candidates=6), unit_rows(30, 8).float()
    assert torch.equal(loss.refine_features(x, graph_of(x, 7)), x)


@given(seed=st.integers(0, 99), order=st.permutations(range(20)))
@settings(max_examples=10, deadline=None)
def test_permuting_the_images_permutes_what_is_refined(seed: int, order: list[int]) -> None:
    loss, x = graph_correlation(), unit_rows(20, 8, seed=seed).float()
    y, other = (loss.refine_features(z, graph_of(z, 8)) for z in (x, x[order]))
    torch.testing.assert_close(other, y[order], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 99), count=st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_attention_sums_to_one_over_the_edges_there_are(seed: int, count: int) -> None:
    loss = graph_correlation()
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 8, generator=generator)
    is_there = torch.rand(5, 8, generator=generator) < count / 8
    share = loss._attention(logits, is_there)
    assert not share[~is_there].any() and ((share > 0).sum(1) <= loss.neighbors).all()
    torch.testing.assert_close(share.sum(1), is_there.any(1).float())


def test_neighbours_are_looked_at_for_512_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """N·k·D floats at once would be 5.3 GB for MSMT17."""
    seen, scaled = [], GraphCorrelation._scaled
    monkeypatch.setattr(
        GraphCorrelation, "_scaled", lambda loss, e: seen.append(len(e)) or scaled(loss, e)
    )
    loss, x = GraphCorrelation(feature_size=8, hidden=8), unit_rows(1200, 8).float()
    indices = np.random.default_rng(0).integers(0, 1200, (1200, 51))
    loss.refine_features(x, KnnGraph(indices, np.zeros(indices.shape, np.float32)))
    assert seen == [512, 512, 176]


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 4])
def test_too_few_images_for_the_neighbours_are_refused(images: int) -> None:
    loss, x = graph_correlation(), unit_rows(images, 8).float()
    with pytest.raises(ValueError, match=rf"NEIGHBORS=4 needs as many .* found {images - 1}\."):
        loss.refine_features(x, graph_of(x, 8))


def test_features_of_another_size_are_refused_in_both_places() -> None:
    loss, x = graph_correlation(), unit_rows(30, 6).float()
    match = r"MODEL\.LOSSES\.GraphCorrelation\.FEATURE_SIZE=8 must be the size of the features, 6"
    with pytest.raises(ValueError, match=match):
        loss.refine_features(x, graph_of(x, 8))
    memory = ClusterMemory()
    memory.reset(x, torch.arange(30) % 5)
    with pytest.raises(ValueError, match=match):
        loss(make_batch(x[:4], torch.arange(4)), memory)


def test_fewer_candidates_than_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match=r"GraphCorrelation\.CANDIDATES=3 must not be below"):
        GraphCorrelation(candidates=3, neighbors=4)
