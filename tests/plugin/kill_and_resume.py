"""Kills a quick run at random moments, resumes it, and compares the end with an unbroken run.

    python tests/plugin/kill_and_resume.py --kills 20 --torn 12 --seed 0

The unbroken run and the resumed ones are started as a user starts them; the killed one is told to
note its phase (phase_probe.py), so that short phases are hit too. Every second ten kills has a
mean teacher, a self-paced refiner and the hybrid memory. Compared are all tensors and values of
the checkpoints, bit by bit, and all numbers of metrics.json but times. Then checkpoint files are
damaged (torn_files.py). Kill i depends on (seed, i) alone: `--first 10 --kills 10` is the second
half.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from started import Forked, Started, fresh
from tiny_runs import ROOT, SCRIPT, YAML, environment, metrics, same

#: Five epochs of four steps; saved after each, measured after the third and at the end.
OPTIONS: tuple[object, ...] = (
    "MODEL.DEVICE",
    "cpu",
    "SOLVER.CHECKPOINT_PERIOD",
    1,
    "SOLVER.MAX_EPOCH",
    5,
    "TEST.EVAL_PERIOD",
    3,
    "CC.ITERS_PER_EPOCH",
    4,
)
VARIANTS: dict[str, tuple[object, ...]] = {
    "plain": ("CC.LABELS.PERIOD", 2),
    "teacher": (
        "CC.TEACHER.ENABLED",
        True,
        "CC.REFINE.NAMES",
        '("self_paced",)',
        "CC.MEMORY.NAME",
        "hybrid",
    ),
}
#: How often a phase begins at least in a run, and about how many seconds it takes.
PHASES = {
    "extraction": (4, 0.5),
    "labelling": (2, 0.1),
    "step": (20, 0.4),
    "checkpoint": (6, 0.4),
    "evaluation": (2, 0.5),
}
KINDS = (
    "moment",
    "checkpoint",
    "moment",
    "extraction",
    "labelling",
    "moment",
    "start-up",
    "evaluation",
    "moment",
    "step",
)


#: Starts a command line: (words, environment, log, folder).
Start = Callable[[list[str], dict[str, str], Path, Path], Started]


@dataclass
class Kill:
    """When to kill: `delay` seconds after the start of the process, or of a phase's nth time."""

    phase: str
    number: int
    delay: float


def plan(index: int, seed: int, seconds: float) -> Kill:
    """Kill `index`; moments of four kills in ten lie in the four quarters of a run."""
    generator = np.random.default_rng([seed, index])
    kind = KINDS[index % len(KINDS)]
    if kind == "start-up":
        return Kill("", 0, float(generator.uniform(0, 8)))
    if kind == "moment":
        quarter = [i for i, k in enumerate(KINDS) if k == kind].index(index % len(KINDS))
        return Kill("", 0, seconds * float(quarter + generator.uniform()) / 4)
    times, length = PHASES[kind]
    return Kill(kind, int(generator.integers(1, times + 1)), float(generator.uniform(0, length)))


def line(output: Path, *extra: object, flags: tuple[str, ...] = ()) -> list[str]:
    """The command of a user."""
    return [
        sys.executable,
        "-m",
        "fastreid_cc",
        str(SCRIPT),
        "--config-file",
        str(YAML),
        *flags,
        *map(str, (*OPTIONS, *extra, "OUTPUT_DIR", output)),
    ]


def run(
    output: Path, *extra: object, flags: tuple[str, ...] = (), start: Start = fresh
) -> tuple[int, str]:
    """Runs to the end; data sets are drawn beside `output`."""
    log = output.parent / "run.txt"
    surroundings = environment(output.parent / "data")
    status = start(line(output, *extra, flags=flags), surroundings, log, ROOT).wait(900)
    return status, log.read_text()


def _phase(path: Path) -> tuple[str, int]:
    words = path.read_text().split() if path.is_file() else []
    return (words[0], int(words[1])) if len(words) == 2 else ("imports", 0)


def kill(command: list[str], root: Path, when: Kill, data: Path, start: Start = fresh) -> str:
    """Starts a run, kills it, and says in which phase; "" if it ended before."""
    note = root / "phase"
    note.unlink(missing_ok=True)
    surroundings = {**environment(data), "PHASE_FILE": str(note)}
    child = start(command, surroundings, root / "killed.txt", ROOT)
    while when.phase and child.poll() is None:
        phase, number = _phase(note)
        if phase == when.phase and number >= when.number:
            break
        time.sleep(0.001)
    try:
        child.wait(when.delay)
    except subprocess.TimeoutExpired:
        child.kill()
    return _phase(note)[0] if child.wait() == -signal.SIGKILL else ""


