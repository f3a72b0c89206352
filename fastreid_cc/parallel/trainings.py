"""Several trainings side by side, each `python -m fastreid_cc train` in a process of its own.

Two processes of one thread train more images a second than one process of two threads, so the demo,
comparisons and searches run as many trainings at once as there are cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

_HERE = Path(__file__).resolve().parents[2]  # the package is importable from there
_PLACE = re.compile(r"epoch/iter: \d+/(\d+)")


@dataclass(frozen=True)
class Training:
    """One training.

    Args:
        name: for messages. config: its file, or a shipped config. output: OUTPUT_DIR.
        options: KEY, VALUE, ... on top of the file.
        start: a checkpoint to go on from where the folder holds none; None = from the beginning.
    """

    name: str
    config: Path | str
    output: Path
    options: tuple[str, ...] = ()
    start: Path | None = None

    @property
    def command(self) -> list[str]:
        """What a user would type; goes on from the folder's last checkpoint, if there is one."""
        resume = ["--resume"] if self.last.exists() else []
        return [
            sys.executable,
            "-m",
            "fastreid_cc",
            "train",
            "--config-file",
            str(self.config),
            *resume,
            "OUTPUT_DIR",
            str(self.output),
            *self.options,
        ]

    @property
    def last(self) -> Path:
        """The file that names the checkpoint to go on from."""
        return self.output / "last_checkpoint"

    def prepare(self) -> None:
        """Makes the folder, and puts the checkpoint to start from where fastreid looks for it."""
        self.output.mkdir(parents=True, exist_ok=True)
        if self.start and not self.last.exists():
            shutil.copy2(self.start, self.output / self.start.name)
            self.last.write_text(self.start.name)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(trainings: Sequence[Training], num_jobs: int) -> dict[str, dict[str, float]]:
    """Runs all trainings, `num_jobs` at a time in order, a bar each; gives every one's metrics.

    Metrics are the last value of each scalar in metrics.json, and "seconds".

    Raises:
        RuntimeError: if one fails, with the end of what it printed, when all others have ended.
    """
    waiting, found, faults = list(trainings), {}, []
    running: list[_Run] = []
    threads = max(1, cores() // num_jobs)
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                running.append(_Run(waiting.pop(0), threads))
            time.sleep(0.5)
            for run in list(running):
                if run.has_ended():
                    running.remove(run)
                    if run.process.returncode:
                        faults.append(run.fault())
                        print(faults[-1], file=sys.stderr)
                    else:
                        found[run.training.name] = run.metrics()
    finally:
        for run in running:
            run.stop()
    if faults:
        raise RuntimeError("\n".join(faults))
    return found


class _Run:
    """A training under way."""

    def __init__(self, training: Training, threads: int) -> None:
        self.training = training
        training.prepare()
        self.log = training.output / "console.txt"
        path = os.pathsep.join(filter(None, (str(_HERE), os.environ.get("PYTHONPATH"))))
        count = str(threads)
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": count,
            "NUMBA_NUM_THREADS": count,
        }
        self.start = time.perf_counter()
        with self.log.open("w") as console:
            self.process = subprocess.Popen(
                training.command, stdout=console, stderr=subprocess.STDOUT, env=environment
            )
        print(f"{training.name}: training, see {self.log}", file=sys.stderr)
        self.bar = tqdm(desc=training.name, unit="it", disable=not sys.stderr.isatty())

    def has_ended(self) -> bool:
        """Whether the process is done; moves the bar on."""
        ended = self.process.poll() is not None
        places = _PLACE.findall(self.log.read_text(errors="replace"))
        self.bar.n = int(places[-1]) + 1 if places else 0
        self.bar.refresh()
        if ended:
            self.bar.close()
        return ended

    def metrics(self) -> dict[str, float]:
        """What the finished training measured."""
        return read_metrics(self.training.output) | {"seconds": time.perf_counter() - self.start}

    def fault(self) -> str:
        """How it failed: its name, exit status and the end of what it printed."""
        text = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return (
            f"{self.training.name} failed (exit {self.process.returncode}):\n{text}\nAll of it:"
            f" {self.log}"
        )

    def stop(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait()
        self.bar.close()


def read_metrics(output: Path) -> dict[str, float]:
    """The last value of every scalar in a run's metrics.json."""
    last: dict[str, Any] = {}
    for line in (output / "metrics.json").read_text().splitlines():
        last |= json.loads(line)
    return last
