import pytest
import torch
from oracles import losses as oracle
from oracles.losses import make_batch, unit_rows

from fastreid_cc.memories.instance import InstanceMemory


def test_rows_start_at_zero_and_survive_a_reset_of_the_same_size():
    memory = InstanceMemory(momentum=0.5)
    memory.reset(unit_rows(6, 4), torch.full((6,), -1))
    assert not memory.rows.any() and len(memory.rows) == 6
    memory.update(make_batch(unit_rows(2, 4, seed=1), torch.tensor([1, 3])))
    rows = memory.rows.clone()
    memory.reset(unit_rows(6, 4, seed=2), torch.zeros(6, dtype=torch.int64))
    assert torch.equal(memory.rows, rows)
    assert torch.equal(rows.norm(dim=1) > 0.5, torch.tensor([0, 1, 0, 1, 0, 0]).bool())


def test_init_from_features_takes_them_at_every_reset():
    memory = InstanceMemory(init="features")
    for seed in (0, 1):
        memory.reset(unit_rows(6, 4, seed=seed), torch.arange(6))
        assert torch.equal(memory.rows, unit_rows(6, 4, seed=seed))


def test_momentum_grows_with_the_epoch_and_is_clipped():
    memory = InstanceMemory(momentum=0.1, momentum_growth=0.01)
    expected = {0: 0.1, 20: 0.3, 90: 1.0, 400: 1.0}
    for epoch, momentum in expected.items():
        memory.set_epoch(epoch)
        assert memory.current_momentum == pytest.approx(momentum)


def test_views_move_a_row_once_by_their_unit_mean():
    memory = InstanceMemory(update="mean", momentum=0.2, momentum_growth=0.0, init="features")
    memory.reset(unit_rows(5, 4), torch.arange(5))
    features, index = unit_rows(6, 4, seed=1), torch.tensor([4, 1, 4, 4, 1, 0])
    expected = oracle.mean_update(memory.rows, index, features, 0.2, unit_means=True)
    memory.update(make_batch(features * 2, index))
    torch.testing.assert_close(memory.rows, expected)


def test_every_image_is_its_own_class_after_the_sources():
    memory = InstanceMemory(init="features")
    labels = torch.tensor([0, 0, -1, 1])
    memory.reset(unit_rows(4, 4), labels, source_centroids=unit_rows(3, 4, seed=1))
    assert memory.label_space(labels).tolist() == [3, 4, 5, 6]
    assert len(memory.rows) == 7


def test_same_camera_negatives_without_cameras_use_all_rows():
    memory = InstanceMemory(negatives="same_camera")
    memory.reset(unit_rows(4, 4), torch.arange(4))
    assert memory.loss_mask(make_batch(unit_rows(2, 4), torch.tensor([0, 1]))) is None


def test_source_images_meet_source_rows_and_targets_their_camera():
    memory = InstanceMemory(negatives="same_camera", init="features")
    memory.reset(
        unit_rows(3, 4),
        torch.arange(3),
        cameras=torch.tensor([0, 1, 1]),
        source_centroids=unit_rows(2, 4, seed=1),
    )
    batch = make_batch(unit_rows(2, 4), torch.tensor([1, 4]), torch.tensor([1, 1]))
    expected = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    assert torch.equal(memory.loss_mask(batch), expected)
