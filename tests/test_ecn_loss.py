import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.losses import graph_positives, make_batch, unit_rows

from fastreid_cc.losses.ecn import ECN, neighbor_weights, soft_cross_entropy
from fastreid_cc.memories import updates
from fastreid_cc.memories.instance import InstanceMemory

DATA = np.load(Path(__file__).parent / "parity" / "memories" / "ecn_memory.npz")
CASES = sorted({k.split("__")[0] for k in DATA.files} - {"seq", "total"})


def get(case, name):
    return torch.from_numpy(np.asarray(DATA[f"{case}__{name}"]))


def memory_for(case, rows, epoch, alpha0=0.01, beta=0.05):
    memory = InstanceMemory(temperature=beta, momentum_growth=alpha0)
    memory.reset(rows, torch.arange(len(rows)))
    memory.rows = rows.clone()
    memory.set_epoch(epoch)
    return memory


def ecn(memory, x, index, knn, start_epoch=5):
    """The loss at features that may have passed a dropout: the parts of ECN, not scaled."""
    logits = memory.logits(x, make_batch(x, index))
    k = knn if memory.epoch >= start_epoch else 0
    weights, *_ = neighbor_weights(logits, index, k, torch.ones_like(index, dtype=torch.bool))
    return soft_cross_entropy(logits, weights).mean(), weights


@pytest.mark.parametrize("case", CASES)
def test_loss_weights_gradient_and_update_equal_the_recording(case):
    x, index = get(case, "x").requires_grad_(), get(case, "index")
    epoch, alpha0 = int(get(case, "epoch")), float(get(case, "alpha0"))
    memory = memory_for(case, get(case, "em_before"), epoch, alpha0, float(get(case, "beta")))
    loss, weights = ecn(memory, x, index, int(get(case, "knn")))
    loss.backward()
    torch.testing.assert_close(weights, get(case, "weights"))
    torch.testing.assert_close(loss, get(case, "loss"), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(x.grad, get(case, "grad_x"), rtol=1e-9, atol=1e-12)
    assert memory.current_momentum == pytest.approx(alpha0 * epoch)
    updates.update_all(memory.rows, index, x.detach().clone(), memory.current_momentum)
    torch.testing.assert_close(memory.rows, get(case, "em_after"), rtol=1e-9, atol=1e-12)


def test_eight_steps_equal_the_recording():
    memory = memory_for("seq", get("seq", "em_initial"), 0)
    for i in range(8):
        memory.set_epoch(int(get("seq", "epoch")[i]))
        x, index = get("seq", "x")[i].requires_grad_(), get("seq", "index")[i]
        loss, _ = ecn(memory, x, index, 6)
        loss.backward()
        torch.testing.assert_close(loss, get("seq", "loss")[i], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(x.grad, get("seq", "grad_x")[i], rtol=1e-9, atol=1e-12)
        updates.update_all(memory.rows, index, x.detach().clone(), memory.current_momentum)
        torch.testing.assert_close(memory.rows, get("seq", "em_after")[i], rtol=1e-9, atol=1e-12)


def test_the_total_with_the_source_equals_the_recording():
    memory = memory_for("total", get("total", "em_before"), int(get("total", "epoch")))
    x = get("total", "x").requires_grad_()
    logits = get("total", "src_logits").requires_grad_()
    source = torch.nn.functional.cross_entropy(logits, get("total", "src_targets"))
    invariance, _ = ecn(memory, x, get("total", "index"), 6)
    weight = float(get("total", "lambda"))
    loss = (1 - weight) * source + weight * invariance
    loss.backward()
    torch.testing.assert_close(loss, get("total", "loss"), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(x.grad, get("total", "grad_x"), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "case", ["exemplar_epoch3", "neighbour_epoch59", "knn8_epoch10_beta0p1_alpha0p005"]
)
def test_the_registered_loss_equals_its_parts_on_unit_features(case):
    x, index, knn = get(case, "x"), get(case, "index"), int(get(case, "knn"))
    x = x / x.norm(dim=1, keepdim=True)
    memory = memory_for(case, get(case, "em_before"), int(get(case, "epoch")))
    loss = ECN(neighbors=knn)(make_batch(7 * x, index), memory)
    torch.testing.assert_close(loss, ecn(memory, x, index, knn)[0])


def test_source_images_have_no_neighbours():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 2)
    weights, *_ = neighbor_weights(logits, torch.tensor([1, 3]), 2, torch.tensor([False, True]))
    assert weights.tolist() == [[0, 1, 0, 0], [0.5, 0.5, 0, 1]]


def test_rows_never_written_are_no_neighbours():
    """Their cosine, 0, is above that of rows that look away."""
    rows = F.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))
    rows[4:] = 0
    memory = memory_for("zeros", rows, 0)
    x, index = -rows[:4].mean(0, keepdim=True), torch.tensor([0])
    loss = ECN(neighbors=3, start_epoch=0)
    logits = (F.normalize(x) @ rows.T / 0.05)[0]
    near = logits[:4].topk(3).indices.tolist()
    expected = -logits.log_softmax(0)[[0, *(j for j in near if j)]]
    expected[1:] /= 3
    torch.testing.assert_close(loss(make_batch(x, index), memory), expected.sum())
    memory.rows.zero_()
    assert loss(make_batch(x, index), memory).item() == pytest.approx(math.log(12), rel=1e-6)
    assert not loss.positives.chosen.any()


@pytest.mark.parametrize("name", ["ECN", "GraphPositives"])
def test_rows_of_other_cameras_are_no_positives_where_they_are_no_negatives(name):
    """Their logits are LOW: with any weight the loss was near 1e29."""
    options = {"neighbors": 6} if name == "ECN" else {"candidates": 12, "fallback": 6}
    loss = ECN(start_epoch=0, **options) if name == "ECN" else graph_positives(**options)
    memory = InstanceMemory(init="features", negatives="same_camera")
    rows, cameras = unit_rows(16, 8), torch.arange(16) % 4
    memory.reset(rows, torch.arange(16), cameras=cameras)
    memory.set_epoch(5)
    index = torch.arange(6)
    value = loss(make_batch(unit_rows(6, 8, seed=1), index, cameras[index]), memory)
    assert 0 < value < 100
    found = loss.positives
    assert found.chosen.any(1).all()
    right = cameras[found.rows] == cameras[index][:, None]
    assert not (found.chosen & ~right).any()
