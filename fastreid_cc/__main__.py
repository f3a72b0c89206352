"""`python -m fastreid_cc`: run a stock fastreid script with the plug-in, or one of the commands."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import boot
from .errors import ClearError, WrongUse, explain_missing, printable

USAGE = """\
usage: python -m fastreid_cc [--import MODULE ...] [train] SCRIPT.py [ARGUMENTS ...]
       python -m fastreid_cc [--import MODULE ...] COMMAND [ARGUMENTS ...]

SCRIPT.py is any fastreid script, for example tools/train_net.py of a clone, unmodified; it gets the
ARGUMENTS as they are. MODULE holds parts of your own (memories, losses, ...); it is imported before
the script reads its config, in spawned processes too.

`python -m fastreid_cc COMMAND --help` tells a command's options. Exit status: 0 done, 1 failed,
2 wrong use.

commands:
  train      run a script (the word may be left out)
"""
COMMANDS = Path(__file__).parent / "commands"


def commands() -> dict[str, str]:
    """Names of the sub-commands and the first line of their docstrings."""
    found = {}
    for info in pkgutil.iter_modules([str(COMMANDS)]):
        if not info.name.startswith("_"):
            found[info.name.replace("_", "-")] = _first_line(COMMANDS / f"{info.name}.py")
    return found


def _first_line(path: Path) -> str:
    """First line of a module's docstring, read without importing the module."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    line = text.lstrip().split("\n", 1)[0].strip()
    return line.strip('r"').strip()


def usage() -> str:
    """The help text, with the commands that are installed."""
    return USAGE + "".join(f"  {name:<10} {line}\n" for name, line in sorted(commands().items()))


def split(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Takes our own options off the front.

    Returns:
        The modules of `--import`, the first word that is no option ("" if none) and the rest.

    Raises:
        WrongUse: on an unknown option, or `--import` without a module.
    """
    imports: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-h", "--help"):
            return imports, "help", []
        name, _, value = option.partition("=")
        if name != "--import":
            raise WrongUse(f"unknown option {option}; options of the script come after its path.")
        value = value or (rest.pop(0) if rest else "")
        if not value:
            raise WrongUse("--import needs the name of a module.")
        imports += [module for module in value.split(",") if module]
    return imports, rest[0] if rest else "", rest[1:]


def main(arguments: Sequence[str]) -> int:
    """Runs a script or a command and returns the exit status; 2 means a wrong command line."""
    try:
        imports, word, rest = split(arguments)
        if word in ("help", ""):
            print(usage(), end="")
            return 0 if word else 2
        if word in commands():
            return run_command(word, rest, imports)
        if word == "train" and rest[:1] in (["-h"], ["--help"]):
            print(usage(), end="")
            return 0
        script = _script([word, *rest] if word != "train" else rest)
    except WrongUse as error:
        print(f"fastreid_cc: {error}\n\n{usage()}", end="", file=sys.stderr)
        return 2
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
    except (ClearError, ModuleNotFoundError) as error:
        known = error if isinstance(error, ClearError) else explain_missing(error)
        if not isinstance(known, ClearError):
            raise
        print(f"{name}: {known}", file=sys.stderr)
        return 2 if isinstance(known, WrongUse) else 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # disk full, no permission, a file that vanished
        print(f"{name}: {printable(error)}", file=sys.stderr)
        return 1


def _script(arguments: list[str]) -> list[str]:
    if not arguments:
        raise WrongUse("train needs the path of a script.")
    if not Path(arguments[0]).is_file():
        known = ", ".join(["train", *sorted(commands())])
        raise WrongUse(f"{arguments[0]!r} is neither a script nor a command ({known}).")
    return arguments


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
