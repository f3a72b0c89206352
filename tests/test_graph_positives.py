"""Graph positive prediction: weights by loops, what trains what, and a planted graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracles import losses as oracle
from oracles.losses import graph_positives, make_batch, unit_rows

from fastreid_cc.losses.graph_positives import CandidateGraph, GraphPositives
from fastreid_cc.memories.instance import InstanceMemory


def memory_with(rows, source_rows=None, classes=None, epoch=5):
    memory = InstanceMemory(source_rows=source_rows is not None)
    if classes is not None:
        memory.set_source_images(classes)
    memory.reset(rows, torch.arange(len(rows)))
    memory.rows = rows.clone()
    if source_rows is not None:
        memory.source_rows = source_rows.clone()
    memory.set_epoch(epoch)
    return memory


def node(f, row):
    return torch.cat([row - f, (row @ f)[None]])


def graph_by_loops(net, nodes, rows):
    """Logits of one image's candidates: every layer ReLU([x, mean of the nearest others] W + b)."""
    k = len(nodes)
    x = [node.float() for node in nodes]
    cosine = F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T
    near = [
        sorted((j for j in range(k) if j != i), key=lambda j, i=i: -float(cosine[i, j]))
        for i in range(k)
    ]
    for layer in net.layers:
        means = [sum(x[j] for j in near[i][: net.neighbors]) / net.neighbors for i in range(k)]
        x = [F.relu(layer(torch.cat([x[i], means[i]]))) for i in range(k)]
    return torch.stack([net.last(v)[0] for v in x])


def test_weights_and_loss_on_the_target_equal_loops() -> None:
    loss, rows = graph_positives(node_neighbors=3), unit_rows(20, 8)
    x, y = unit_rows(5, 8, seed=2), torch.tensor([3, 0, 19, 7, 7])
    memory = memory_with(rows)

    def is_positive(i, j, order):
        nodes = torch.stack([node(x[i], rows[c]) for c in order])
        logits = graph_by_loops(loss.graph, nodes, rows[order])
        return bool(logits[order.index(j)].sigmoid() >= loss.threshold)

    weights = oracle.gpp_weights(x, rows, y, 6, is_positive)
    assert 5 < (weights > 0).sum() < 35  # some positives, not all candidates
    f, g = (x.clone().requires_grad_() for _ in range(2))
    found = loss(make_batch(3 * f, y), memory)
    expected = -(weights * (oracle.unit(g) @ rows.T / 0.05).log_softmax(1)).sum(1).mean()
    found.backward(), expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(f.grad, g.grad)
    assert all(p.grad is None for p in loss.parameters())


def test_before_the_start_epoch_it_is_instance_contrast() -> None:
    rows, x, y = unit_rows(20, 8), unit_rows(5, 8, seed=2), torch.tensor([3, 0, 19, 7, 7])
    found = graph_positives()(make_batch(x, y), memory_with(rows, epoch=4))
    torch.testing.assert_close(found, oracle.memory_contrast(x, rows, y, 0.05))


def test_source_images_train_the_graph_and_nothing_else() -> None:
    loss = graph_positives(node_neighbors=2)
    source, classes = unit_rows(12, 8, seed=1), torch.arange(12) % 3
    source[5] = 0  # a row that no image has filled yet
    memory = memory_with(unit_rows(9, 8), source, classes)
    x = unit_rows(4, 8, seed=3).requires_grad_()
    index = torch.tensor([0, 4, 7, 11])
    batch = make_batch(x, classes[index], indices=index, domains=torch.ones(4, dtype=torch.int64))
    value = loss(batch, memory)
    value.backward()
    assert x.grad is None
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())
    total = 0.0
    for i in range(4):
        filled = [j for j in range(12) if j != 5]
        order = sorted(filled, key=lambda j, i=i: -float(x[i].detach() @ source[j]))[:6]
        nodes = torch.stack([node(x[i].detach(), source[j]) for j in order])
        logits = graph_by_loops(loss.graph, nodes, source[order])
        terms = [
            F.binary_cross_entropy_with_logits(z, (classes[j] == classes[index[i]]).float())
            for z, j in zip(logits, order, strict=True)
            if j != int(index[i])
        ]
        total += float(sum(terms).detach() / len(terms))
    assert value.item() == pytest.approx(total / 4, rel=1e-5)


