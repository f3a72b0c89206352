"""crops of tracked individuals from clips; faulty crops"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..data.clips import (
    Boxes,
    Clip,
    FaultLimits,
    Limits,
    Written,
    camera_name,
    choose_candidates,
    find_faults,
    find_movers,
    fit,
    open_clip,
    read_boxes,
    write_crops,
    write_mot,
)
from ..data.naming import list_images
from ..errors import ClearError, WrongUse, printable
from ..files import make_folder_atomically, write_atomically
from ._frame import at_least_1, make_parser, print_json, require_folder_of, table

ACTIVATES = False

_LIMITS = {
    "per_tracklet": "crops kept of a tracklet, spread over its time",
    "min_frames": "boxes that a tracklet must have",
    "min_height": "pixels of a box inside the picture, down",
    "min_width": "pixels of a box inside the picture, across",
    "max_covered": "share of a box that another box of the frame may cover",
    "min_inside": "share of a box that must lie inside the picture",
    "min_confidence": "of a box, where the text says one",
    "max_jump": "heights of its box by which an id may move per frame; farther, and it is cut into"
    " two tracklets there",
    "max_blur": "above it a crop counts as blurred: 0 sharp, 1 nothing left",
    "min_contrast": "below this deviation of the grey levels, of 255, a crop counts as empty",
    "same_bits": "two crops whose hashes differ in no more of 127 bits count as the same",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "crops",
        "Writes crops of what a tracker followed: for each camera a clip and the tracker's text"
        " (frame,id,x,y,width,height,confidence,...). File names say camera, tracklet and frame:"
        " CC.FOLDER.CAMERA folder:0, tracklet '_(t\\d+)_', time '_f(\\d+)'. Blurred, empty and"
        " repeated crops are left out and listed.",
        gives_json=True,
    )
    text = "a video or a folder of frames, then its text (or a folder of Ultralytics' labels);"
    text += " again for another camera"
    made.add_argument("files", metavar="SOURCE MOT.txt", nargs="*", type=Path, help=text)
    text = "folder to write, which must not be there yet; with --check a CSV file"
    made.add_argument("--out", type=Path, required=True, metavar="PATH", help=text)
    text = "names of the cameras in order (default: those of the files)"
    made.add_argument("--cameras", nargs="+", default=[], metavar="NAME", help=text)
    text = "number that the text gives the first frame"
    made.add_argument("--first-frame", type=int, default=1, metavar="N", help=text)
    text = "only boxes of these classes, column 8 of the text (default: all)"
    made.add_argument("--classes", type=int, nargs="+", default=[], metavar="N", help=text)
    text = "no texts are named: take what moves before a camera that stands still, without a"
    text += " tracker, and write it as text too (default: the texts)"
    made.add_argument("--boxes", choices=("background",), help=text)
    text = "keep the crops of a tracklet that differ most in colours, instead of the best of equal"
    text += " parts of its time"
    made.add_argument("--varied", action="store_true", help=text)
    for kind in (Limits, FaultLimits):
        for field in fields(kind):
            whole = isinstance(field.default, int) and field.name.startswith(("per", "min_f", "s"))
            made.add_argument(
                f"--{field.name.replace('_', '-')}", type=at_least_1 if whole else float,
                default=field.default, metavar="N" if whole else "X", help=_LIMITS[field.name],
            )  # fmt: skip
    text = "look for faulty images in any folder instead, and list them"
    made.add_argument("--check", type=Path, metavar="FOLDER", help=f"{text} (default: clips)")
    text = "draw clips of generated people instead, with their texts and identities.csv"
    made.add_argument("--world", action="store_true", help=text)
    for name, default, text in (
        ("seed", 1, "of the drawn clips; another seed is another world"),
        ("people", 10, "in the drawn clips, each twice before every camera"),
        ("frames", 300, "of each drawn clip, 15 in a second"),
    ):
        made.add_argument(f"--{name}", type=at_least_1, default=default, metavar="N", help=text)
    return made


def main(argv: list[str]) -> int:
    """Does one of the three things."""
    args = parser().parse_args(argv)
    ways = [bool(args.files), args.check is not None, args.world]
    if sum(ways) != 1:
        raise WrongUse("name clips with their texts, or --check FOLDER, or --world: one of them.")
    return check(args) if args.check else world(args) if args.world else crops(args)


def world(args: argparse.Namespace) -> int:
    """Draws clips."""
    from ..data.synthetic import ClipOptions, write_clips

    names = _names(args.cameras) or ["cam1", "cam2"]
    options = ClipOptions(
        seed=args.seed, cameras=tuple(names), people=args.people, frames=args.frames
    )
    _require_new(args.out)
    with make_folder_atomically(args.out) as part:
        write_clips(options, part)
    out = printable(args.out)
    pairs = " ".join(f"{out}/{name}.mp4 {out}/{name}.txt" for name in names)
    if args.json:
        print_json({"folder": str(args.out), "cameras": names, "frames": args.frames})
        return 0
    print(f"{out}: {len(names)} clips of {args.people} people, {args.frames} frames each")
    print(f"next: python -m fastreid_cc crops {pairs} --out CROPS")
    return 0


def check(args: argparse.Namespace) -> int:
    """Lists the faulty images of a folder."""
    if not args.check.is_dir():
        raise WrongUse(f"--check {printable(args.check)}: no such folder.")
    if args.out.suffix != ".csv":
        raise WrongUse(f"--out {printable(args.out)}: with --check the name must end in .csv.")
    require_folder_of(args.out)
    names = list_images(args.check)
    if not names:
        raise WrongUse(f"--check {printable(args.check)}: no image in it.")
    found = find_faults([str(args.check / name) for name in names], _limits(args, FaultLimits))
    with write_atomically(args.out) as part, part.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("image", "problem", "value", "same_as"))
        for row, problem in enumerate(found.problem):
            if problem:
                same = f"./{names[found.of[row]]}" if found.of[row] >= 0 else ""
                rows.writerow((f"./{names[row]}", problem, f"{found.value[row]:.3f}", same))
    counts = Counter(problem for problem in found.problem if problem)
    if args.json:
        print_json({"csv": str(args.out), "images": len(names), **counts})
        return 0
    told = ", ".join(f"{n:,} {problem}" for problem, n in counts.most_common()) or "none is faulty"
    print(f"{printable(args.out)}: of {len(names):,} images {told}")
    return 0


def crops(args: argparse.Namespace) -> int:
    """Writes the crops of all cameras, whole or not at all."""
    step = 1 if args.boxes else 2
    if len(args.files) % step:
        raise WrongUse(
            "every clip needs its text: SOURCE MOT.txt SOURCE MOT.txt ...; --boxes background does"
            " without."
        )
    sources, texts = args.files[::step], args.files[1::step] if step == 2 else []
    names = _names(args.cameras) or [camera_name(source) for source in sources]
    if len(names) != len(sources):
        raise WrongUse(f"--cameras gives {len(names)} names to {len(sources)} clips.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise WrongUse(f"two cameras are called {printable(twice[0])}; name them with --cameras.")
    _require_new(args.out)
    limits, faults = _limits(args, Limits), _limits(args, FaultLimits)
    clips = [open_clip(source) for source in sources]
    boxes = [
        _boxes(args, clip, texts[at] if texts else None) for at, clip in enumerate(clips)
    ]  # all faults of all cameras before anything is written
    told: dict[str, dict[str, Any]] = {}
    with make_folder_atomically(args.out) as part:
        for name, clip, found, text in zip(names, clips, boxes, texts or sources, strict=True):
            if args.boxes:
                write_mot(part / f"{name}.txt", found, first_frame=args.first_frame)
            chosen = choose_candidates(found, clip.size, limits, text)
            _warn_of_jumps(name, chosen.jumps, args.first_frame)
            written = write_crops(
                clip, name, chosen, part, per_tracklet=limits.per_tracklet, faults=faults,
                varied=args.varied, first_frame=args.first_frame,
            )  # fmt: skip
            told[name] = _told(found, written, chosen.left_out)
        if not any(row["crops"] for row in told.values()):
            why = Counter[str]()
            for row in told.values():
                why.update(row["left_out"])
            raise ClearError(f"no crop is left: {_listed(why)}. See the limits in --help.")
    if args.json:
        print_json({"folder": str(args.out), "cameras": told})
        return 0
    _print(args.out, told)
    return 0


def _boxes(args: argparse.Namespace, clip: Clip, text: Path | None) -> Boxes:
    if text is None:
        return find_movers(clip)
    found = read_boxes(text, clip.size, first_frame=args.first_frame, classes=args.classes)
    fit(found, clip, text, args.first_frame)
    return found


def _told(boxes: Boxes, written: Written, left_out: Counter[str]) -> dict[str, Any]:
    return {
        "boxes": len(boxes),
        "ids": len(set(boxes.ids.tolist())),
        "tracklets": written.tracklets,
        "crops": written.crops,
        "left_out": {k: n for k, n in (left_out + written.left_out).items() if n},
    }


def _print(out: Path, told: dict[str, dict[str, Any]]) -> None:
    body = [
        [name, *(f"{row[k]:,}" for k in ("boxes", "ids", "tracklets", "crops")),
         _listed(row["left_out"])]
        for name, row in told.items()
    ]  # fmt: skip
    print(table([["camera", "boxes", "ids", "tracklets", "crops", "boxes left out"], *body]))
    crops = sum(row["crops"] for row in told.values())
    print(f"{printable(out)}: {crops:,} crops; crops.csv: all of them; left_out.csv: faulty ones")


def _listed(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.items() if n)


def _warn_of_jumps(camera: str, jumps: list[tuple[int, int]], first_frame: int) -> None:
    if jumps:
        who, frame = jumps[0]
        print(
            f"{printable(camera)}: {len(jumps)} ids jump and are cut into two tracklets there, e.g."
            f" id {who} in frame {frame + first_frame}.",
            file=sys.stderr,
        )


def _limits(args: argparse.Namespace, kind: type) -> Any:
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})


def _names(given: list[str]) -> list[str]:
    """Names of cameras as typed, if they can be names of folders that the rules can read."""
    for name in given:
        if camera_name(Path("/nowhere") / f"{name}.x") != name:
            raise WrongUse(
                f"--cameras {printable(name)}: wanted letters, digits, points and hyphens."
            )
    return given


def _require_new(out: Path) -> None:
    require_folder_of(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise WrongUse(f"--out {printable(out)} is there already; name another, or remove it.")
