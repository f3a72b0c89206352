"""Canonical poses against loops and by what must not matter; fused features by their unit bars."""

import numpy as np
import pytest

from fastreid_cc.data.poses import NAMES, canonical_poses, fuse, mean_pose_images, normalize
from fastreid_cc.data.synthetic import SyntheticOptions, synthetic_poses
from fastreid_cc.errors import WrongUse

INDEX = {name: i for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    options = SyntheticOptions(seed=7, train_ids=12, test_ids=0, cameras=4, images_per_camera=3)
    return np.stack(list(synthetic_poses(options).values()))


def test_normal_poses_equal_a_loop_and_know_no_place_or_size(poses):
    found, placed, usable = normalize(poses)
    assert usable.sum() > 100
    for row in np.flatnonzero(usable)[:20]:
        hips = [p for p in poses[row, [8, 11]] if p[2] > 0]
        centre = sum(np.array(p[:2]) for p in hips) / len(hips)
        length = np.hypot(*(poses[row, 1, :2] - centre))
        assert np.allclose(placed[row], [*centre, length], atol=1e-4)
        assert np.allclose(found[row, :, :2], (poses[row, :, :2] - centre) / length, atol=1e-5)
    moved = poses.copy()
    moved[..., :2] = moved[..., :2] * 3 + (7, -2)
    assert np.allclose(normalize(moved)[0][usable], found[usable], atol=1e-4)


def test_means_and_nearest_equal_a_loop_over_the_clusters(poses):
    found = canonical_poses(poses, count=4)
    normal, placed, usable = normalize(poses)
    assert (found.labels[~usable] == -1).all() and (found.labels[usable] >= 0).all()
    sizes = np.bincount(found.labels[usable])
    assert (np.diff(sizes) <= 0).all() and len(sizes) == 4
    x, y, torso = np.median(placed[usable], axis=0)
    for k in range(4):
        own = np.flatnonzero(found.labels == k)
        assert found.nearest[k] in own
        for p in range(18):
            shown = [normal[row, p, :2] for row in own if poses[row, p, 2] > 0]
            assert found.poses[k, p, 2] == (2 * len(shown) > len(own))
            if shown:
                wanted = np.mean(shown, 0) * torso + (x, y)
                assert np.allclose(found.poses[k, p, :2], wanted, atol=1e-3)


def test_same_seed_same_poses_and_where_people_stand_does_not_matter(poses):
    one, same = canonical_poses(poses), canonical_poses(poses)
    assert one.poses.tobytes() == same.poses.tobytes() and one.poses.shape == (8, 18, 3)
    moved = poses.copy()
    moved[..., :2] = moved[..., :2] * 2 + (5, 1)
    other = canonical_poses(moved)
    assert (other.labels == one.labels).mean() > 0.98  # rounding moves images at a border
    seen = one.poses[..., 2] > 0
    assert np.allclose(
        other.poses[..., :2][seen], (one.poses * 2 + (5, 1, 0))[..., :2][seen], atol=2
    )


def test_front_and_back_are_canonical_poses_of_their_own(poses):
    face = canonical_poses(poses).poses[:, [INDEX["left_eye"], INDEX["right_eye"]], 2].sum(1)
    assert 0 in face and 2 in face


def test_too_few_poses_are_a_fault(poses):
    hidden = poses.copy()
    hidden[5:, INDEX["neck"], 2] = 0
    with pytest.raises(WrongUse, match="5 different poses show neck and hip, of 144 images"):
        canonical_poses(hidden)
    with pytest.raises(WrongUse, match="1 different poses"):
        canonical_poses(np.repeat(poses[:1], 9, 0))


def test_the_mean_picture_is_the_mean_of_the_drawings(poses):
    from fastreid_cc.data.poses import draw_skeleton

    labels = np.array([0, 1, 0, -1])
    found = mean_pose_images(poses[:4], labels, (128, 64))
    drawn = [np.asarray(draw_skeleton(p, (128, 64)), np.float64) for p in poses[:4]]
    assert (found[0] == np.rint((drawn[0] + drawn[2]) / 2)).all() and (found[1] == drawn[1]).all()


def test_fusing_equals_a_loop():
    rng = np.random.default_rng(1)
    real, views = rng.normal(size=(3, 5)), rng.normal(size=(3, 4, 5))
    for n in range(3):
        rows = [v / np.linalg.norm(v) for v in (real[n], *views[n])]
        for how, joined in (("max", np.max(rows, 0)), ("mean", np.mean(rows, 0))):
            wanted = joined / np.linalg.norm(joined)
            assert np.allclose(fuse(views, how, real=real)[n], wanted, atol=1e-6)
        row = np.concatenate(rows[1:]) / 2
        assert np.allclose(fuse(views, "concat")[n], row, atol=1e-6)


def test_eight_equal_views_give_the_image_itself_and_concat_nine_times_its_size():
    real = np.random.default_rng(2).normal(size=(6, 16)).astype(np.float32)
    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    views = np.repeat(3 * real[:, None], 8, 1)
    for how in ("max", "mean"):
        assert np.allclose(fuse(views, how, real=real), unit, atol=1e-6)
        assert np.allclose(fuse(views, how), unit, atol=1e-6)
    joined = fuse(views, "concat", real=real)
    assert joined.shape == (6, 9 * 16) and fuse(views, "concat").shape == (6, 8 * 16)
    assert np.allclose(joined @ joined.T, unit @ unit.T, atol=1e-6)


def test_max_and_mean_know_no_order_and_a_missing_view_is_the_image_itself():
    rng = np.random.default_rng(3)
    real, views = rng.normal(size=(5, 7)), rng.normal(size=(5, 8, 7))
    for how in ("max", "mean"):
        assert np.allclose(
            fuse(views[:, ::-1], how, real=real), fuse(views, how, real=real), atol=1e-6
        )
    there = rng.random((5, 8)) < 0.6
    filled = np.where(there[..., None], views, real[:, None])
    views[~there] = np.nan
    assert np.allclose(
        fuse(views, "max", real=real, there=there), fuse(filled, "max", real=real), atol=1e-6
    )
    with pytest.raises(ValueError, match="no real feature"):
        fuse(views, "max", there=there)
    with pytest.raises(ValueError, match="'median' is no way"):
        fuse(views, "median")
    with pytest.raises(WrongUse, match="of 3 and 7 numbers"):
        fuse(views, "concat", real=real[:, :3])
