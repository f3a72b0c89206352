"""Command lines as processes: a new Python, or a fork of one that has imported fastreid already.

The fork runs the same `fastreid_cc.__main__.main` and can be killed as well; it saves the seconds
that the imports take.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol


class Started(Protocol):
    """What is used of `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Exit status, if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Exit status; `subprocess.TimeoutExpired` if it has not ended in time."""

    def kill(self) -> None:
        """kill -9."""


def fresh(line: list[str], surroundings: dict[str, str], log: Path, cwd: Path) -> Started:
    """A new process of Python, as a user starts it."""
    with log.open("w") as stream:
        return subprocess.Popen(line, env=surroundings, cwd=cwd, stdout=stream, stderr=stream)


class Forked:
    """A fork of this process, which must not have computed with torch before."""

    def __init__(self, line: list[str], surroundings: dict[str, str], log: Path, cwd: Path) -> None:
        import fastreid_cc.plugin  # noqa: F401  once, here

        context: Any = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(line[3:], surroundings, log, cwd))
        self.process.start()

    def poll(self) -> int | None:
        """Exit status, if it has ended."""
        status: int | None = self.process.exitcode
        return status

    def wait(self, timeout: float | None = None) -> int:
        """Exit status; `subprocess.TimeoutExpired` if it has not ended in time."""
        self.process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return status

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()


def _run(arguments: list[str], surroundings: dict[str, str], log: Path, cwd: Path) -> None:
    from fastreid.data import build

    from fastreid_cc.__main__ import main

    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(surroundings)
    build._root = surroundings["FASTREID_DATASETS"]  # read at import
    sys.exit(main(arguments))
