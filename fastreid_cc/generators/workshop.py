"""A folder in which a generator is trained and its images are written, resumable at any moment.

The folder holds `generate.json` (what was asked for), `checkpoint.pth`, and at the end `images/`,
`origins.csv` and `beside.png`. Images lie in a hidden folder until all of them are there, so no
training finds half of them.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..errors import BadConfig, ClearError, UnreadableFile, Unwritable, WrongUse, printable
from ..files import write_atomically
from .base import Generator, Photos

IMAGES, ORIGINS, BESIDE = "images", "origins.csv", "beside.png"
CLAIM, CHECKPOINT = "generate.json", "checkpoint.pth"
CHUNK = 64  # images drawn at once; what a killed process draws again
SECONDS = 60.0  # between two checkpoints
LOOK = 50  # steps between two looks at the losses, which wait for the device
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def claim(out: Path, wanted: Mapping[str, Any]) -> bool:
    """Takes the folder for one order, or finds the same order in it; whether it is finished.

    Raises:
        WrongUse: if it holds another order, or other files.
    """
    file = out / CLAIM
    if not file.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise WrongUse(
                f"--out {printable(out)} holds files, but no {CLAIM}: it is not of `generate`. Give"
                " a folder that is empty or not there yet."
            )
        out.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as part:
            part.write_text(json.dumps(wanted, indent=2) + "\n")
        return False
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = {}
    plain = json.loads(json.dumps(wanted))
    names = sorted({*plain, *(found if isinstance(found, dict) else {})})
    other = [n for n in names if not isinstance(found, dict) or found.get(n) != plain.get(n)]
    if other:
        raise WrongUse(
            f"--out {printable(out)} holds other images: {', '.join(other)} differ(s). Give another"
            " --out, or the same command to go on with those."
        )
    return (out / IMAGES).is_dir()


@contextmanager
def room_in(out: Path) -> Iterator[None]:
    """Says in one message that the disk is full or read-only, and what is kept."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        found: BaseException | None = error
        while found is not None and getattr(found, "errno", None) not in _FULL:
            found = found.__cause__ or found.__context__  # torch's writer wraps it
        if found is None:
            raise
        raise Unwritable(
            f"{printable(out)}: {getattr(found, 'strerror', found)}. What is whole is kept: make"
            " room and give the same command again."
        ) from error


def require_room(out: Path, count: int, pixels: int) -> None:
    """Raises Unwritable if `count` images of so many pixels may not fit on the disk."""
    free, needed = shutil.disk_usage(out).free, count * (3 * pixels + 512)
    if free < needed:
        raise Unwritable(
            f"{printable(out)}: {count:,} images take up to {needed / 1e6:,.1f} MB, and"
            f" {free / 1e6:,.1f} MB are free. Make room, or lower --count."
        )