def test_a_planted_graph_is_found_on_identities_never_seen() -> None:
    """Trained on 12 identities, the ranking of other identities' candidates has AUC > 0.95."""
    torch.manual_seed(0)
    loss = GraphPositives(feature_size=16, candidates=20, hidden=32, node_neighbors=4)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    classes = torch.arange(96) % 12

    def world(seed: int) -> torch.Tensor:
        centers = unit_rows(12, 16, seed=seed)
        return F.normalize(centers[classes] + 0.5 * unit_rows(96, 16, seed=seed + 1)).float()

    for step in range(120):
        rows = world(2 * (step % 4))
        index = torch.randperm(96)[:24]
        memory = memory_with(rows[:2], rows, classes)
        batch = make_batch(
            rows[index], classes[index], indices=index, domains=torch.ones(24, dtype=torch.int64)
        )
        optimizer.zero_grad()
        loss(batch, memory).backward()
        optimizer.step()
    rows = world(1000)
    with torch.no_grad():
        found, nodes, _ = loss._nodes(rows, rows)
        scores = loss.graph(nodes, rows[found])
    keep = found != torch.arange(96)[:, None]
    same = (classes[found] == classes[:, None])[keep]
    scores = scores[keep]
    positive, negative = scores[same], scores[~same]
    auc = (positive[:, None] > negative).float().mean()
    assert auc > 0.95


def test_rows_move_by_domain_and_survive_a_reset() -> None:
    memory = InstanceMemory(source_rows=True)
    memory.set_source_images(torch.tensor([0, 0, 1]))
    memory.reset(unit_rows(4, 8), torch.full((4,), -1))
    x = unit_rows(4, 8, seed=1)
    batch = make_batch(
        x,
        torch.tensor([2, 3, 1, 0]),
        indices=torch.tensor([2, 3, 2, 0]),
        domains=torch.tensor([0, 0, 1, 1]),
    )
    memory.update(batch)
    torch.testing.assert_close(memory.rows[[2, 3]], x[:2])
    torch.testing.assert_close(memory.source_rows[[2, 0]], x[2:])
    assert not memory.rows[:2].any() and not memory.source_rows[1].any()
    before = memory.source_rows.clone()
    memory.set_source_images(torch.tensor([0, 0, 1]))
    memory.reset(unit_rows(4, 8), torch.full((4,), -1))
    assert torch.equal(memory.source_rows, before)
    other = InstanceMemory(source_rows=True)
    other.set_state(memory.get_state())
    assert torch.equal(other.source_rows, before)
    assert other.source_classes.tolist() == [0, 0, 1]


def test_one_candidate_has_no_neighbours() -> None:
    net = CandidateGraph(4, 8, 1, 5)
    assert net.adjacency(unit_rows(2, 1, 4)).tolist() == [[[0.0]], [[0.0]]]


def test_the_size_of_the_features_is_checked_and_its_key_named() -> None:
    with pytest.raises(ValueError, match=r"FEATURE_SIZE=8 must be the size of the features, 6"):
        graph_positives()(
            make_batch(unit_rows(2, 6), torch.arange(2)), memory_with(unit_rows(3, 6))
        )
    for argument, value in (("candidates", 0), ("threshold", 0.0), ("start_epoch", -1)):
        with pytest.raises(ValueError, match=rf"GraphPositives\.{argument.upper()}="):
            graph_positives(**{argument: value})


def test_an_image_without_positives_falls_back_to_its_nearest_rows() -> None:
    """Or has only itself, with `fallback` 0; one whose graph finds some keeps those."""
    rows, x, y = unit_rows(20, 8), unit_rows(5, 8, seed=2), torch.tensor([3, 0, 19, 7, 7])
    memory, batch = memory_with(rows), make_batch(x, y)
    alone = graph_positives(threshold=1.0)
    torch.testing.assert_close(alone(batch, memory), oracle.memory_contrast(x, rows, y, 0.05))
    assert not alone.positives.chosen.any() and not alone.positives.fell_back.any()
    loss = graph_positives(threshold=1.0, fallback=3, candidates=10)
    nearest = oracle.gpp_weights(x, rows, y, 10, lambda i, j, order: j in others(order, y[i])[:3])
    expected = -(nearest * (x @ rows.T / 0.05).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(batch, memory), expected)
    assert loss.positives.fell_back.all()
    some = graph_positives(fallback=3)
    with_fallback, without = some(batch, memory), graph_positives()(batch, memory)
    has = ~some.positives.fell_back
    assert has.any()
    if has.all():
        torch.testing.assert_close(with_fallback, without)


def others(order: list[int], own: torch.Tensor) -> list[int]:
    return [j for j in order if j != int(own)]


def test_the_graph_s_loss_has_a_factor_of_its_own() -> None:
    loss = graph_positives(graph_scale=2.0)
    assert loss.factor("source", 0.3, 0.7) == 2.0
    assert loss.factor("target", 0.3, 0.7) == 0.3


def test_source_rows_are_features_at_every_reset_where_those_of_the_target_are() -> None:
    memory = InstanceMemory(init="features", source_rows=True)
    for seed in (1, 2):
        rows = unit_rows(3, 8, seed=seed)
        memory.set_source_images(torch.tensor([0, 0, 1]), 2 * rows)
        memory.reset(unit_rows(4, 8), torch.full((4,), -1))
        torch.testing.assert_close(memory.source_rows, rows)
