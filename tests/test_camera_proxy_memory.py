import pytest
import torch
from oracles import losses as oracle
from oracles.losses import filled, make_batch, unit_rows

from fastreid_cc.losses.camera_proxy_contrast import CameraProxyContrast
from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.memories.camera_proxy import CameraProxyMemory

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1, 0, 2])
CAMERAS = torch.tensor([0, 0, 2, 1, 2, 0, 1, 1, 2, 0])
# proxies: (0,0) (0,2) (1,1) (1,2) (2,0) (2,1)


def proxies(**kwargs):
    memory = CameraProxyMemory(**kwargs)
    memory.reset(unit_rows(10, 8), LABELS, cameras=CAMERAS)
    return memory


def test_one_unit_mean_per_cluster_and_camera():
    memory = proxies()
    assert memory.row_targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert memory.row_cameras.tolist() == [0, 2, 1, 2, 0, 1]
    f = unit_rows(10, 8)
    torch.testing.assert_close(memory.rows[0], oracle.unit(f[0] + f[1]))
    torch.testing.assert_close(memory.rows[1], oracle.unit(f[2] + f[8]))
    targets = memory.label_space(LABELS)
    batch = make_batch(f, targets, CAMERAS)
    assert memory.targets(batch).tolist() == [0, 0, 1, 2, 3, 4, 5, -1, 1, 4]


@pytest.mark.parametrize(("epoch", "weight"), [(0, 0.0), (5, 0.5)])
def test_value_and_gradient_equal_the_loop(epoch, weight):
    memory = proxies()
    memory.set_epoch(epoch)
    x, slow = ((unit_rows(10, 8, seed=3) * 2).requires_grad_() for _ in range(2))
    batch = make_batch(x, LABELS, CAMERAS)
    loss = CameraProxyContrast(negatives=2)(batch, memory)
    expected = oracle.cap(
        slow,
        memory.rows,
        memory.row_targets.tolist(),
        memory.row_cameras.tolist(),
        LABELS,
        CAMERAS,
        0.07,
        weight,
        2,
    )
    (loss + expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, slow.grad)


@pytest.mark.parametrize("update", ["all", "hard", "mean"])
def test_an_update_moves_the_proxy_of_the_camera_only(update):
    memory = proxies(update=update)
    before = memory.rows.clone()
    memory.update(make_batch(unit_rows(2, 8, seed=3), torch.tensor([1, -1]), torch.tensor([2, 0])))
    moved = (memory.rows != before).any(1)
    assert moved.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("camera", [3, 99, -1])
def test_an_image_of_an_unseen_camera_has_no_proxy_but_its_clusters_are_positives(camera):
    memory = proxies()
    memory.set_epoch(5)
    before = memory.rows.clone()
    x = unit_rows(2, 8, seed=3).requires_grad_()
    batch = make_batch(x, torch.tensor([1, 1]), torch.tensor([camera, 2]))
    assert memory.targets(batch).tolist() == [-1, 3]
    assert memory.loss_mask(batch)[0].tolist() == [False] * 6
    seen = batch.select(torch.tensor([False, True]))
    torch.testing.assert_close(MemoryContrast()(batch, memory), MemoryContrast()(seen, memory))
    CameraProxyContrast()(batch, memory).backward()
    assert torch.isfinite(x.grad).all() and x.grad[0].any()
    memory.update(batch)
    assert (memory.rows != before).any(1).tolist() == [False, False, False, True, False, False]


def test_images_of_no_camera_are_refused():
    with pytest.raises(ValueError, match="CC.MEMORY.NAME=camera_proxy needs the camera"):
        CameraProxyMemory().reset(unit_rows(10, 8), LABELS, cameras=CAMERAS - 1)


def test_without_cameras_it_is_the_cluster_memory():
    memory = CameraProxyMemory(temperature=0.05, momentum=0.1)
    memory.reset(unit_rows(10, 8), LABELS, source_centroids=unit_rows(2, 8, seed=1))
    cluster = filled(unit_rows(3, 8))
    cluster.reset(unit_rows(10, 8), LABELS, source_centroids=unit_rows(2, 8, seed=1))
    torch.testing.assert_close(memory.rows, cluster.rows)
    batch = make_batch(unit_rows(4, 8, seed=2), torch.tensor([2, 3, 4, 2]))
    memory.update(batch)
    cluster.update(batch)
    torch.testing.assert_close(memory.rows, cluster.rows)


def test_source_images_are_contrasted_among_source_rows():
    memory = CameraProxyMemory()
    memory.reset(
        unit_rows(10, 8), LABELS, cameras=CAMERAS, source_centroids=unit_rows(2, 8, seed=1)
    )
    batch = make_batch(unit_rows(2, 8), torch.tensor([1, 2]), torch.tensor([40, 2]))
    assert memory.targets(batch).tolist() == [1, 3]
    assert memory.loss_mask(batch).int().tolist() == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 1, 0, 0],
    ]
    assert torch.isfinite(MemoryContrast()(batch, memory))


def test_other_memories_are_refused():
    with pytest.raises(ValueError, match="needs CC.MEMORY.NAME=camera_proxy"):
        CameraProxyContrast()(make_batch(unit_rows(3, 8), LABELS[:3]), filled(unit_rows(3, 8)))