def train(
    generator: Generator,
    out: Path,
    *,
    every: float = SECONDS,
    after_step: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Trains to the end, from the checkpoint if there is one; the losses looked at last.

    Args:
        generator: prepared.
        out: folder of the checkpoint.
        every: seconds between two checkpoints.
        after_step: called with the number of each step that was made.
    Raises:
        ClearError: if a loss is not finite; UnreadableFile: if the checkpoint is damaged.
    """
    first, total = restore(generator, out / CHECKPOINT), generator.num_steps
    last, shown = time.monotonic(), {}
    bar = tqdm(
        range(first, total),
        "training",
        initial=first,
        total=total,
        disable=not sys.stderr.isatty() or first >= total,
    )
    for step in bar:
        losses = generator.train_step(step)
        if after_step is not None:
            after_step(step)
        if (step + 1) % LOOK == 0 or step + 1 == total:
            shown = {name: float(value) for name, value in losses.items()}
            refuse_divergence(generator, shown, step)
            bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})
        if step + 1 == total or (time.monotonic() - last > every and _are_finite(losses)):
            save(generator, out / CHECKPOINT, step + 1)
            last = time.monotonic()
    return shown


def refuse_divergence(generator: Generator, losses: Mapping[str, float], step: int) -> None:
    """Raises ClearError if a loss is not finite."""
    bad = [f"{name}={value}" for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise ClearError(
            f"{generator.key}: training diverged before step {step + 1}, {', '.join(bad)}. Lower"
            f" {generator.key}.RATE and give another --out."
        )


def _are_finite(losses: Mapping[str, Any]) -> bool:
    return all(math.isfinite(float(value)) for value in losses.values())


def save(generator: Generator, path: Path, steps: int) -> None:
    """Writes a checkpoint whole or not at all."""
    with write_atomically(path) as part:
        torch.save({"steps": steps, "generator": generator.state_dict()}, part)


def restore(generator: Generator, path: Path) -> int:
    """Steps made before; 0 without a checkpoint.

    Raises:
        UnreadableFile: if it is damaged. BadConfig: if it is of other networks.
    """
    if not path.is_file():
        return 0
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        steps, state = int(found["steps"]), found["generator"]
    except Exception as error:  # a torn file may raise anything
        raise UnreadableFile(
            f"{printable(path)} is damaged or no checkpoint of `generate`; without it the same"
            " command trains from the start."
        ) from error
    try:
        generator.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadConfig(
            f"{printable(path)} does not fit the keys of {generator.key}:"
            f" {printable(str(error).splitlines()[0])}"
        ) from error
    return steps


def write(generator: Generator, out: Path, count: int) -> None:
    """Draws images 0 to count - 1 and writes them, whole chunks that are there left as they are."""
    hidden = out / f".{IMAGES}"
    hidden.mkdir(exist_ok=True)
    starts = range(0, count, CHUNK)
    for start in tqdm(starts, "images, 64 each", disable=not sys.stderr.isatty()):
        table = hidden / f".{start:09d}.csv"  # written last: the chunk is whole
        if table.is_file():
            continue
        drawn = generator.draw(range(start, min(start + CHUNK, count)))
        for made in drawn:
            Image.fromarray(made.pixels).save(hidden / made.name)
        with write_atomically(table) as part, part.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            where = (out / IMAGES).absolute()
            rows.writerows((where / d.name, " | ".join(d.origins), d.note) for d in drawn)
    tables = [hidden / f".{start:09d}.csv" for start in starts]
    with write_atomically(out / ORIGINS) as part, part.open("w", encoding="utf-8") as file:
        file.write("image,made of,how\n")
        file.writelines(table.read_text(encoding="utf-8") for table in tables)
    for table in tables:
        table.unlink()
    hidden.rename(out / IMAGES)


def compare(generator: Generator, photos: Photos, path: Path, *, columns: int = 12) -> None:
    """A picture: real images in the upper row, made ones below; where one is of others, under them.

    Args:
        generator: trained.
        photos: what it learnt from.
        path: of the picture.
        columns: at most so many made images.
    """
    most = columns if generator.capacity is None else min(columns, generator.capacity)
    drawn = generator.draw(range(most))
    height, width = drawn[0].pixels.shape[:2]
    rows = {path: row for row, path in reversed(list(enumerate(photos.paths)))}
    spread = iter(np.linspace(0, len(photos) - 1, most).astype(int).tolist())
    strips = []
    for made in drawn:
        above = [rows[origin] for origin in islice(made.origins, 2) if origin in rows]
        above = above or list(islice(spread, 1))
        strips.append([*photos.pixels(above, height, width), made.pixels])
    tallest = max(map(len, strips))
    sheet = np.full((tallest * (height + 4), most * (width + 4), 3), 255, np.uint8)
    for column, strip in enumerate(strips):
        for line, pixels in enumerate(strip, tallest - len(strip)):
            top, left = line * (height + 4), column * (width + 4)
            sheet[top : top + height, left : left + width] = pixels
    scale = max(1, 128 // height)
    large = Image.fromarray(sheet).resize((scale * sheet.shape[1], scale * sheet.shape[0]), 0)
    with write_atomically(path) as part:
        large.save(part, "PNG")
