"""`python -m fastreid_cc`: run a stock fastreid script with the plug-in, or one of the commands."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import boot
from .errors import ClearError, WrongUse, printable
from .requirements import explain_missing

COMMANDS = Path(__file__).parent / "commands"


def commands() -> dict[str, str]:
    """Names of the sub-commands and the first line of their docstrings."""
    names = [info.name for info in pkgutil.iter_modules([str(COMMANDS)]) if info.name[0] != "_"]
    return {name.replace("_", "-"): _first_line(COMMANDS / f"{name}.py") for name in sorted(names)}


def _first_line(path: Path) -> str:
    """First line of a module's docstring, read without importing the module."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0].strip()


def parser() -> argparse.ArgumentParser:
    """The command line up to the script or the command, whose own words stay as they are."""
    lines = [f"  {'train':<15} run a script (the word may be left out)"]
    lines += [f"  {name:<15} {line}" for name, line in commands().items()]
    made = argparse.ArgumentParser(
        prog="python -m fastreid_cc",
        usage="%(prog)s [--import MODULE] [train] SCRIPT.py [ARGUMENTS ...]\n"
        "       %(prog)s [--import MODULE] COMMAND [ARGUMENTS ...]",
        description="SCRIPT.py is any fastreid script, for example tools/train_net.py of a clone,\n"
        "unmodified; it gets the ARGUMENTS as they are. `%(prog)s COMMAND --help`\n"
        "tells a command's options. Exit status: 0 done, 1 failed, 2 wrong use.",
        epilog="commands:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="extend",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        help="module with parts of your own (memories, losses, ...), imported before the script "
        "reads its config, in spawned processes too; several with commas, or the option again",
    )
    made.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def split(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """The modules of `--import`, the script or command ("" if there is none), and its words.

    Raises:
        SystemExit: status 0 after the help, 2 on an unknown option.
    """
    found = parser().parse_args(arguments)
    return found.imports, *([found.words[0], found.words[1:]] if found.words else ["", []])


def main(arguments: Sequence[str]) -> int:
    """Runs a script or a command and returns the exit status."""
    imports, word, rest = split(arguments)
    if word in commands():
        return run_command(word, rest, imports)
    script = rest if word == "train" else [word, *rest]
    if script[:1] in (["-h"], ["--help"]):
        parser().print_help()
        return 0
    if not script or not script[0]:
        parser().error("train needs the path of a script, or name a command.")
    if not Path(script[0]).is_file():
        known = ", ".join(["train", *commands()])
        parser().error(f"{script[0]!r} is neither a script nor a command ({known}).")
    return run_script(script, imports)


def run_command(name: str, arguments: list[str], imports: Sequence[str]) -> int:
    """Runs `fastreid_cc.commands.<name>.main(arguments)`; an error we know is one message.

    The command's module is imported without fastreid; what needs fastreid imports it when it runs.
    """
    sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(f"{__package__}.commands.{name.replace('-', '_')}")
        boot.import_parts(imports)
        return int(module.main(arguments) or 0)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail(name, "interrupted", 130)
    except ClearError as error:
        return _fail(name, error, 2 if isinstance(error, WrongUse) else 1)
    except MemoryError as error:
        return _fail(name, f"out of memory {error}".rstrip(), 1)
    except OSError as error:  # disk full, no permission, a file that vanished
        return _fail(name, printable(error), 1)
    except ModuleNotFoundError as error:
        known = explain_missing(error)
        if known is error:
            raise
        return _fail(name, known, 1)


def _fail(name: str, message: object, status: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return status


def run_script(arguments: list[str], imports: Sequence[str]) -> int:
    """Runs the script `arguments[0]`; a missing package is one message, no traceback."""
    try:
        boot.run(arguments[0], arguments[1:], imports)
    except ClearError as error:
        print(f"fastreid_cc: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