def numbers(folder: Path) -> dict[tuple[int, str], float]:
    """What metrics.json says, by iteration and name; the last word counts, times do not."""
    found = {}
    for entry in metrics(folder):
        for key, value in entry.items():
            is_time = key in ("time", "data_time", "eta_seconds") or key.startswith("cc/seconds")
            if key != "iteration" and not is_time:
                found[int(entry["iteration"]), key] = value
    return found


def differences(whole: Path, parts: Path, left: frozenset[int] = frozenset()) -> str:
    """Where the end of two runs differs; "" if nowhere. Files of the inodes `left` do not count."""
    names = {p.relative_to(whole) for p in whole.rglob("*.pth")}
    found = {p.relative_to(parts) for p in parts.rglob("*.pth")}
    must = {name for name in names if name.stem in ("model_final", "model_best")}
    if not must <= found <= names:
        return f"files {sorted(map(str, names ^ found))}"
    for name in sorted(found):
        if (parts / name).stat().st_ino in left:
            continue
        both = (torch.load(f / name, map_location="cpu", weights_only=True) for f in (whole, parts))
        where = same(*both)
        if where:
            return f"{name}{where}"
    ours, theirs = numbers(parts), numbers(whole)
    wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    return f"metrics.json {wrong[:3]}" if wrong else ""


def resume(
    output: Path,
    whole: Path,
    *extra: object,
    start: Start = fresh,
    left: frozenset[int] = frozenset(),
) -> str:
    """Resumes until it ends; says from which epoch, and how the end compares."""
    for _ in range(3):
        status, text = run(output, *extra, flags=("--resume",), start=start)
        if status == 0:
            break
    else:
        return f"FAILED: {text.splitlines()[-1]}"
    first = re.findall(r"Starting training from epoch (\d+)", text) or ["none"]
    return f"from epoch {first[0]}: {differences(whole, output, left) or 'equal'}"


def kill_and_resume(
    index: int, seed: int, whole: Path, seconds: float, variant: str, start: Start
) -> str:
    """One kill and what became of it; one in the start-up is of a new Python."""
    when = plan(index, seed, seconds)
    start = fresh if KINDS[index % len(KINDS)] == "start-up" else start
    root = Path(tempfile.mkdtemp(prefix=f"kill-{index}-", dir=whole.parent.parent))
    command = line(root / "out", *VARIANTS[variant])
    command[3:3] = ["--import", "phase_probe"]
    while not (
        phase := kill(command, root, when, root / "data")
    ):  # it was faster than planned: earlier
        shutil.rmtree(root / "out")
        when = Kill(when.phase, 1, when.delay / 2)
    told = resume(root / "out", whole, *VARIANTS[variant], start=start)
    if told.endswith("equal"):
        shutil.rmtree(root)
    at = f"{when.phase} {when.number} + {when.delay:.2f} s" if when.phase else f"{when.delay:.1f} s"
    return f"{index:3d} {variant:8} at {at:24} in {phase:11} {told}"


def unbroken(folder: Path, variant: str, start: Start) -> tuple[Path, float]:
    """The run that is not killed, of a new Python, and about the seconds `start` takes for one."""
    root = folder / f"whole-{variant}"
    note = root / "seconds.json"
    if not note.is_file():
        root.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        status, text = run(root / "out", *VARIANTS[variant])
        if status:
            raise SystemExit(text)
        seconds = time.monotonic() - began
        hours, minutes, rest = re.findall(r"Total training time: (\d+):(\d+):(\d+)", text)[0]
        training = int(hours) * 3600 + int(minutes) * 60 + int(rest)
        note.write_text(json.dumps(training if start is Forked else seconds))
    return root / "out", float(json.loads(note.read_text()))


def main() -> int:
    """Kills, tears, counts; exit status 1 if an end differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("kills", 20), ("torn", 12), ("first", 0), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fork", action="store_true", help="import fastreid once: faster")
    parser.add_argument("--folder", type=Path, help="keep the unbroken runs here")
    args = parser.parse_args()
    from torn_files import tear_and_resume

    start: Start = Forked if args.fork else fresh
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    told = []
    for index in range(args.first, args.first + args.kills):
        variant = list(VARIANTS)[index // len(KINDS) % 2]
        whole, seconds = unbroken(folder, variant, start)
        told.append(kill_and_resume(index, args.seed, whole, seconds, variant, start))
        print(told[-1], flush=True)
    if args.torn:
        whole, _ = unbroken(folder, "plain", start)
        for result in tear_and_resume(whole, args.torn, args.seed, start):
            told.append(result)
            print(result, flush=True)
    good = sum(text.endswith((": equal", "as it should")) and "WRONG" not in text for text in told)
    print(f"{good} of {len(told)} as they should be")
    if args.folder is None:
        shutil.rmtree(folder)
    return int(good < len(told))


if __name__ == "__main__":
    sys.exit(main())
