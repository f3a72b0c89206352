"""Short clips of several cameras: people who walk through, and the exact boxes of a tracker.

Everybody goes through every camera several times, at different moments, so nobody is seen twice at
once; in a camera several people are on their way at the same time, and nearer ones hide others. The
text has the form of MOTChallenge's ground truth: column 9 is the visible share of a body.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...errors import WrongUse
from .body import Pose
from .camera import Camera, background, expose, sample_camera
from .figure import draw_figure
from .identity import Identity, sample_identity

RATE = 15  # frames per second
TRUTH = "identities.csv"
_PERSON, _CAMERA, _WALK, _FRAME = 11, 12, 13, 14
_TILE = 0.9  # height of a body on its tile, and the tile's width by its height
_LEAST = 0.1  # share of a body that must be seen, for a box in the text


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """A small world.

    Args:
        seed: another seed is another world.
        cameras: names of the cameras; a clip is `<camera>.mp4`, its text `<camera>.txt`.
        people: who walk.
        frames: of each clip, 15 in a second.
        passes: how often everybody goes through every camera.
        height, width: of the pictures, in pixels.
    """

    seed: int = 1
    cameras: Sequence[str] = ("cam1", "cam2")
    people: int = 10
    frames: int = 300
    passes: int = 2
    height: int = 240
    width: int = 400

    def __post_init__(self) -> None:
        slots = len(self.cameras) * self.passes
        if self.frames < 8 * (slots + 1):
            raise WrongUse(
                f"{self.frames} frames are too few for {slots} walks one after another (cameras x"
                f" passes); at least {8 * (slots + 1)}."
            )


@dataclass(frozen=True)
class Walk:
    """One way of a person through a camera, straight across.

    Args:
        person: from 1. start, frames: first frame, from 0, and how many.
        right: whether they walk to the right.
        size: height of the body in pixels. feet: height of the soles in the picture.
        view, turn: view at the start, degrees, and how far it turns on the way.
        phase, arm_bend, lean: as in `Pose`.
    """

    person: int
    start: int
    frames: int
    right: bool
    size: float
    feet: float
    view: float
    turn: float
    phase: float
    arm_bend: float
    lean: float


def write_clips(options: ClipOptions, folder: Path) -> None:
    """Writes the clips, their texts, and `identities.csv`: camera, tracklet, identity.

    Args:
        folder: that exists.

    The texts depend on the options alone; the bytes of the clips on OpenCV too. Cost: 25 ms a frame
    of 400x240 with six people.
    """
    import cv2

    people = {
        p: sample_identity(np.random.default_rng([options.seed, _PERSON, p]))
        for p in range(1, options.people + 1)
    }
    walks = plan_walks(options)
    truth: list[tuple[str, int, int]] = []
    for number, name in enumerate(options.cameras):
        rng = np.random.default_rng([options.seed, _CAMERA, number])
        place = (number + 1) / len(options.cameras)
        camera = sample_camera(rng, options.height, options.width, place)
        scene = background(camera, rng, options.height, options.width)
        focus = float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.15))
        code = cv2.VideoWriter.fourcc(*"mp4v")
        size = options.width, options.height
        video = cv2.VideoWriter(str(folder / f"{name}.mp4"), code, RATE, size)
        if not video.isOpened():
            raise OSError(f"{folder / name}.mp4: OpenCV cannot write videos here")
        tracklets: dict[Walk, int] = {}
        bar = tqdm(range(options.frames), f"drawing {name}", disable=not sys.stderr.isatty())
        with (folder / f"{name}.txt").open("w", encoding="utf-8") as text:
            for frame in bar:
                picture, boxes = draw_frame(people, walks[number], frame, camera, scene)
                noise = np.random.default_rng([options.seed, _FRAME, number, frame])
                shown = np.asarray(expose(camera, picture, noise, focus))
                video.write(np.ascontiguousarray(shown[..., ::-1]))
                for walk, (x, y, w, h), seen in boxes:
                    who = tracklets.setdefault(walk, len(tracklets) + 1)
                    text.write(f"{frame + 1},{who},{x},{y},{w},{h},1,1,{seen:.3f}\n")
        video.release()
        truth += [(name, who, walk.person) for walk, who in tracklets.items()]
    with (folder / TRUTH).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerows([("camera", "tracklet", "identity"), *truth])


def plan_walks(options: ClipOptions) -> list[list[Walk]]:
    """The walks in each camera: everybody's one after another, in an order of their own."""
    walks: list[list[Walk]] = [[] for _ in options.cameras]
    slots = len(options.cameras) * options.passes
    slot = options.frames / (slots + 1)  # one more: not all begin at once
    for person in range(1, options.people + 1):
        rng = np.random.default_rng([options.seed, _WALK, person])
        late = rng.uniform(0, slot)
        order = rng.permutation(slots) % len(options.cameras)
        for turn, camera in enumerate(order.tolist()):
            frames = max(6, int(slot * rng.uniform(0.7, 0.95)))
            right, depth = bool(rng.random() < 0.5), float(rng.uniform())
            side = 90.0 if right else 270.0
            walks[camera].append(
                Walk(
                    person=person,
                    start=int(late + turn * slot + rng.uniform(0, slot - frames)),
                    frames=frames,
                    right=right,
                    size=options.height * (0.42 + 0.2 * depth),
                    feet=options.height * (0.66 + 0.3 * depth),
                    view=side + float(rng.uniform(-60, 60)),
                    turn=float(rng.uniform(-50, 50)),
                    phase=float(rng.uniform(0, 2 * pi)),
                    arm_bend=float(rng.uniform(0, 0.7)),
                    lean=float(rng.uniform(-0.012, 0.012)),
                )
            )
    return walks


