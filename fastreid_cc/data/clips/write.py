"""Looks at the candidates of a clip's tracklets and writes the crops that are kept."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...errors import WrongUse, printable
from .choose import Candidates
from .frames import Clip
from .quality import FaultLimits, first_fault, grey, picture_hash, same_pairs

CROPS, LEFT_OUT = "crops.csv", "left_out.csv"
_BOX = ("camera", "tracklet", "id", "frame", "seconds", "x", "y", "width", "height", "confidence")
_QUALITY = 95  # of the JPEG files


@dataclass
class Written:
    """What came of one clip.

    Attributes:
        crops, tracklets: how many were written, and of how many tracklets.
        left_out: how many candidates for which fault.
    """

    crops: int = 0
    tracklets: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class _Look:
    """A candidate as it looks; `row` among the candidates."""

    row: int
    pixels: np.ndarray
    worth: float
    blur: float
    bits: np.ndarray


def camera_name(path: Path) -> str:
    """A camera's name from its clip: of the file or folder; for MOTChallenge's img1 of its parent.

    Letters, digits, points and hyphens stay, all else becomes a hyphen, so that the rules
    "_(t\\d+)_" and "_f(\\d+)" find nothing in it.
    """
    path = path.absolute()
    if path.is_dir():
        name = path.parent.name if path.name.lower() in ("img1", "frames", "images") else path.name
    else:
        name = path.stem
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
    if not name:
        raise WrongUse(f"{printable(path)} gives no name of a camera; name all with --cameras.")
    return name


def write_crops(
    clip: Clip,
    camera: str,
    found: Candidates,
    folder: Path,
    *,
    per_tracklet: int,
    faults: FaultLimits,
    varied: bool = False,
    first_frame: int = 1,
) -> Written:
    """Writes the crops of one clip below `folder`, and a line for each into its two tables.

    Args:
        camera: name of the sub-folder; a crop is `<camera>/<camera>_t00012_f0000034.jpg`.
        found: what to look at.
        per_tracklet: crops kept of a tracklet.
        faults: what is left out.
        varied: keep those that differ most in colours; else the best of equal parts of the time.
        first_frame: number of the first frame in names and tables.

    One pass over the clip; in memory are the candidates of the tracklets that have begun and not
    ended. Cost: decoding, and 1 ms a candidate.
    """
    (folder / camera).mkdir()
    told, looks = Written(), defaultdict(list)
    left = Counter(found.tracklets.tolist())
    with _Tables(folder, clip, camera, found, first_frame) as tables:
        frames = found.boxes.frames
        wanted = np.unique(frames).tolist()
        bar = tqdm(clip.frames(wanted), camera, len(wanted), disable=not sys.stderr.isatty())
        for number, picture in bar:
            for row in range(*np.searchsorted(frames, [number, number + 1])):
                tracklet = int(found.tracklets[row])
                look = _look(found, row, picture, faults)
                if isinstance(look, _Look):
                    looks[tracklet].append(look)
                else:
                    tables.leave_out(row, *look)
                    told.left_out[look[0]] += 1
                left[tracklet] -= 1
                if not left[tracklet]:
                    kept = _keep(looks.pop(tracklet, []), found, tables, told, faults, per_tracklet,
                                 varied)  # fmt: skip
                    for one in kept:
                        image = Image.fromarray(one.pixels)
                        image.save(
                            folder / tables.write(one), "JPEG", quality=_QUALITY, subsampling=0
                        )
                    told.crops += len(kept)
                    told.tracklets += bool(kept)
    return told


def _look(
    found: Candidates, row: int, picture: np.ndarray, faults: FaultLimits
) -> _Look | tuple[str, float]:
    """A candidate as it looks, or its fault and what was measured."""
    left, top, right, bottom = found.corners[row].tolist()
    pixels = np.ascontiguousarray(picture[top:bottom, left:right])
    levels = grey(pixels)
    fault, value = first_fault(levels, faults)
    if fault:
        return fault, value
    worth = (right - left) * (bottom - top) * (1 - float(found.covered[row])) * (1 - value)
    return _Look(row, pixels, worth, value, picture_hash(levels))


def _keep(
    looks: list[_Look],
    found: Candidates,
    tables: _Tables,
    told: Written,
    faults: FaultLimits,
    count: int,
    varied: bool,
) -> list[_Look]:
    """Those of one tracklet that are kept, by frame; the same one twice is left out and told."""
    if not looks:
        return []
    bits = np.array([look.bits for look in looks])
    alone = np.ones(len(looks), bool)
    for i, j in same_pairs(bits, faults.same_bits).tolist():
        if alone[i] and alone[j]:
            alone[j] = False
            differ = float((bits[i] != bits[j]).sum())
            of = int(found.boxes.frames[looks[i].row])
            tables.leave_out(looks[j].row, "same", differ, of)
            told.left_out["same"] += 1
    looks = [look for look, is_alone in zip(looks, alone, strict=True) if is_alone]
    if len(looks) <= count:
        return looks
    worth = np.array([look.worth for look in looks])
    if varied:
        rows = sorted(_farthest_first(looks, worth, count))
    else:
        parts = np.array_split(np.arange(len(looks)), count)
        rows = [int(part[worth[part].argmax()]) for part in parts]
    return [looks[row] for row in rows]


def _farthest_first(looks: list[_Look], worth: np.ndarray, count: int) -> list[int]:
    """Rows: the best look, then again and again the one least like those taken, by colours."""
    small = [Image.fromarray(look.pixels).resize((4, 8), Image.Resampling.BOX) for look in looks]
    colours = np.array([np.asarray(image, np.float32).ravel() for image in small])
    taken = [int(worth.argmax())]
    nearest = np.full(len(looks), np.inf)
    while len(taken) < count:
        nearest = np.minimum(nearest, np.abs(colours - colours[taken[-1]]).mean(1))
        taken.append(int(nearest.argmax()))
    return taken


class _Tables:
    """`crops.csv` and `left_out.csv`, which grow by clip."""

    def __init__(
        self, folder: Path, clip: Clip, camera: str, found: Candidates, first_frame: int
    ) -> None:
        self.camera, self.found, self.first = camera, found, first_frame
        self.rate = clip.rate
        titles = {
            CROPS: ("image", *_BOX, "covered", "blur"),
            LEFT_OUT: (*_BOX, "problem", "value", "same_as_frame"),
        }
        self.streams, self.writers = [], {}
        for name, title in titles.items():
            is_new = not (folder / name).exists()
            stream = (folder / name).open("a", newline="", encoding="utf-8")
            self.streams.append(stream)
            self.writers[name] = csv.writer(stream, lineterminator="\n")
            if is_new:
                self.writers[name].writerow(title)

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self.streams:
            stream.close()

    def write(self, look: _Look) -> str:
        """Adds a kept crop; its path below the folder."""
        cells = self._cells(look.row)
        name = f"{self.camera}/{self.camera}_t{cells[1]:05d}_f{cells[3]:07d}.jpg"
        covered = f"{self.found.covered[look.row]:.3f}"
        self.writers[CROPS].writerow([name, *cells, covered, f"{look.blur:.3f}"])
        return name

    def leave_out(self, row: int, problem: str, value: float, same: int = -1) -> None:
        """Adds a candidate that is left out; `same`: the frame, from 0, that it is the same as."""
        last = [problem, f"{value:.3f}", same + self.first if same >= 0 else ""]
        self.writers[LEFT_OUT].writerow([*self._cells(row), *last])

    def _cells(self, row: int) -> list[Any]:
        boxes = self.found.boxes
        frame, sure = int(boxes.frames[row]), float(boxes.confidence[row])
        left, top, right, bottom = self.found.corners[row].tolist()
        return [
            self.camera,
            int(self.found.tracklets[row]),
            int(boxes.ids[row]),
            frame + self.first,
            f"{frame / self.rate:.3f}" if self.rate else "",
            left,
            top,
            right - left,
            bottom - top,
            "" if np.isnan(sure) else f"{sure:g}",
        ]
