"""Every recorded case of the sparse pairwise, pairwise and AM-Softmax losses: values, gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.losses import filled, make_batch

from fastreid_cc.losses.adasp import AdaSP
from fastreid_cc.losses.am_softmax import AMSoftmax, with_margin
from fastreid_cc.losses.batch_hard_triplet import BatchHardTriplet
from fastreid_cc.losses.easy_positive import EasyPositive
from fastreid_cc.losses.multi_similarity import MultiSimilarity
from fastreid_cc.losses.pairwise_circle import PairwiseCircle, PairwiseCosface
from fastreid_cc.losses.supcon import SupCon

PARITY = Path(__file__).parent / "parity" / "losses"
GROUPED = sorted(p for p in PARITY.glob("adasp_*.npz") if "edge" not in p.name)
PAIRWISE = sorted(p for p in PARITY.glob("pairwise_*.npz") if "degenerate" not in p.name)

LOSSES = {
    "supcon_t0.07": SupCon(),
    "supcon_t0.1_b0.1": SupCon(temperature=0.1, base_temperature=0.1),
    "ms_p2_n40": MultiSimilarity(),
    "ms_p2_n50": MultiSimilarity(beta=50.0),
    "ep_s0.1": EasyPositive(),
    "ep_s0.05": EasyPositive(temperature=0.05),
    "ep_semi_s0.1": EasyPositive(semi_hard=True),
    "circle_m0.25_g128": PairwiseCircle(),
    "circle_m0.25_g64": PairwiseCircle(temperature=1 / 64),
    "cosface_m0.25_g128": PairwiseCosface(),
} | {
    f"triplet_{m}_{d}_{mining}": BatchHardTriplet(
        margin=0.3 if m == "m0.3" else 0.0,
        distance={"cos": "cosine", "euclid": "euclidean"}[d],
        mining=mining,
    )
    for m in ("soft", "m0.3")
    for d in ("euclid", "cos")
    for mining in ("hard", "weighted")
    if (m, mining) != ("m0.3", "weighted")
}


def run(loss_fn, x, labels):
    x = torch.from_numpy(x).requires_grad_()
    loss = loss_fn(make_batch(x, torch.from_numpy(labels)))
    loss.backward()
    return loss.detach().numpy(), x.grad.numpy()


def near_gradient(got, expected, rtol, atol):
    """Gradients are compared relative to their largest entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol + rtol * np.abs(expected).max())


def check_adasp(data, prefix=""):
    x, labels = data[prefix + "x64"], data[prefix + "labels"]
    for i, kind in enumerate(data[prefix + "types"]):
        for j, temp in enumerate(data[prefix + "temps"]):
            loss_fn = AdaSP(temperature=float(temp), type=str(kind))
            loss, grad = run(loss_fn, x, labels)
            expected = data[prefix + "loss_f64"][i, j]
            atol = 1e-13 if expected > 1e-6 else 1e-12  # the recording has lost its digits there
            np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=atol)
            near_gradient(grad, data[prefix + "grad_f64"][i, j], 1e-9, 10 * atol)
            loss32, grad32 = run(loss_fn, x.astype(np.float32), labels)
            assert loss32.dtype == np.float32
            np.testing.assert_allclose(loss32, expected, rtol=2e-5, atol=2e-6)
            near_gradient(grad32, data[prefix + "grad_f64"][i, j], 5e-5, 2e-6)


@pytest.mark.parametrize("path", GROUPED, ids=lambda p: p.stem)
def test_adasp_equals_the_recording(path):
    check_adasp(np.load(path))


@pytest.mark.parametrize("prefix", ["dup_", "switch_", "fp16_", "bf16_"])
def test_adasp_edge_cases_equal_the_recording(prefix):
    check_adasp(np.load(PARITY / "adasp_edge.npz"), prefix)


