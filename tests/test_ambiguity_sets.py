import pytest
import torch
from oracles import losses as oracle
from oracles.losses import filled, make_batch, unit_rows

from fastreid_cc.labels.ambiguity_sets import (
    ambiguity_sets,
    cooccurrence,
    merge_proposals,
    threshold,
)
from fastreid_cc.losses.average_k import AverageK
from fastreid_cc.losses.memory_contrast import MemoryContrast


@pytest.mark.parametrize("k", [1, 1.5, 3, 5])
def test_sets_hold_k_classes_on_average(k):
    sets = ambiguity_sets(unit_rows(64, 40) * 8, k)
    assert sets.sum().item() == round(64 * k)
    assert len(set(sets.sum(1).tolist())) > 1 or k == 1


def test_the_threshold_lies_midway_and_all_classes_pass_if_k_is_their_number():
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]).log()
    assert threshold(scores, 1).exp().item() == pytest.approx(0.45)
    assert threshold(scores, 1.5).exp().item() == pytest.approx(0.3)
    assert threshold(scores, 9).exp().item() == pytest.approx(0.1)
    assert ambiguity_sets(scores, 3).all()


@pytest.mark.parametrize("temperature", [0.02, 0.005, 0.001])
def test_low_temperatures_leave_k_classes_too(temperature):
    """All probabilities but the first of an image are below the least float32."""
    rows = unit_rows(40, 64).float()
    cosines = (rows + 0.02 * unit_rows(40, 64, seed=1).float()) @ rows.T
    assert ambiguity_sets(cosines / temperature, 1.5).sum() == 60


def test_classes_that_are_not_allowed_are_in_no_set_and_ties_are_in_all():
    logits = torch.tensor([[2.0, 2.0, -torch.inf], [2.0, -torch.inf, -torch.inf]])
    for k in (1, 2, 3):
        assert ambiguity_sets(logits, k).tolist() == [[True, True, False], [True, False, False]]
    nothing = torch.full((1, 3), -torch.inf)
    assert ambiguity_sets(torch.cat([logits, nothing]), 1).tolist()[2] == [False] * 3


def test_overlapping_classes_of_a_mixture_give_sets_of_two_and_a_merge_proposal():
    centers = torch.eye(5)
    centers[1] = centers[0] + 0.05 * centers[1]
    labels = torch.arange(200) % 5
    noise = 0.02 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    logits = (centers[labels] + noise) @ centers.T * 20
    sets = ambiguity_sets(logits, 1.4)
    overlap = labels < 2
    assert (sets.sum(1) == torch.where(overlap, 2, 1)).all()
    assert merge_proposals(cooccurrence(sets)).tolist() == [[0, 1]]


def test_the_target_is_always_in_its_set_and_ignored_images_add_none():
    logits = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    sets = ambiguity_sets(logits, 1, torch.tensor([2, -1]))
    assert sets.tolist() == [[True, False, True], [True, False, False]]


def setup(**kwargs):
    memory = filled(unit_rows(6, 8), temperature=0.2)
    memory.set_epoch(5)
    return AverageK(**kwargs), memory, (unit_rows(10, 8, seed=1) * 3).requires_grad_()


def test_two_heads_equal_the_loop():
    loss_fn, memory, x = setup(set_size=1.5, alpha=0.3, use="two_head")
    slow, y = x.detach().clone().requires_grad_(), torch.arange(10) % 6
    loss = loss_fn(make_batch(x, y), memory)
    logits = torch.stack([oracle.unit(row) @ memory.rows.T / 0.2 for row in slow])
    expected = oracle.two_head(logits, y, 1.5, 0.3)
    (loss + expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, slow.grad)


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_two_heads_keep_their_scale_with_many_classes_and_low_temperatures(temperature):
    """Features of a network share a direction, so all cosines are above 0."""
    rows = oracle.unit(unit_rows(30_000, 32) + 0.4 * unit_rows(1, 32, seed=1))
    memory = filled(rows.float(), temperature=temperature)
    memory.set_epoch(5)
    y = torch.arange(8)
    x = (rows[y] + 0.3 * unit_rows(8, 32, seed=2)).float()
    extra = [
        AverageK(use=use)(make_batch(x, y), memory) - MemoryContrast()(make_batch(x, y), memory)
        for use in ("two_head", "soft_positives")
    ]
    assert all(0 <= value < 5 for value in extra)


def test_masked_candidates_are_no_negatives():
    loss_fn, memory, x = setup(set_size=2.0)
    y = torch.arange(10) % 6
    logits = oracle.unit(x) @ memory.rows.T / 0.2
    sets = ambiguity_sets(logits, 2.0, y)
    terms = []
    for i in range(10):
        kept = [j for j in range(6) if j == y[i] or not sets[i, j]]
        terms.append(logits[i, kept].logsumexp(0) - logits[i, y[i]])
    torch.testing.assert_close(loss_fn(make_batch(x, y), memory), torch.stack(terms).mean())


def test_soft_positives_pull_to_every_candidate():
    loss_fn, memory, x = setup(set_size=2.0, alpha=1.0, use="soft_positives")
    y = torch.arange(10) % 6
    batch = make_batch(x, y)
    extra = loss_fn(batch, memory) - MemoryContrast()(batch, memory)
    z = oracle.unit(x) @ memory.rows.T / 0.2
    others = ambiguity_sets(z, 2.0, y)
    bias = [oracle.head_bias(row[~inside], 6, 2.0) for row, inside in zip(z, others, strict=True)]
    u = z - torch.tensor(bias)[:, None]
    others[torch.arange(10), y] = False
    torch.testing.assert_close(extra, -(u.sigmoid().log() * others).sum() / 10)


@pytest.mark.parametrize("use", ["two_head", "soft_positives", "mask_negatives"])
def test_before_the_start_and_with_one_class_per_image_and_no_extra_it_is_cross_entropy(use):
    loss_fn, memory, x = setup(use=use)
    memory.set_epoch(4)
    batch = make_batch(x, torch.arange(10) % 6)
    torch.testing.assert_close(loss_fn(batch, memory), MemoryContrast()(batch, memory))


def test_outliers_train_only_if_rescued():
    y = torch.full((10,), -1)
    for rescue in (False, True):
        loss_fn, memory, x = setup(rescue=rescue)
        loss_fn(make_batch(x, y), memory).backward()
        assert bool(x.grad.any()) == rescue
