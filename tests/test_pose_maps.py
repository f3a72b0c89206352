"""Heat maps of key points against loops, orders of key points, skeletons."""

import math

import numpy as np
import pytest

from fastreid_cc.data.poses import LIMBS, NAMES, draw_skeleton, pose_map, resize_keypoints, to_18
from fastreid_cc.data.poses.keypoints import COCO


def random_poses(count: int, height: int = 24, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 1, (count, 18, 3)) + rng.uniform(0, 1, (count, 18, 3)) * (
        width,
        height,
        1,
    )
    points[..., 2] = rng.integers(0, 2, (count, 18)) * rng.uniform(0.1, 1, (count, 18))
    return points.astype(np.float32)


def test_maps_equal_a_loop_over_pixels():
    poses = random_poses(2)
    maps = pose_map(poses, (24, 12), sigma=2.0)
    assert maps.shape == (2, 18, 24, 12) and maps.dtype == np.float32
    for n, i, j in np.ndindex(2, 24, 12):
        for p, (x, y, seen) in enumerate(poses[n].tolist()):
            d = (x - j - 0.5) ** 2 + (y - i - 0.5) ** 2
            wanted = math.exp(-d / 8) if seen > 0 else 0.0
            assert maps[n, p, i, j] == pytest.approx(wanted, abs=1e-6)


def test_a_point_at_a_pixels_centre_is_one_there_and_sigma_follows_the_height():
    pose = np.zeros((18, 3), np.float32)
    pose[4] = 5.5, 40.5, 0.3
    maps = pose_map(pose, (80, 16))
    assert maps[4, 40, 5] == 1 and maps[4].argmax() == 40 * 16 + 5
    assert maps[4, 42, 5] == pytest.approx(math.exp(-0.5))  # sigma 2
    assert maps.sum() == maps[4].sum()
    assert pose[4].tolist() == [5.5, 40.5, np.float32(0.3)]


def test_resized_key_points_have_the_maps_of_the_resized_picture():
    pose = random_poses(1)[0]
    twice = resize_keypoints(pose, (24, 12), (48, 24))
    assert np.allclose(twice[:, :2], 2 * pose[:, :2]) and (twice[:, 2] == pose[:, 2]).all()
    small = pose_map(pose, (24, 12), 3.0)
    large = pose_map(twice, (48, 24), 6.0).reshape(18, 24, 2, 12, 2).mean((2, 4))
    assert np.abs(small - large).max() < 0.02


def test_other_orders_become_these_18():
    coco = np.arange(51, dtype=np.float32).reshape(17, 3)
    found = to_18(coco)
    for name, point in zip(COCO, coco, strict=True):
        assert (found[NAMES.index(name)] == point).all()
    left, right = coco[COCO.index("left_shoulder")], coco[COCO.index("right_shoulder")]
    assert found[1, :2].tolist() == ((left + right) / 2)[:2].tolist()
    assert found[1, 2] == min(left[2], right[2])
    body25 = np.arange(75, dtype=np.float32).reshape(25, 3)
    assert to_18(body25)[:, 0].tolist() == [3 * i for i in (*range(8), *range(9, 19))]
    assert (to_18(found) == found).all()
    with pytest.raises(ValueError, match="16 key points"):
        to_18(np.zeros((16, 3)))


def test_a_skeleton_shows_only_limbs_whose_ends_are_seen():
    pose = np.zeros((18, 3), np.float32)
    assert not np.asarray(draw_skeleton(pose, (40, 20))).any()
    a, b = LIMBS[0]
    pose[a], pose[b] = (5, 10, 1), (15, 30, 1)
    image = np.asarray(draw_skeleton(pose, (40, 20)))
    assert image.shape == (40, 20, 3) and image[20, 10].any() and not image[35].any()
    pose[b, 2] = 0
    assert not np.asarray(draw_skeleton(pose, (40, 20)))[20, 10].any()
