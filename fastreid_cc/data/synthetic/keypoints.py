"""The key points of every picture of a synthetic set, replayed from its seed.

No picture is read: the random numbers that drew it are drawn again, so the poses of a set that
lies on the disk already are known too. Sides: from the front the arm and the leg at the left of the
picture are the person's right ones, from behind the left ones; the face turns as a head does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import cos, radians, sin
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..poses.keypoints import INDEX, NAMES
from .body import Body, Point, Pose, joints
from .build import SyntheticOptions, World, name_of
from .identity import Identity
from .picture import Cover, draw_picture, replay

#: Points of the head: azimuth from the face in degrees, positive to the person's left, and height.
_HEAD = {
    "nose": (0.0, 0.084),
    "right_eye": (-30.0, 0.066),
    "left_eye": (30.0, 0.066),
    "right_ear": (-90.0, 0.076),
    "left_ear": (90.0, 0.076),
}
_HEAD_WIDTH = 0.05
_GRAZING = -0.1  # cosine to the camera from which on a point of the head is seen


def key_points(
    person: Identity, pose: Pose, height: int, width: int, cover: Cover | None = None
) -> np.ndarray:
    """The 18 key points of a picture, f32 [18, 3], in the form of `data.poses.keypoints`.

    Visibility is 0 outside the picture, behind a post or bush, on the far side of the head, and for
    the elbow and wrist of the far arm behind the trunk; 1 elsewhere. Coordinates are those of the
    body in any case.

    Args:
        person, pose: who stands how.
        height, width: of the picture.
        cover: what stands before the person.
    """
    body = joints(person, pose)
    places: dict[str, tuple[Point, bool]] = {"neck": ((0.0, 0.175), True)}
    for name, (azimuth, y) in _HEAD.items():
        angle = radians(azimuth + pose.view)
        places[name] = (pose.lean + _HEAD_WIDTH * sin(angle), y), cos(angle) > _GRAZING
    for side in (0, 1):  # as in `Body`: the left of the picture first
        name = ("right", "left")[side if body.front >= 0 else 1 - side]
        sign = 2 * side - 1
        places[f"{name}_shoulder"] = (sign * body.shoulder * 0.92, 0.195), True
        places[f"{name}_hip"] = (sign * 0.5 * body.hips * abs(body.front), body.hip_y), True
        places[f"{name}_knee"] = body.knees[side], True
        places[f"{name}_ankle"] = body.feet[side], True
        for joint, point in (("elbow", body.elbows[side]), ("wrist", body.hands[side])):
            places[f"{name}_{joint}"] = point, not _behind_trunk(body, side, point)
    found = np.zeros((18, 3), np.float32)
    for name in NAMES:
        (x, y), seen = places[name]
        px = width * pose.centre + x * height * pose.height
        py = height * (pose.top + y * pose.height)
        inside = 0 <= px < width and 0 <= py < height
        found[INDEX[name]] = px, py, seen and inside and not (cover and cover.hides(px, py))
    return found


def synthetic_poses(options: SyntheticOptions) -> dict[str, np.ndarray]:
    """Key points f32 [18, 3] of every picture, by file name without its ending.

    Cost: 0.1 ms a picture; the set need not be on the disk.
    """
    world = World(options)
    found = {}
    for shot in world.shots:
        pose, cover = replay(*world.of(shot))
        stem = name_of(shot).rpartition("/")[2].removesuffix(".jpg")
        found[stem] = key_points(world.people[shot[1]], pose, *world.size, cover)
    return found


def write_views(options: SyntheticOptions, stems: Sequence[str], target: Path) -> int:
    """Redraws every picture of a set in the poses of some of its pictures; tells how many views.

    Nothing but the pose changes: the person, the piece of the scene, the light and the camera stay,
    and what hid the person is gone. No generator can know all of this, so such views are an upper
    bound and never a result.

    Args:
        options: of the set, which need not be on the disk.
        stems: K pictures of the set, file names without ending.
        target: folder that exists; `<stem>_to_<k>.jpg` is written, k from 1.

    Cost: 3 ms a view of 128x64.
    """
    world = World(options)
    named = {name_of(shot).rpartition("/")[2].removesuffix(".jpg"): shot for shot in world.shots}
    poses = [replay(*world.of(named[stem]))[0] for stem in stems]
    for stem, shot in tqdm(named.items(), "drawing views", disable=not sys.stderr.isatty()):
        quality = world.cameras[shot[2]].quality
        for k, pose in enumerate(poses, 1):
            picture = draw_picture(*world.of(shot), pose)
            picture.save(target / f"{stem}_to_{k}.jpg", "JPEG", quality=quality, subsampling=2)
    return len(named) * len(poses)


def _behind_trunk(body: Body, side: int, point: Point) -> bool:
    """Whether the trunk hides a point of an arm: only of the far one, of a person from the side."""
    far = 0 if body.turn >= 0 else 1
    if side != far or abs(body.front) >= 0.75 or not 0.195 < point[1] < body.hip_y:
        return False
    share = (point[1] - 0.195) / (body.hip_y - 0.195)
    return abs(point[0]) < body.shoulder + share * (body.hips - body.shoulder)