Seen = tuple[Walk, tuple[int, int, int, int], float]


def draw_frame(
    people: dict[int, Identity], walks: list[Walk], frame: int, camera: Camera, scene: np.ndarray
) -> tuple[np.ndarray, list[Seen]]:
    """(picture f32 [H, W, 3] before the camera, what is seen: walk, box x y w h, visible share)."""
    height, width = scene.shape[:2]
    picture, owner = scene.copy(), np.full((height, width), -1)
    now = [walk for walk in walks if 0 <= frame - walk.start < walk.frames]
    now.sort(key=lambda walk: walk.feet)  # those behind first
    placed = []
    for number, walk in enumerate(now):
        layer, left, top = _figure(people[walk.person], walk, frame, width)
        alpha = layer[..., 3] / 255
        body = alpha > 0.5
        rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
        box = (
            int(left + columns[0]),
            int(top + rows[0]),
            int(columns[-1] - columns[0] + 1),
            int(rows[-1] - rows[0] + 1),
        )
        placed.append((walk, box, int(body.sum())))
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(height, top + layer.shape[0]), min(width, left + layer.shape[1])
        if y1 <= y0 or x1 <= x0:
            continue
        piece = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        here = slice(y0, y1), slice(x0, x1)
        share = np.linspace(-1.4, 1.4, layer.shape[1], dtype=np.float32)[piece[1], None]
        lit = layer[piece][..., :3] * (1 + camera.light[0] * share)
        picture[here] = picture[here] * (1 - alpha[piece][..., None]) + lit
        owner[here][body[piece]] = number
    pixels = np.bincount(owner[owner >= 0].ravel(), minlength=len(placed))
    return picture, [
        (walk, box, pixels[number] / whole)
        for number, (walk, box, whole) in enumerate(placed)
        if pixels[number] >= _LEAST * whole
    ]


def _figure(person: Identity, walk: Walk, frame: int, width: int) -> tuple[np.ndarray, int, int]:
    """(tile f32 [h, w, 4], colours by alpha; its left and top in the picture)."""
    done = (frame - walk.start + 0.5) / walk.frames
    size = walk.size * person.stature
    tile = round(size / _TILE)
    steps = (width + tile) / (0.8 * size)  # a step is 0.4 of a body
    pose = Pose(
        view=walk.view + walk.turn * (done - 0.5),
        phase=walk.phase + pi * steps * done,
        arm_bend=walk.arm_bend,
        lean=walk.lean,
        height=_TILE,
        centre=0.5,
        top=(1 - _TILE) / 2,
    )
    layer = np.asarray(draw_figure(person, pose, tile, tile), np.float32)
    way = done if walk.right else 1 - done
    left = round(way * (width + tile)) - tile
    return layer, left, round(walk.feet - tile * (1 - (1 - _TILE) / 2))
