"""What the commands share: one style of help, plain tables, JSON where a program reads it.

A command is a module of this package with `main(argv) -> exit status`; the first line of its
docstring is its line in the help. It raises `ClearError` for a failure (exit status 1) and
`WrongUse` for a command line that makes no sense (2); `python -m fastreid_cc` prints either as one
message. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

STATUSES = "exit status: 0 done, 1 failed (the message says why), 2 wrong use"


def make_parser(
    name: str, description: str, *, gives_json: bool = False
) -> argparse.ArgumentParser:
    """The parser of a command, in the common style.

    Args:
        name: of the command.
        description: what it does, in a sentence or two.
        gives_json: adds `--json`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m fastreid_cc {name}", description=description, epilog=STATUSES
    )
    if gives_json:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def print_json(data: dict[str, Any]) -> None:
    """Prints one JSON object, in ASCII; a number that JSON does not know becomes null."""
    print(json.dumps(_plain(data), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as left-aligned columns, two spaces apart, the last one as long as it is."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = max((len(row) for row in cells), default=0)
    widths = [max((len(r[i]) for r in cells if i < len(r)), default=0) for i in range(columns)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in cells
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end; removed on an error or Ctrl-C."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
