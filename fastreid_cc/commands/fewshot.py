"""how well a network tells people enrolled by a few images"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import boot
from ..errors import WrongUse, printable
from ..files import write_atomically
from ..labels.episodes import accuracies, confidence, draw, enrolled_map, linear_probe
from ..report.runs import TestSet
from ._frame import (
    add_checkpoint,
    at_least_1,
    make_parser,
    plain,
    print_json,
    require_folder_of,
    table,
)

EVERYBODY = 10  # draws of all people, for the mAP of enrolled people
INTERVAL = (
    "± is the 95 % interval over the episodes drawn. It covers neither the seed of the training nor"
    " the choice of people: run several seeds."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "fewshot",
        "Enrols WAYS people of a test set by SHOTS images each and asks who is on QUERIES other "
        "images of them, taken by other cameras; EPISODES times. Then enrols everybody: mAP, "
        "Rank-1 and a linear classifier. Writes a JSON file and prints a table.",
        gives_json=True,
    )
    text = "the network: OUTPUT_DIR of a run, or a config (its path or short name) with"
    text += " MODEL.WEIGHTS; the test sets are those of its DATASETS.TESTS"
    made.add_argument("run", metavar="RUN", help=text)
    for name, default, text in (
        ("--ways", [5], "people of an episode; several numbers for several rows"),
        ("--shots", [1, 5], "images that a person is enrolled with; several as well"),
    ):
        made.add_argument(
            name, type=at_least_1, nargs="+", default=default, metavar="N", help=text
        )  # fmt: skip
    for name, number, text in (
        ("--queries", 3, "images of each person to be told"),
        ("--episodes", 1000, "episodes of each row"),
    ):
        made.add_argument(name, type=at_least_1, default=number, metavar="N", help=text)
    text = "draws of everybody for the linear classifier; 0 leaves it out, thousands of people"
    text += " take minutes"
    made.add_argument("--probes", type=int, default=3, metavar="N", help=text)
    text = "let queries be of the cameras that a person is enrolled by"
    made.add_argument("--any-camera", action="store_true", help=text)
    made.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws")
    text = "measure random weights, which a training of RUN starts from: the control"
    made.add_argument("--untrained", action="store_true", help=text)
    text = "a config key on top of the run's; again for another (default: none)"
    made.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=text
    )
    add_checkpoint(made)
    text = "JSON file to write (default: fewshot.json in the run's folder, or here for a config)"
    made.add_argument("--out", type=Path, metavar="FILE", help=text)
    return made


def main(argv: list[str]) -> int:
    """Extracts, draws, measures; writes the file whole or not at all."""
    args = parser().parse_args(argv)
    if min(args.ways) < 2:
        raise WrongUse("--ways 1: with one person there is nothing to tell; give at least 2.")
    if args.seed < 0 or args.probes < 0:
        raise WrongUse("--seed and --probes must be 0 or more.")
    if args.untrained and args.checkpoint:
        raise WrongUse("--untrained has no --checkpoint.")
    is_folder = Path(args.run).is_dir()
    out = args.out or (Path(args.run) if is_folder else Path()) / "fewshot.json"
    require_folder_of(out)
    boot.activate()
    from ..plugin.offline.run_features import tested_sets

    pairs = [word for pair in args.set for word in pair]
    sets, by = tested_sets(
        args.run, pairs=pairs, checkpoint=args.checkpoint, untrained=args.untrained
    )
    told: dict[str, Any] = {"model": by, "interval": INTERVAL}
    for name in ("queries", "episodes", "seed", "any_camera"):
        told[name] = getattr(args, name)
    told["sets"] = {test.name: measure(test, args) for test in sets}
    with write_atomically(out) as part:
        part.write_text(json.dumps(plain(told), indent=2, allow_nan=False) + "\n")
    if args.json:
        print_json(told)
    else:
        print(f"by {printable(by)}\n{text_of(told['sets'])}\n{INTERVAL}\n{printable(out)}: written")
    return 0


def measure(test: TestSet, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one test set, 0 to 100: a row for each of ways and shots, one for everybody."""
    ids, cameras, features = images_of(test)
    seen = None if args.any_camera else cameras
    options = {"queries": args.queries, "seed": args.seed}
    rows, everybody = [], []
    try:
        for shots in args.shots:
            for ways in args.ways:
                found = draw(ids, seen, ways=ways, shots=shots, episodes=args.episodes, **options)
                mean, half = confidence(100 * accuracies(features, found))
                rows.append({"ways": ways, "shots": shots, "accuracy": mean, "interval": half})
            found = draw(ids, seen, ways=0, shots=shots, episodes=EVERYBODY, **options)
            row = {"people": found.support.shape[1], "shots": shots}
            row["mAP"] = 100 * float(enrolled_map(features, found).mean())
            row["rank1"] = 100 * float(accuracies(features, found).mean())
            if args.probes:
                few = draw(ids, seen, ways=0, shots=shots, episodes=args.probes, **options)
                row["linear_probe"] = 100 * float(linear_probe(features, few).mean())
            everybody.append(row)
    except ValueError as error:
        hint = "" if args.any_camera else " --any-camera lets them."
        raise WrongUse(f"{printable(test.name)}: {error}{hint}") from error
    known = ids >= 0
    return {
        "images": int(known.sum()),
        "people": len(np.unique(ids[known])),
        "cameras": len(np.unique(cameras[known])),
        "episodes": rows,
        "everybody": everybody,
    }


def images_of(test: TestSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(identities i64 [N], cameras i64 [N], features f32 [N, D]) of a test set, an image once.

    An identity that no query has is nobody's, -1: junk and distractors of a gallery.
    """
    first = np.unique(np.array(test.paths), return_index=True)[1]
    asked = np.isin(test.identities, test.identities[: test.num_query])
    ids = np.where(asked, test.identities, -1)
    return ids[first], test.cameras[first], test.features[first]


def text_of(sets: dict[str, dict[str, Any]]) -> str:
    """The tables."""
    lines: list[str] = []
    for name, found in sets.items():
        counts = ", ".join(f"{found[what]:,} {what}" for what in ("people", "images", "cameras"))
        lines += [f"{printable(name)}: {counts}", "", _episodes(found["episodes"]), ""]
        lines += [_everybody(found["everybody"]), ""]
    return "\n".join(lines).rstrip()


def _episodes(rows: Sequence[dict[str, Any]]) -> str:
    body = [
        [row["ways"], row["shots"], f"{row['accuracy']:.1f} ± {row['interval']:.1f}"]
        for row in rows
    ]  # fmt: skip
    return table([["ways", "shots", "accuracy"], *body])


def _everybody(rows: Sequence[dict[str, Any]]) -> str:
    keys = [key for key in ("mAP", "rank1", "linear_probe") if key in rows[0]]
    names = {"mAP": "mAP", "rank1": "Rank-1", "linear_probe": "linear classifier"}
    body = [[row["people"], row["shots"], *(f"{row[key]:.1f}" for key in keys)] for row in rows]
    return table([["enrolled", "shots", *(names[key] for key in keys)], *body])
