"""What every registered loss keeps."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.losses import ALL_LOSSES, MEMORY_OF, make_batch, memory_by_name, teach, unit_rows

from fastreid_cc.registry import LOSSES

TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 3, 3, 1, 2])
CAMERAS = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 1])
MEMORIES_USED = {name: memory_by_name(MEMORY_OF.get(name, "cluster")) for name in ALL_LOSSES}


def loss_and_gradient(name, x, targets=TARGETS, cameras=CAMERAS):
    x = x.detach().clone().requires_grad_()
    memory = MEMORIES_USED[name]
    loss = ALL_LOSSES[name](teach(make_batch(x, targets, cameras), memory), memory)
    loss.backward()
    return loss.detach(), x.grad


def test_every_loss_that_issue_and_configs_name_is_registered():
    expected = {
        "AMSoftmax",
        "AdaSP",
        "AverageK",
        "BatchHardTriplet",
        "CameraProxyContrast",
        "ECN",
        "EasyPositive",
        "GraphPositives",
        "MemoryContrast",
        "MultiSimilarity",
        "PairwiseCircle",
        "PairwiseCosface",
        "SoftContrast",
        "SoftTriplet",
        "SupCon",
    }
    assert expected <= set(LOSSES.names())
    assert not {"CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"} & set(LOSSES.names())
    with pytest.raises(KeyError, match="Did you mean 'AdaSP'"):
        LOSSES.get("AdaSpLoss")


def test_a_loss_is_logged_by_the_words_of_its_name_or_by_its_own():
    named = {name: LOSSES.get(name).log_name for name in LOSSES.names()}
    assert named["MemoryContrast"] == "memory_contrast" and named["SupCon"] == "sup_con"
    assert (named["ECN"], named["AMSoftmax"], named["AdaSP"]) == ("ecn", "am_softmax", "adasp")
    assert len(set(named.values())) == len(named)


@pytest.mark.parametrize("name", LOSSES.names())
def test_parameters_are_plain_defaults_and_scale_is_left_to_the_pipeline(name):
    parameters = LOSSES.parameters(name)
    assert "scale" not in parameters
    assert all(isinstance(v, bool | int | float | str | tuple) for v in parameters.values())


@pytest.mark.parametrize("name", ALL_LOSSES)
@given(order=st.permutations(range(12)))
@settings(max_examples=8, deadline=None)
def test_permuting_the_batch_permutes_the_gradient_only(name, order):
    x, order = unit_rows(12, 8, seed=1) * 4, torch.tensor(order)
    loss, grad = loss_and_gradient(name, x)
    other, other_grad = loss_and_gradient(name, x[order], TARGETS[order], CAMERAS[order])
    torch.testing.assert_close(other, loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other_grad, grad[order], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_gradient_equals_finite_differences(name):
    x = unit_rows(12, 8, seed=1) * 2
    _, grad = loss_and_gradient(name, x)
    step = 1e-6 * unit_rows(12, 8, seed=7)
    fixed = name == "AdaSP" or name == "PairwiseCircle"  # weights held constant by definition
    up, down = (loss_and_gradient(name, x + s * step)[0] for s in (1, -1))
    expected = 2 * (grad * step).sum()
    assert abs(up - down) < 1e-3
    if not fixed:
        torch.testing.assert_close(up - down, expected, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_scaling_the_rows_changes_nothing(name):
    if name in ("BatchHardTriplet", "SoftTriplet", "triplet_weighted"):
        pytest.skip("Euclidean distances of the features as they are")
    x, factors = unit_rows(12, 8, seed=1), torch.linspace(0.1, 50, 12)[:, None].double()
    torch.testing.assert_close(
        loss_and_gradient(name, x)[0], loss_and_gradient(name, x * factors)[0]
    )


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_ignored_images_get_no_gradient_and_a_batch_of_them_costs_nothing(name):
    if name == "two_head":
        pytest.skip("rescues images without a target")
    _, grad = loss_and_gradient(name, unit_rows(12, 8, seed=1))
    assert not grad[5].any() and grad.any()
    loss, grad = loss_and_gradient(name, unit_rows(12, 8, seed=1), torch.full((12,), -1))
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize("name", ALL_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_loss_is_float32_inside_autocast_and_near_float64(name, dtype):
    x = unit_rows(12, 8, seed=1).to(dtype)
    expected, _ = loss_and_gradient(name, x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, grad = loss_and_gradient(name, x)
    assert loss.dtype == torch.float32 and grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize("name", ALL_LOSSES)
@given(
    rows=st.lists(st.lists(finite, min_size=8, max_size=8), min_size=1, max_size=7),
    targets=st.lists(st.integers(-1, 3), min_size=7, max_size=7),
)
@settings(max_examples=25, deadline=None)
def test_no_finite_input_gives_nan(name, rows, targets):
    x, size = torch.tensor(rows, dtype=torch.float32), len(rows)
    loss, grad = loss_and_gradient(name, x, torch.tensor(targets)[:size], CAMERAS[:size])
    assert torch.isfinite(loss) and not torch.isnan(grad).any()


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_neither_batch_nor_memory_is_changed(name):
    x, memory = unit_rows(12, 8, seed=1), MEMORIES_USED[name]
    before = x.clone(), copy.deepcopy(memory.get_state())
    batch = teach(make_batch(x.requires_grad_(), TARGETS.clone(), CAMERAS.clone()), memory)
    ALL_LOSSES[name](batch, memory).backward()
    assert torch.equal(x, before[0]) and torch.equal(batch.targets, TARGETS)
    after = memory.get_state()
    assert all(torch.equal(after[k], v) for k, v in before[1].items() if torch.is_tensor(v))


@pytest.mark.parametrize("name", [n for n in ALL_LOSSES if ALL_LOSSES[n].needs_memory])
def test_a_missing_memory_is_refused(name):
    with pytest.raises(ValueError, match=r"CC\.MEMORY\.NAME"):
        ALL_LOSSES[name](make_batch(unit_rows(12, 8), TARGETS))


@pytest.mark.parametrize("name", [n for n in ALL_LOSSES if ALL_LOSSES[n].needs_teacher])
def test_a_missing_teacher_is_refused(name):
    with pytest.raises(ValueError, match=r"CC\.TEACHER\.ENABLED"):
        ALL_LOSSES[name](make_batch(unit_rows(12, 8), TARGETS), MEMORIES_USED[name])
