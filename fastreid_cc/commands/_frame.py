"""What the commands share: one style of help, plain tables, JSON where a program reads it.

A command is a module of this package with `main(argv) -> exit status`; the first line of its
docstring is its line in the help. It raises a `ClearError`, which `python -m fastreid_cc` prints as
one message: exit status 2 (`WrongUse`, `BadConfig`) if the command line or a config is wrong, paths
that are not there among it, 1 if both are right but it cannot be done. Results go to standard
output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import WrongUse, printable

STATUSES = "exit status: 0 done; 2 the command line or the config is wrong; 1 it cannot be done"


class Formatter(argparse.HelpFormatter):
    """Help that ends in the default, where an option has one that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        says_nothing = action.default is False or action.default in (None, "", [], "==SUPPRESS==")
        if says_nothing or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one or two lines, with the nearest option; `--help` says the rest."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        word = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(word, known, n=1) if word != message else []
        hint = f" Did you mean {near[0]}?" if near else ""
        name = self.prog.split(" ")[-1]
        self.exit(2, f"{name}: {printable(message)}.{hint} `{self.prog} --help` tells its use.\n")


def make_parser(name: str, text: str, *, gives_json: bool = False) -> argparse.ArgumentParser:
    """The parser of a command, in the common style.

    Args:
        name: the command as it is typed.
        text: what the command does, in a sentence or two.
        gives_json: adds `--json`.
    """
    parser = Parser(
        prog=f"python -m fastreid_cc {name}",
        description=text,
        epilog=STATUSES,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    if gives_json:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds `--checkpoint`, to read another checkpoint of a run than the newest."""
    text = "file in the run's folder (default: the newest whole one)"
    parser.add_argument("--checkpoint", default="", metavar="FILE", help=text)


def at_least_1(text: str) -> int:
    """A whole number of 1 or more: a `type` for options that count."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def require_folder_of(path: Path) -> None:
    """Raises WrongUse if the folder that `path` is to be written to is not there."""
    if not path.absolute().parent.is_dir():
        raise WrongUse(f"{printable(path)}: there is no folder {printable(path.parent)}.")


def print_json(data: Mapping[str, object]) -> None:
    """Prints one JSON object, in ASCII; a number that JSON does not know becomes null."""
    print(json.dumps(plain(data), indent=2, allow_nan=False))


def plain(value: object) -> object:
    """A value as JSON knows it: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as left-aligned columns, two spaces apart."""
    from tabulate import tabulate

    return tabulate([list(map(str, row)) for row in rows], tablefmt="plain", disable_numparse=True)
