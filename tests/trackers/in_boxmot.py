"""BoxMOT loads what `export --for boxmot` wrote: features agree, a tracker runs over a clip.

BoxMOT is AGPL: it is run here, in an environment of its own, and nowhere imported by the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boxmot
import cv2
import numpy as np
from boxmot.reid.core.runtime import ReID
from shared import agree, ours

FRAMES, PEOPLE = 40, 3


def clip(
    folder: Path, paths: list[str], ids: list[int], size: tuple[int, int]
) -> tuple[Path, np.ndarray]:
    """A video in which the first crops of three people walk at a pace each; boxes [F, P, 4]."""
    firsts = [paths[ids.index(who)] for who in sorted(set(ids))[:PEOPLE]]
    height, width = size
    crops = [cv2.resize(cv2.imread(path), (width, height)) for path in firsts]
    where = folder / "clip.avi"
    frame_size = 8 * width, (height + 8) * PEOPLE
    out = cv2.VideoWriter(str(where), cv2.VideoWriter_fourcc(*"MJPG"), 25, frame_size)
    boxes = np.zeros((FRAMES, PEOPLE, 4), np.float32)
    for number in range(FRAMES):
        frame = np.full((frame_size[1], frame_size[0], 3), 96, np.uint8)
        for row, crop in enumerate(crops):
            x, y = number * (row + 1) * width // 24, row * (height + 8)
            frame[y : y + height, x : x + width] = crop
            boxes[number, row] = x, y, x + width, y + height
        out.write(frame)
    out.release()
    return where, boxes


def main(folder: Path) -> None:
    """Raises SystemExit if anything is not as it should be."""
    told, features, resized = ours(folder)
    reid = ReID(folder / "model.onnx")
    print(f"boxmot {boxmot.__version__}, {type(reid.model).__name__}, {reid.model.input_shape}")
    if list(reid.model.input_shape) != told["size"]:
        raise SystemExit("FAILED: another size than the file's metadata says")
    agree("crops resized by us", reid(resized), features, must=True)
    agree("crops resized by BoxMOT (OpenCV, bilinear)", reid(told["paths"]), features, must=False)
    where, boxes = clip(folder, told["paths"], told["ids"], tuple(told["size"]))
    tracker = boxmot.BotSort(reid_weights=folder / "model.onnx", device="cpu", use_cmc=False)
    video, seen = cv2.VideoCapture(str(where)), []
    for number in range(FRAMES):
        good, frame = video.read()
        assert good, f"frame {number} of {where}"
        rest = np.tile(np.float32([0.9, 0]), (PEOPLE, 1))
        tracks = np.asarray(tracker.update(np.hstack([boxes[number], rest]), frame))
        seen.append(tuple(sorted(int(row[4]) for row in tracks)))
    print(f"BotSort over {FRAMES} frames of {PEOPLE} people: {len(set().union(*seen))} tracks")
    if len(set().union(*seen)) != PEOPLE or len(seen[-1]) != PEOPLE:
        raise SystemExit(f"FAILED: {PEOPLE} tracks wanted throughout, found {sorted(set(seen))}")
    found = np.stack([track.curr_feat for track in tracker.active_tracks])
    print(f"the tracks carry features of {found.shape[1]} numbers")
    if found.shape[1] != features.shape[1]:
        raise SystemExit("FAILED: the tracker did not use the model")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