@pytest.mark.parametrize("kind", ["adasp", "sp-h", "sp-lh"])
def test_adasp_of_one_identity_is_zero_with_zero_gradient(kind):
    data = np.load(PARITY / "adasp_edge.npz")
    loss, grad = run(AdaSP(type=kind), data["single_id_x64"], data["single_id_labels"])
    assert loss == 0 and not grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adasp_of_half_inputs_is_within_one_percent_of_float64(dtype):
    prefix = "fp16_" if dtype == torch.float16 else "bf16_"
    data = {k: v for k, v in np.load(PARITY / "adasp_edge.npz").items() if k.startswith(prefix)}
    x, labels = (torch.from_numpy(data[prefix + k]) for k in ("x64", "labels"))
    for i, kind in enumerate(data[prefix + "types"]):
        for j, temp in enumerate(data[prefix + "temps"]):
            half = x.to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = AdaSP(temperature=float(temp), type=str(kind))(make_batch(half, labels))
            loss.backward()
            expected = data[prefix + "loss_f64"][i, j]
            assert loss.dtype == torch.float32
            assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
            grad = data[prefix + "grad_f64"][i, j]
            np.testing.assert_allclose(half.grad.double(), grad, atol=0.01 * np.abs(grad).max())


@pytest.mark.parametrize("path", PAIRWISE, ids=lambda p: p.stem)
@pytest.mark.parametrize("name", LOSSES)
def test_pairwise_losses_equal_the_recording(path, name):
    data, loss_fn = np.load(path), LOSSES[name]
    rtol = 1e-8 if name.startswith(("circle", "cosface")) else 1e-9
    loss, grad = run(loss_fn, data["x64"], data["labels"])
    np.testing.assert_allclose(loss, data[f"{name}__loss"], rtol=rtol, atol=1e-13)
    near_gradient(grad, data[f"{name}__grad"], rtol, 1e-13)
    loss, grad = run(loss_fn, data["x32"], data["labels"])
    np.testing.assert_allclose(loss, data[f"{name}__loss"], rtol=5e-5, atol=2e-6)
    near_gradient(grad, data[f"{name}__grad"], 5e-5, 2e-6)


def test_degenerate_batches_are_finite_and_equal_where_the_recording_is_defined():
    """Ours skip what has no positive or negative; equal otherwise (weighted triplet: with one)."""
    data = np.load(PARITY / "pairwise_degenerate.npz")
    compared = 0
    for case in ("K1", "P1", "one_singleton", "dup_pair"):
        for name, loss_fn in LOSSES.items():
            loss, grad = run(loss_fn, data[f"{case}__x64"], data[f"{case}__labels"])
            assert np.isfinite(loss) and np.isfinite(grad).all(), (case, name)
            expected = data[f"{case}__{name}__loss"]
            if np.isfinite(expected) and not (case == "P1" and "weighted" in name):
                np.testing.assert_allclose(loss, expected, rtol=1e-8, atol=1e-13, err_msg=name)
                near_gradient(grad, data[f"{case}__{name}__grad"], 1e-8, 1e-13)
                compared += 1
    assert compared >= 40


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("s_m", ["s30_m0.35", "s30_m0.4", "s30_m0.0", "s64_m0.35", "s15_m0.2"])
def test_am_softmax_equals_the_formula(case, s_m):
    data = np.load(PARITY / "amsoftmax.npz")
    s, m = (float(part[1:]) for part in s_m.split("_"))
    x = torch.from_numpy(data[f"{case}__x64"]).requires_grad_()
    w = torch.from_numpy(data[f"{case}__W64"]).requires_grad_()
    labels = torch.from_numpy(data[f"{case}__labels"])
    unit = torch.nn.functional.normalize
    logits = s * with_margin(unit(x) @ unit(w).T, labels, m)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    key = f"{case}__{s_m}"
    np.testing.assert_allclose(loss.detach(), data[f"{key}__loss"], rtol=1e-9, atol=1e-13)
    near_gradient(x.grad, data[f"{key}__grad_x"], 1e-9, 1e-13)
    near_gradient(w.grad, data[f"{key}__grad_W"], 1e-9, 1e-13)
    on_memory = AMSoftmax(temperature=1 / s, margin=m)(
        make_batch(x, labels), filled(w.detach(), temperature=0.2)
    )
    np.testing.assert_allclose(on_memory.detach(), loss.detach(), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(logits.detach(), data[f"{key}__logits"], rtol=1e-9, atol=1e-12)
