"""Key points of the synthetic world: those of the pictures drawn, without touching a picture."""

import numpy as np
import pytest
from PIL import Image

from fastreid_cc.data.poses import LIMBS, NAMES
from fastreid_cc.data.synthetic import (
    Pose,
    SyntheticOptions,
    draw_figure,
    draw_picture,
    key_points,
    picture,
    sample_camera,
    sample_identity,
    synthetic_poses,
)
from fastreid_cc.data.synthetic.picture import Cover, replay

STANDING = Pose(view=0, phase=0, arm_bend=0.2, lean=0, height=0.9, centre=0.5, top=0.05)
#: Drawn by the commit before: the next random number after each of three pictures.
RECORDED = [128231144, 1349882294, 2068708306]
INDEX = {name: i for i, name in enumerate(NAMES)}


def shot(seed: int) -> tuple:
    person = sample_identity(np.random.default_rng([seed, 0]))
    camera = sample_camera(np.random.default_rng([seed, 1]), 32, 16)
    return person, camera, np.random.default_rng([seed, 2]), 32, 16


def test_pictures_take_the_same_random_numbers_as_before_there_were_poses():
    after = []
    for seed in range(3):
        drawn = shot(seed)
        draw_picture(*drawn)
        after.append(int(drawn[2].integers(2**31)))
    assert after == RECORDED


def test_a_replay_finds_the_pose_and_the_cover_that_were_drawn(monkeypatch):
    drawn: dict[str, object] = {}
    monkeypatch.setattr(Cover, "draw", lambda self, p: drawn.update(cover=self) or p)
    monkeypatch.setattr(
        picture,
        "draw_figure",
        lambda p, pose, *size: drawn.update(pose=pose) or draw_figure(p, pose, *size),
    )
    covers = 0
    for seed in range(30):
        drawn["cover"] = None
        draw_picture(*shot(seed))
        assert replay(*shot(seed)) == (drawn["pose"], drawn["cover"])
        covers += drawn["cover"] is not None
    assert covers >= 2


def test_all_limb_points_lie_on_the_figure():
    for seed in range(12):
        person, _, rng, _, _ = shot(seed)
        pose = Pose(**{**vars(STANDING), "view": 30.0 * seed, "phase": float(rng.uniform(0, 6))})
        alpha = np.asarray(draw_figure(person, pose, 128, 64))[..., 3]
        for name, (x, y, seen) in zip(NAMES, key_points(person, pose, 128, 64), strict=True):
            if seen and name.split("_")[-1] not in ("eye", "ear", "nose"):
                assert alpha[int(y), int(x)] > 0, (name, pose.view)


def test_only_the_face_tells_front_from_back():
    person = shot(0)[0]
    front, back = (
        key_points(person, Pose(**{**vars(STANDING), "view": view}), 128, 64) for view in (0, 180)
    )
    face = [INDEX[n] for n in ("nose", "left_eye", "right_eye")]
    assert (front[face, 2] == 1).all() and (back[face, 2] == 0).all()
    limbs = sorted({i for limb in LIMBS for i in limb if 0 < i < 14})
    assert (front[limbs, 2] == 1).all() and (back[limbs, 2] == 1).all()
    assert front[INDEX["right_shoulder"], 0] < 32 < front[INDEX["left_shoulder"], 0]
    assert back[INDEX["left_shoulder"], 0] < 32 < back[INDEX["right_shoulder"], 0]


def test_the_far_arm_is_hidden_by_the_trunk_and_a_post_hides_what_is_behind_it():
    person = shot(0)[0]
    side = key_points(person, Pose(**{**vars(STANDING), "view": 90}), 128, 64)
    assert side[INDEX["right_ear"], 2] == 1 and side[INDEX["left_ear"], 2] == 0
    bush = Cover((0, 60, 64, 60, 64, 128, 0, 128), (0, 0, 0))
    low = key_points(person, STANDING, 128, 64, bush)
    assert (low[:, 2] == (low[:, 1] < 60)).all() and 0 < low[:, 2].sum() < 18
    post = key_points(person, STANDING, 128, 64, Cover((0, 0, 32, 128), (0, 0, 0)))
    assert post[INDEX["right_wrist"], 2] == 0 and post[INDEX["left_wrist"], 2] == 1


def test_points_outside_the_picture_are_not_seen():
    person = shot(0)[0]
    points = key_points(person, Pose(**{**vars(STANDING), "centre": 0.02}), 128, 64)
    assert points[INDEX["right_shoulder"], 0] < 0 and points[INDEX["right_shoulder"], 2] == 0


def test_every_picture_of_a_set_has_a_pose():
    options = SyntheticOptions(train_ids=2, test_ids=1, cameras=2, images_per_camera=2)
    poses = synthetic_poses(options)
    assert len(poses) == 12 and "0003_c2s1_000002_00" in poses
    assert all(p.shape == (18, 3) and p.dtype == np.float32 for p in poses.values())


def test_a_pose_can_be_given_and_then_nothing_hides_the_person():
    person, camera, rng, *size = shot(3)
    one = draw_picture(person, camera, rng, *size, STANDING)
    assert isinstance(one, Image.Image)
    other = draw_picture(*shot(3), Pose(**{**vars(STANDING), "view": 180}))
    assert one.tobytes() != other.tobytes()
    assert draw_picture(*shot(3), STANDING).tobytes() == one.tobytes()


def test_a_tail_follows_zipf_and_none_leaves_name_and_pictures_alone():
    plain = SyntheticOptions(train_ids=80, cameras=4, images_per_camera=4)
    assert plain.folder == "synthetic-v3-seed1-ids80+48-cams4x4-128x64"
    tail = SyntheticOptions(train_ids=80, cameras=4, images_per_camera=4, tail=1.0)
    assert tail.folder == plain.folder + "-tail1"
    counts = [tail.pictures_of(p) for p in range(1, 82)]
    shares = 1 / np.arange(1, 81)
    wanted = np.maximum(1, np.rint(1280 * shares / shares.sum()))
    assert [sum(c) for c in counts[:80]] == wanted.tolist()
    assert all(max(c) - min(c) <= 1 for c in counts)
    assert counts[80] == [4] * 4  # a test person
    few = np.array([c for c in counts[:80] if sum(c) == 3])
    assert len(few) > 4 and (few.sum(0) > 0).all()  # the cameras left out differ


@pytest.mark.parametrize("tail", [-0.1, 5.0])
def test_a_tail_out_of_range_is_refused(tail):
    with pytest.raises(ValueError, match=r"CC\.SYNTHETIC\.TAIL"):
        SyntheticOptions(tail=tail)
