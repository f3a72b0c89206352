"""Two memories behind one face equal two memories apart."""

import io

import pytest
import torch
from oracles.losses import make_batch, memory_by_name, unit_rows

from fastreid_cc.memories.pair import PairMemory, halves
from fastreid_cc.registry import MEMORIES

LABELS = torch.arange(12) % 4 - 1


def pair_of(name):
    return PairMemory(*(MEMORIES.get(name)() for _ in range(2)))


@pytest.mark.parametrize("name", MEMORIES.names())
def test_halves_are_two_memories_apart(name):
    pair, alone = pair_of(name), [MEMORIES.get(name)() for _ in range(2)]
    parts = [unit_rows(12, 4, seed=s) for s in (0, 1)]
    cameras = torch.arange(12) % 2
    pair.reset(torch.cat(parts, 1), LABELS, cameras=cameras)
    for memory, part in zip(alone, parts, strict=True):
        memory.reset(part, LABELS, cameras=cameras)
    index = torch.tensor([1, 2, 5, 1])
    moves = [3 * unit_rows(4, 4, seed=s) for s in (2, 3)]
    targets = pair.label_space(LABELS)[index]
    assert torch.equal(pair.label_space(LABELS), alone[0].label_space(LABELS))
    pair.update(make_batch(torch.cat(moves, 1), targets, cameras[index], index))
    for memory, own, move in zip(alone, pair.both, moves, strict=True):
        memory.update(make_batch(move, targets, cameras[index], index))
        torch.testing.assert_close(memory.rows, own.rows)
    assert pair.num_clusters == alone[0].num_clusters and pair.persists == alone[0].persists
    batch = make_batch(torch.cat(moves, 1), targets, cameras[index], index)
    ours = pair.logits(torch.nn.functional.normalize(batch.features), batch)
    parts = [
        m.logits(torch.nn.functional.normalize(x), batch) for m, x in zip(alone, moves, strict=True)
    ]
    torch.testing.assert_close(ours, sum(parts) / 2)
    assert torch.equal(pair.targets(batch), alone[0].targets(batch))


def test_state_survives_a_checkpoint():
    pair, other = pair_of("hybrid"), pair_of("hybrid")
    pair.reset(unit_rows(12, 8), LABELS, source_centroids=unit_rows(3, 8, seed=4))
    pair.set_epoch(7)
    buffer = io.BytesIO()
    torch.save(pair.get_state(), buffer)
    buffer.seek(0)
    other.set_state(torch.load(buffer, weights_only=True))
    assert other.epoch == 7 and other.num_sources == 3
    rows = torch.cat([memory.rows for memory in pair.both], 1)
    assert torch.equal(other.source_centroids(), rows[:3])
    assert torch.equal(other.clustering_features(), rows[3:])
    with pytest.raises(ValueError, match="two networks"):
        other.set_state(memory_by_name("hybrid").get_state())


def test_odd_features_have_no_halves():
    with pytest.raises(ValueError, match="even size, found 5"):
        halves(unit_rows(2, 5))
