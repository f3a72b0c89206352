"""Key points of images from the files that pose estimators write; no estimator is in here.

- OpenPose: a folder of `<stem>_keypoints.json`, one for each image, 18 or 25 (BODY_25) points.
- AlphaPose: one JSON list of `{"image_id", "keypoints", "score"}`, 17 points; or, in OpenPose's or
  CMU's manner, `{image: {"people" or "bodies": [...]}}`, 18 points.
- COCO: one JSON object with "images", "annotations" and "categories", which may name the points.
- CSV of Pose-Transfer: `name:keypoints_y:keypoints_x`, 18 points, -1 where one is missing.

Where an image has several people, the one whose points are seen best is taken: the largest sum of
visibilities, the first in the file if they are equal. An image without a person has no pose.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WrongUse, printable
from ...files import write_atomically
from .keypoints import NAMES, to_18

logger = logging.getLogger("fastreid.cc.poses")

_SUFFIX = "_keypoints"  # of OpenPose's files
#: What a file says of one person: the image's name and f32 [18, 3].
Found = Iterator[tuple[str, np.ndarray | None]]


@dataclass(frozen=True)
class Poses:
    """Poses by the stem of the image's file name.

    Args:
        of: stem -> f32 [18, 3]; at least one.
        without: stems of images on which nobody was found.
        crowded: stems of images with several people, of whom one was taken.
    """

    of: dict[str, np.ndarray]
    without: tuple[str, ...] = ()
    crowded: tuple[str, ...] = ()

    def by_path(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """Path -> f32 [18, 3], of those of N images that have a pose."""
        stems = {path: Path(path).stem for path in paths}
        return {path: self.of[stem] for path, stem in stems.items() if stem in self.of}


def read_poses(source: str | Path, *, least: float = 0.1) -> Poses:
    """The poses that a file or folder holds; its form is found by what is in it.

    Args:
        source: file or folder.
        least: a point of less confidence counts as not seen; estimators name a place for all.
    Raises:
        WrongUse: if it is not there, cannot be read, holds points of no known order, or nobody.
    """
    path = Path(source)
    shown = printable(path)
    if path.is_dir():
        files = sorted(path.rglob(f"*{_SUFFIX}.json"))
        if not files:
            raise WrongUse(f"{shown} holds no <image>{_SUFFIX}.json, as OpenPose writes them.")
        found: Found = (pair for file in files for pair in _told(_openpose, file))
        return _choose(found, shown, least)
    if not path.is_file():
        raise WrongUse(f"{shown}: no such file or folder of key points.")
    return _choose(_told(_csv if path.suffix.lower() == ".csv" else _json, path), shown, least)


def _told(read: Any, path: Path) -> Found:
    """What a reader finds, with faults that name the file."""
    try:
        yield from read(path)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"{type(error).__name__} {error}"
        raise WrongUse(f"{printable(path)} is in no known form of key points: {why}.") from error
    except (ValueError, OSError) as error:
        raise WrongUse(f"{printable(path)}: {printable(error)}.") from error


def _choose(found: Found, shown: str, least: float) -> Poses:
    people: dict[str, list[np.ndarray]] = {}
    for name, points in found:
        listed = people.setdefault(Path(name.replace("\\", "/")).stem, [])
        if points is None:
            continue
        points[:, 2] = np.where(points[:, 2] < least, 0, points[:, 2].clip(0, 1))
        if points[:, 2].any():
            listed.append(points)
    best = {
        stem: max(listed, key=lambda points: float(points[:, 2].sum()))
        for stem, listed in people.items()
        if listed
    }
    if not best:
        raise WrongUse(f"{shown}: nobody was found on {len(people)} images.")
    without = tuple(stem for stem, listed in people.items() if not listed)
    crowded = tuple(stem for stem, listed in people.items() if len(listed) > 1)
    for stems, what in ((without, "show nobody"), (crowded, "show several people: one is taken")):
        if stems:
            logger.warning(f"{shown}: {len(stems):,} of {len(people):,} images {what}")
    return Poses(best, without, crowded)


def _points(flat: Sequence[float], names: tuple[str, ...] | None = None) -> np.ndarray:
    """f32 [18, 3] of x, y, visibility in a row."""
    values = np.asarray(flat, np.float32)
    if values.ndim != 1 or len(values) % 3 or not np.isfinite(values).all():
        raise ValueError(f"{values.size} numbers are no row of x, y, visibility")
    if names is not None and len(values) != 3 * len(names):
        raise ValueError(f"{len(values) // 3} key points, but {len(names)} names of them")
    return to_18(values.reshape(-1, 3), names)


def _openpose(path: Path) -> Found:
    told = json.loads(path.read_text("utf-8"))
    yield from _people(_image(path), told)


def _image(path: Path) -> str:
    """The image that an OpenPose file is about; its ending is not known, nor needed."""
    return path.stem.removesuffix(_SUFFIX) + ".jpg"


def _people(name: str, told: dict[str, Any]) -> Found:
    """People of one image as OpenPose, or AlphaPose in its manner, lists them."""
    listed = told["people"] if "people" in told else told["bodies"]
    yield name, None
    for person in listed:
        known = [k for k in ("pose_keypoints_2d", "pose_keypoints", "joints") if k in person]
        yield name, _points(person[known[0]])


def _json(path: Path) -> Found:
    told = json.loads(path.read_text("utf-8"))
    if isinstance(told, list):
        for person in told:
            yield str(person["image_id"]), _points(person["keypoints"])
    elif "annotations" in told:
        yield from _coco(told)
    elif "people" in told or "bodies" in told:
        yield from _people(_image(path), told)
    else:
        for name, image in told.items():
            yield from _people(name, image)


def _coco(told: dict[str, Any]) -> Found:
    """COCO says 2 = seen, 1 = labelled but hidden, 0 = not labelled: here 1, 0, 0."""
    images = {image["id"]: image["file_name"] for image in told["images"]}
    kinds = {kind["id"]: kind.get("keypoints") for kind in told.get("categories", ())}
    for name in images.values():
        yield name, None
    for person in told["annotations"]:
        if "keypoints" not in person:
            continue
        names = kinds.get(person.get("category_id"))
        points = _points(person["keypoints"], tuple(names) if names else None)
        points[:, 2] = points[:, 2] > 1.5
        yield images[person["image_id"]], points


def _csv(path: Path) -> Found:
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter=":", skipinitialspace=True)
        for row in rows:
            y, x = (json.loads(row[f"keypoints_{axis}"]) for axis in "yx")
            if len(x) != 18 or len(y) != 18:
                raise ValueError(f"{row['name']}: {len(x)} x and {len(y)} y are not 18 key points")
            points = np.array([x, y, np.ones(18)], np.float32).T
            points[(points[:, :2] < 0).any(1), 2] = 0
            yield row["name"], points


def write_coco(path: str | Path, poses: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes key points as a COCO file of 18 named points, which `read_poses` reads.

    Args:
        path: JSON file, written whole or not at all.
        poses: (file name of the image, f32 [18, 3]). A point with visibility 0 is written as hidden
            (1), or as not labelled (0) where it has no place but 0, 0.
    """
    images, people = [], []
    for number, (name, points) in enumerate(poses, 1):
        images.append({"id": number, "file_name": name})
        kept = np.round(points.astype(np.float64), 2)
        kept[:, 2] = np.where(points[:, 2] > 0, 2, np.where(points[:, :2].any(1), 1, 0))
        people.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "num_keypoints": int((kept[:, 2] > 0).sum()),
                "keypoints": kept.ravel().tolist(),
            }
        )
    kind = {"id": 1, "name": "person", "keypoints": list(NAMES)}
    with write_atomically(path) as part:
        part.write_text(
            json.dumps({"images": images, "annotations": people, "categories": [kind]}) + "\n"
        )
