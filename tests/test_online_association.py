"""OnlineAssociation (O2CAP): loops, which proxies it takes, what it costs nothing for."""

from __future__ import annotations

import pytest
import torch
from oracles.losses import make_batch, memory_by_name, unit, unit_rows
from torch import Tensor

from fastreid_cc.losses.camera_proxy_contrast import CameraProxyContrast
from fastreid_cc.losses.online_association import OnlineAssociation, best_of_cameras
from fastreid_cc.memories.camera_proxy import CameraProxyMemory

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1, 0, 2])
CAMERAS = torch.tensor([0, 0, 2, 1, 2, 0, 1, 1, 2, 0])
# proxies: (0,0) (0,2) (1,1) (1,2) (2,0) (2,1)


def proxies(**options: object) -> CameraProxyMemory:
    memory = CameraProxyMemory(**options)  # type: ignore[arg-type]
    memory.reset(unit_rows(10, 8), LABELS, cameras=CAMERAS)
    return memory


def o2cap(x, M, row_camera, own, cameras, t, w, K, bg) -> Tensor:
    """Image by image and camera by camera."""
    f, total = unit(x), 0.0
    for camera in sorted(set(cameras.tolist())):
        members = [i for i in range(len(x)) if cameras[i] == camera and own[i] >= 0]
        losses = []
        for i in members:
            s = w * f[i].detach() @ M.T + (1 - w) * M[own[i]] @ M.T
            best = []
            for c in sorted({int(c) for c in row_camera}):
                best.append(
                    max((r for r in range(len(M)) if row_camera[r] == c), key=lambda r: s[r])
                )
            positive = sorted(best, key=lambda r: -float(s[r]))[:K]
            rest = sorted(set(range(len(M))) - set(positive), key=lambda r: -float(s[r]))[:bg]
            z = f[i] @ M.T / t
            p = torch.log_softmax(z[positive + rest], 0)
            losses.append(-p[: len(positive)].mean())
        total = total + (sum(losses) / len(losses) if losses else 0.0)
    return total


@pytest.mark.parametrize(("positives", "negatives"), [(1, 2), (2, 3), (3, 50)])
def test_value_and_gradient_equal_loops(positives: int, negatives: int) -> None:
    memory = proxies(temperature=0.3)
    x = (2 * unit_rows(10, 8, seed=3)).requires_grad_()
    batch = make_batch(x, LABELS, CAMERAS)
    loss = OnlineAssociation(balance=0.4, proxies=positives, negatives=negatives)
    found, own = loss(batch, memory), memory.targets(batch)
    rows = (memory.rows, memory.row_cameras)
    wanted = o2cap(x, *rows, own, CAMERAS, 0.3, 0.4, positives, negatives)
    gradients = [torch.autograd.grad(value, x)[0] for value in (found, wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_the_best_of_each_camera() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.8, 0.2, 0.3, 0.1]])
    rows, values = best_of_cameras(similarity, torch.tensor([0, -1, 2, 2]), 3)
    assert rows[:, [0, 2]].tolist() == [[0, 3], [0, 2]]  # row 1 is a source's, camera 1 has none
    assert values[:, [0, 2]].tolist() == torch.tensor([[0.1, 0.7], [0.8, 0.3]]).tolist()
    assert (values[:, 1] < -1e29).all()


def test_proxies_of_other_clusters_are_joined_by_features() -> None:
    """Clusters 0 and 1 show one person in two cameras: clustering split it, features do not."""
    x = torch.eye(4)[[0, 0, 2]] + 0.1 * torch.eye(4)[[1, 3, 3]]
    memory, cameras = CameraProxyMemory(temperature=0.5), torch.tensor([0, 1, 1])
    memory.reset(unit(x), torch.arange(3), cameras=cameras)
    x = x.clone().requires_grad_()
    batch = make_batch(x, torch.arange(3), cameras)
    pull = -torch.autograd.grad(OnlineAssociation(proxies=2)(batch, memory), x)[0][0]
    assert pull @ memory.rows[1] > 0 > pull @ memory.rows[2]
    offline = CameraProxyContrast(intra_scale=0.0, inter_scale=1.0, start_epoch=0)
    push = -torch.autograd.grad(offline(batch, memory), x)[0][0]
    assert push @ memory.rows[1] < 0


def test_the_term_within_cameras_can_be_left_out() -> None:
    memory, batch = proxies(), make_batch(unit_rows(10, 8, seed=3), LABELS, CAMERAS)
    within, between, both = (
        CameraProxyContrast(intra_scale=a, inter_scale=b, start_epoch=0)(batch, memory)
        for a, b in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    )
    torch.testing.assert_close(within + between, both)
    assert within > 0 and between > 0


def test_an_image_of_an_unseen_camera_costs_nothing() -> None:
    memory, x = proxies(), unit_rows(2, 8, seed=3).requires_grad_()
    batch = make_batch(x, torch.tensor([0, -1]), torch.tensor([7, 0]))
    loss = OnlineAssociation()(batch, memory)
    assert loss == 0 and not torch.autograd.grad(loss, x)[0].any()


def test_another_memory_is_refused() -> None:
    batch = make_batch(unit_rows(4, 8), torch.arange(4))
    with pytest.raises(ValueError, match=r"needs CC\.MEMORY\.NAME=camera_proxy"):
        OnlineAssociation()(batch, memory_by_name("cluster"))
