"""The boxes of a tracker: MOTChallenge text, as BoxMOT writes it too, and Ultralytics' labels."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ...errors import UnreadableFile, WrongUse, printable

WANTED = "wanted: frame,id,x,y,width,height[,confidence[,class...]], frames from 1, x,y a corner"


@dataclass(frozen=True)
class Boxes:
    """Boxes of one clip, sorted by frame, then id.

    Args:
        frames: i64 [M], from 0. ids: i64 [M], of the tracker.
        xywh: f64 [M, 4], left, top, width, height in pixels; may reach out of the picture.
        confidence: f64 [M], NaN where the text says nothing.
    """

    frames: np.ndarray
    ids: np.ndarray
    xywh: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> Boxes:
        """Some of the boxes, by rows or a mask."""
        return Boxes(self.frames[rows], self.ids[rows], self.xywh[rows], self.confidence[rows])


def read_boxes(
    path: Path, size: tuple[int, int], *, first_frame: int = 1, classes: Collection[int] = ()
) -> Boxes:
    """Reads the boxes of one clip.

    Args:
        path: a text of lines `frame,id,x,y,w,h,conf,class,...`, with commas or blanks, or a folder
            of Ultralytics' `save_txt`: a file `<name>_<frame>.txt` for each frame, with lines
            `class x y w h [conf] id` as shares of the picture, (x, y) its middle.
        size: (width, height) of the pictures.
        first_frame: number of the clip's first frame in the text.
        classes: keep only these; () = all.
    Raises:
        UnreadableFile: wrong columns, with the line. WrongUse: no such file.

    MOTChallenge's ground truth says 0 in column 7 of boxes that do not count: where some
    confidences are above 0, those that are not are left out. Rows with id -1 (detections) too.
    """
    if path.is_dir():
        rows = _read_labels(path, size)
    elif path.is_file():
        rows = _read_text(path)
    else:
        raise WrongUse(f"{printable(path)}: no such file or folder.")
    if classes:
        if np.isnan(rows[:, 7]).all():
            raise UnreadableFile(f"{printable(path)} names no classes (column 8): leave --classes.")
        rows = rows[np.isin(rows[:, 7], list(classes))]
    if (rows[:, 6] > 0).any():
        rows = rows[~(rows[:, 6] <= 0)]
    else:
        rows[:, 6] = np.nan  # 0 or -1 throughout: not known
    rows = rows[rows[:, 1] >= 0]
    if not len(rows):
        raise UnreadableFile(f"{printable(path)} holds no box with an id; {WANTED}.")
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    frames, ids = rows[:, 0].astype(np.int64) - first_frame, rows[:, 1].astype(np.int64)
    if frames[0] < 0:
        raise UnreadableFile(
            f"{printable(path)} counts frames from {frames[0] + first_frame}; --first-frame"
            f" {first_frame} says from {first_frame}. Give --first-frame 0 if it counts from 0."
        )
    twice = np.flatnonzero((np.diff(frames) == 0) & (np.diff(ids) == 0))
    if len(twice):
        frame, who = frames[twice[0]] + first_frame, ids[twice[0]]
        raise UnreadableFile(
            f"{printable(path)}: id {who} has two boxes in frame {frame}, and {len(twice)} such"
            " pairs in all. Is it the text of several cameras, or are columns 1 and 2 exchanged?"
        )
    return Boxes(frames, ids, np.ascontiguousarray(rows[:, 2:6]), rows[:, 6])


def write_mot(path: Path, boxes: Boxes, *, first_frame: int = 1) -> None:
    """Writes boxes as MOTChallenge has them; confidence 1 where none is known."""
    known = np.where(np.isnan(boxes.confidence), 1.0, boxes.confidence)
    with path.open("w", encoding="utf-8") as stream:
        for frame, who, box, sure in zip(
            boxes.frames.tolist(), boxes.ids.tolist(), boxes.xywh.tolist(), known, strict=True
        ):
            place = ",".join(f"{value:.2f}" for value in box)
            stream.write(f"{frame + first_frame},{who},{place},{sure:g},1,-1\n")


def _read_text(path: Path) -> np.ndarray:
    """f64 [M, 8]: frame, id, x, y, w, h, confidence, class; NaN where there is no column."""
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ")
    except UnicodeDecodeError:
        raise UnreadableFile(f"{printable(path)} is no text; {WANTED}.") from None
    lines = text.splitlines()
    if lines and not re.search(r"\d", lines[0]):
        lines[0] = ""  # titles
    rows = np.empty((0, 6))
    if any(line.strip() for line in lines):
        try:
            rows = np.loadtxt(lines, ndmin=2, comments=None)
        except ValueError:
            _refuse_line(path, lines)
        if rows.shape[1] < 6 or not (
            np.isfinite(rows[:, :6]).all()
            and not (rows[:, :2] % 1).any()
            and (rows[:, 4:6] > 0).all()
        ):
            _refuse_line(path, lines)
    wide = np.full((len(rows), 8), np.nan)
    wide[:, : rows.shape[1]] = rows[:, :8]
    return wide


def _refuse_line(path: Path, lines: list[str]) -> NoReturn:
    """Raises UnreadableFile about the first line that is wrong."""
    width = 0
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        width = width or len(cells)
        at = f"{printable(path)}, line {number}:"
        if len(row) < 6 or len(cells) != width or not np.isfinite(row[:6]).all():
            raise UnreadableFile(f"{at} {printable(line[:80])!r}; {WANTED}.")
        if row[0] % 1 or row[1] % 1:
            raise UnreadableFile(
                f"{at} frame {row[0]:g} and id {row[1]:g} must be whole numbers; {WANTED}."
            )
        if row[4] <= 0 or row[5] <= 0:
            raise UnreadableFile(f"{at} a box of {row[4]:g} x {row[5]:g} pixels; {WANTED}.")
    raise UnreadableFile(f"{printable(path)} is no table of numbers; {WANTED}.")


def _read_labels(folder: Path, size: tuple[int, int]) -> np.ndarray:
    """As `_read_text`, of a folder of Ultralytics' labels."""
    rows = []
    width, height = size
    for path in sorted(folder.glob("*.txt")):
        found = re.search(r"(\d+)$", path.stem)
        if found is None:
            raise UnreadableFile(
                f"{printable(path)}: wanted a name that ends in the number of the frame."
            )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                cells = [float(cell) for cell in line.split()]
            except ValueError:
                cells = []
            if len(cells) == 5:
                continue  # a detection that is in no track
            if len(cells) not in (6, 7) or max(cells[1:5]) > 1.5:
                raise UnreadableFile(
                    f"{printable(path)}, line {number}: {printable(line[:80])!r}; wanted: class x y"
                    " w h [confidence] id, as shares of the picture."
                )
            kind, x, y, w, h, *rest = cells
            sure = rest[0] if len(rest) == 2 else np.nan
            left, top = (x - w / 2) * width, (y - h / 2) * height
            rows.append([int(found[1]), rest[-1], left, top, w * width, h * height, sure, kind])
    return np.array(rows, np.float64).reshape(-1, 8)
