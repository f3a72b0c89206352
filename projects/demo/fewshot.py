"""The table of docs/fewshot.md: what self-supervision and episodes give to few-shot re-ID.

    python projects/demo/fewshot.py --seeds 3

Trains what is not trained yet and measures what is not measured yet – a call that was stopped goes
on where it was –, writes results.json and prints the table.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptation import differences
from compare import cell, train
from tabulate import tabulate
from trainings import ROOT, cores

from fastreid_cc.commands import fewshot

CONFIGS = ROOT / "configs/demo/fewshot"
WAYS, SHOTS = (5, 16), (1, 5)
#: The column that rows are compared by.
COMPARED = "16 ways, 1 shot"


@dataclass(frozen=True)
class Row:
    """A row: what the reader sees, stem of a file of `CONFIGS`, stem of its control."""

    text: str
    config: str
    control: str = ""


ROWS = (
    Row("untrained network", "untrained"),
    Row("instance discrimination", "instance", "untrained"),
    Row("AMDIM", "amdim", "instance"),
    Row("instance discrimination, then episodes", "instance_episodes", "instance"),
    Row("AMDIM, then episodes", "amdim_episodes", "amdim"),
    Row("cross-entropy, with labels", "supervised", "amdim_episodes"),
)


def measure(
    row: Row, seed: int, folder: Path, ways: Sequence[int] = WAYS, shots: Sequence[int] = SHOTS
) -> dict[str, Any]:
    """Figures of the first test set, measured unless an earlier call did."""
    out = folder / "fewshot.json"
    if not out.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        run = [str(folder)]
        if row.config == "untrained":
            run = [str(CONFIGS / "untrained.yml"), "--untrained", "--set", "CC.SEED", str(seed)]
        words = [*run, "--out", str(out), "--ways", *map(str, ways), "--shots", *map(str, shots)]
        with contextlib.redirect_stdout(io.StringIO()):
            fewshot.main(words)
    found: dict[str, Any] = next(iter(json.loads(out.read_text())["sets"].values()))
    return found


def columns(found: dict[str, Any]) -> dict[str, float]:
    """Column -> figure of one run."""
    named = {}
    for row in found["episodes"]:
        named[f"{row['ways']} ways, {_shots(row['shots'])}"] = row["accuracy"]
    for row in found["everybody"]:
        named[f"mAP, all enrolled, {_shots(row['shots'])}"] = row["mAP"]
    named["linear classifier"] = found["everybody"][-1]["linear_probe"]
    return named


def _shots(number: int) -> str:
    return f"{number} shot" + "s" * (number > 1)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean ± sample standard deviation over the seeds; differences seed by seed.

    Args:
        results: stem of a row -> what `measure` gave, seed by seed.
    """
    values = {stem: [columns(found) for found in runs] for stem, runs in results.items()}
    names = list(next(iter(values.values()))[0])
    texts = {row.config: row.text for row in ROWS}
    lines = []
    for row in ROWS:
        runs = values[row.config]
        gains = ("", "")
        if row.control:
            both = ([run[COMPARED] for run in values[stem]] for stem in (row.config, row.control))
            gains = differences(*both)
        cells = [cell([run[name] for run in runs]) for name in names]
        lines.append([row.text, *cells, texts.get(row.control, ""), *gains])
    headers = ["", *names, "control", f"{COMPARED}, over it, seed by seed", "mean"]
    widest = max(
        row["interval"] for runs in results.values() for f in runs for row in f["episodes"]
    )
    return (
        tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)
        + "\n\n± is over seeds. Over the episodes drawn the 95 % interval of a run is at most"
        + f" ±{widest:.1f}."
    )


def main() -> None:
    """Trains, measures, writes results.json, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, seeded 1, 2, ...")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at once")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/fewshot")
    args = parser.parse_args()
    seeds = range(1, args.seeds + 1)
    stems = [row.config for row in ROWS if row.config != "untrained"]
    train([CONFIGS / f"{stem}.yml" for stem in stems], seeds, args.output, args.jobs)
    results = {
        row.config: [measure(row, s, args.output / row.config / f"seed{s}") for s in seeds]
        for row in ROWS
    }
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
