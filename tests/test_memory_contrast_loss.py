import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from oracles.losses import filled, make_batch, unit_rows

from fastreid_cc.losses.memory_contrast import MemoryContrast, camera_entropy_weights, cross_entropy
from fastreid_cc.memories.instance import InstanceMemory

TARGETS = torch.tensor([2, 0, -1, 2, 4, 1, 0])


def raw(seed=3, scale=5.0):
    return (unit_rows(7, 8, seed=seed) * scale).requires_grad_()


def test_value_and_gradient_equal_the_loop():
    memory, x, slow = filled(unit_rows(5, 8)), raw(), raw()
    loss = MemoryContrast()(make_batch(x, TARGETS), memory)
    expected = oracle.memory_contrast(slow, memory.rows, TARGETS, 0.05)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, slow.grad)


def test_only_rows_of_the_anchors_camera_stay_with_same_camera_negatives():
    cameras = torch.tensor([0, 0, 1, 1, 2, 2, 0])
    memory = InstanceMemory(negatives="same_camera", init="features", temperature=0.1)
    memory.reset(unit_rows(7, 8), torch.full((7,), -1), cameras=cameras)
    own, cams = torch.tensor([6, 2, 4, 0]), torch.tensor([0, 1, 0, 0])  # 4 is seen as camera 0
    x, slow = unit_rows(4, 8, seed=1).requires_grad_(), unit_rows(4, 8, seed=1).requires_grad_()
    batch = make_batch(x, own, cams, own)
    mask = torch.tensor([[c == k for k in cameras] for c in cams])
    mask[2, 4] = True
    assert torch.equal(memory.loss_mask(batch), mask)
    loss = MemoryContrast()(batch, memory)
    expected = oracle.memory_contrast(slow, memory.rows, own, 0.1, mask)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, slow.grad)


def test_spcl_constant_equals_its_definition_and_caps_the_loss():
    logits = unit_rows(6, 9) * 20
    targets = torch.arange(6)
    p = logits.exp() / (logits.exp().sum(1, keepdim=True) + 1e-6)
    expected = -(p[torch.arange(6), targets] + 1e-6).log()
    torch.testing.assert_close(cross_entropy(logits, targets, floor=1e-6), expected)
    hopeless = torch.tensor([[-800.0, 800.0]])
    capped = cross_entropy(hopeless, torch.tensor([0]), floor=1e-6)
    assert capped.item() == pytest.approx(-math.log(1e-6))
    assert cross_entropy(hopeless, torch.tensor([0])).item() == pytest.approx(1600)


def test_high_temperature_gives_log_of_the_number_of_classes():
    memory = filled(unit_rows(5, 8), temperature=1e8)
    assert MemoryContrast()(make_batch(raw(), TARGETS), memory).item() == pytest.approx(math.log(5))


def test_a_batch_of_ignored_images_costs_nothing_and_has_zero_gradient():
    x = raw()
    loss = MemoryContrast(camera_entropy=True)(
        make_batch(x, torch.full((7,), -1)), filled(unit_rows(5, 8))
    )
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()


def test_camera_entropy_weights_equal_the_loop():
    targets = torch.tensor([3, 3, 3, 3, 1, 1, -1, 7, 7, 7])
    cameras = torch.tensor([0, 1, 2, 2, 0, 0, 1, 0, 1, 1])
    torch.testing.assert_close(
        camera_entropy_weights(targets, cameras),
        oracle.camera_entropy_weights(targets, cameras).double(),
    )


def test_camera_entropy_weights_are_one_when_every_cluster_has_one_camera():
    weights = camera_entropy_weights(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 1, 0, 3, 3]))
    torch.testing.assert_close(weights, torch.ones(5).double())


@given(order=st.permutations(range(7)), camera_entropy=st.booleans())
@settings(max_examples=25, deadline=None)
def test_permuting_the_batch_leaves_the_loss_alone(order, camera_entropy):
    memory, loss = filled(unit_rows(5, 8)), MemoryContrast(camera_entropy=camera_entropy)
    cameras, order = torch.tensor([0, 1, 1, 1, 0, 0, 0]), torch.tensor(order)
    x = raw().detach()
    torch.testing.assert_close(
        loss(make_batch(x[order], TARGETS[order], cameras[order]), memory),
        loss(make_batch(x, TARGETS, cameras), memory),
    )


def test_the_loss_is_float32_inside_autocast_and_for_half_inputs():
    memory = filled(unit_rows(5, 8, dtype=torch.float32))
    x = unit_rows(7, 8, seed=3, dtype=torch.float32)
    plain = MemoryContrast()(make_batch(x, TARGETS), memory)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = MemoryContrast()(make_batch(x, TARGETS), memory)
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)
    half = MemoryContrast()(make_batch(x.half(), TARGETS), memory)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(plain.item(), rel=0.01)


def test_a_missing_memory_is_refused():
    with pytest.raises(ValueError, match=r"needs a memory \(CC\.MEMORY\.NAME\).*CC\.ENABLED"):
        MemoryContrast()(make_batch(raw(), TARGETS))


def test_gradient_at_the_unit_features_is_that_of_cross_entropy():
    memory, x = filled(unit_rows(5, 8)), F.normalize(raw().detach()).requires_grad_()
    MemoryContrast()(make_batch(x, TARGETS), memory).backward()
    assert torch.allclose((x.grad * x.detach()).sum(1), torch.zeros(7, dtype=torch.float64))
