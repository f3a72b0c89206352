"""`python -m fastreid_cc`: run a stock fastreid script with the plug-in, or one of the commands."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, boot
from .errors import ClearError, printable
from .parallel.launch_env import IMPORTS
from .requirements import explain_missing

HELP = "`python -m fastreid_cc --help` tells them."
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
    lines = [f"  {name:<15} {line}" for name, line in commands().items()]
    made = argparse.ArgumentParser(
        prog="python -m fastreid_cc",
        usage="%(prog)s [--import MODULE] COMMAND [ARGUMENTS ...]\n"
        "       %(prog)s [--import MODULE] [train] SCRIPT.py [ARGUMENTS ...]",
        description="For example: %(prog)s train --config-file quick/usl_tiny OUTPUT_DIR logs/a\n"
        "SCRIPT.py is any fastreid script, for example tools/train_net.py of a clone,\n"
        "unmodified; it gets the ARGUMENTS as they are. `%(prog)s COMMAND --help`\n"
        "tells a command's options. Exit status: 0 done; 2 the command line or the config is\n"
        "wrong; 1 both are right, but it cannot be done.",
        epilog="commands:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"fastreid_cc {__version__}")
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
    is_script = word == "train" and bool(rest) and not rest[0].startswith("-")
    if word in commands() and not is_script:
        return run_command(word, rest, imports)
    script = rest if is_script else [word, *rest]
    if not script[0]:
        return _fail("fastreid_cc", f"name a command or a script. {HELP}", 2)
    if not Path(script[0]).is_file():
        return _fail("fastreid_cc", f"{unknown(script[0], after_train=is_script)} {HELP}", 2)
    return run_script(script, imports)


def unknown(word: str, *, after_train: bool) -> str:
    """What to say of a word that is neither a command nor a script."""
    if after_train:
        return f"train {printable(word)}: no such script; a config goes after --config-file."
    near = difflib.get_close_matches(word.lower(), list(commands()), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(commands())
    return f"{word!r} is neither a script nor a command.{hint} Commands: {known}."


def run_command(name: str, arguments: list[str], imports: Sequence[str]) -> int:
    """Runs `fastreid_cc.commands.<name>.main(arguments)`; an error we know is one message.

    The command's module is imported without fastreid; what needs fastreid activates the plug-in
    when it runs, and with it come the parts from outside, which may need fastreid mended. A command
    that never does so says `ACTIVATES = False`.
    """
    sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(f"{__package__}.commands.{name.replace('-', '_')}")
        os.environ[IMPORTS] = ",".join(imports)  # for `boot.activate`, in spawned processes too
        if not getattr(module, "ACTIVATES", True):
            boot.import_parts(imports)
        return int(module.main(arguments) or 0)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail(name, "interrupted", 130)
    except ClearError as error:
        return _fail(name, error, error.status)
    except MemoryError as error:
        return _fail(name, f"out of memory {error}".rstrip(), 1)
    except OSError as error:  # disk full, no permission, a file that vanished
        return _fail(name, printable(error), 1)
    except ModuleNotFoundError as error:
        known = explain_missing(error)
        if known is error:
            raise
        return _fail(name, known, 1)
    except Exception as error:
        if clear := of_child(error):
            return _fail(name, clear, clear.status)
        raise


def of_child(error: Exception) -> ClearError | None:
    """The clear error that ended a process which `launch` started; None if it was another."""
    if type(error).__name__ != "ProcessRaisedException":
        return None
    found = re.search(r"^(fastreid_cc[\w.]*)\.(\w+): (.*)\Z", str(error), re.MULTILINE | re.DOTALL)
    kind = getattr(sys.modules.get(found[1]), found[2], None) if found else None
    if found is None or not (isinstance(kind, type) and issubclass(kind, ClearError)):
        return None
    known = ClearError(found[3].rstrip())
    known.status = kind.status
    return known


def _fail(name: str, message: object, status: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return status


def run_script(arguments: list[str], imports: Sequence[str]) -> int:
    """Runs the script `arguments[0]`; a missing package is one message, no traceback."""
    try:
        boot.run(arguments[0], arguments[1:], imports)
    except ClearError as error:
        return _fail("fastreid_cc", error, error.status)
    except Exception as error:
        if clear := of_child(error):
            return _fail("fastreid_cc", clear, clear.status)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
