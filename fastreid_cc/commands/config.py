"""every config key of the plug-in, its default and what it does; the configs that are shipped"""

from __future__ import annotations

import argparse
import difflib
import textwrap
from typing import Any

from .. import boot
from ..config.keys import all_keys
from ..config.shipped import PREFIX, config_files, configs_folder
from ..errors import ClearError
from ._frame import make_parser, print_json, table

Key = tuple[str, Any, str]
_FULL = 8  # so few keys are shown with their whole text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "config",
        "Lists config keys: name, default, one line. With WORDs, those that hold every word in "
        "name or text; few of them are shown with their whole text.",
        gives_json=True,
    )
    made.add_argument("words", nargs="*", metavar="WORD", help="e.g. eps, MEMORY, camera")
    made.add_argument("--stock", action="store_true", help="fastreid's own keys too")
    made.add_argument("--files", action="store_true", help="list the shipped configs instead")
    made.add_argument("--path", action="store_true", help="print the folder of the shipped configs")
    return made


def known_keys(*, stock: bool) -> list[Key]:
    """Every key, sorted; parts brought in by `--import` included."""
    boot.activate()
    from ..plugin.offline.stock_keys import stock_keys
    from ..plugin.trainer.wrap import extra_keys

    ours = list(all_keys(extra_keys()))
    return sorted(ours + (stock_keys({key for key, _, _ in ours}) if stock else []), key=_order)


def _order(key: Key) -> str:
    return key[0]


def matching(keys: list[Key], words: list[str]) -> list[Key]:
    """Keys that hold every word, upper or lower case.

    Raises:
        ClearError: if there is none, naming the nearest.
    """
    found = [
        key for key in keys if all(word.lower() in f"{key[0]} {key[2]}".lower() for word in words)
    ]
    if not found:
        names = {name.lower(): name for key in keys for name in (key[0], key[0].split(".")[-1])}
        near = difflib.get_close_matches(" ".join(words).lower(), names, n=3, cutoff=0.5)
        hint = f" Near it: {', '.join(names[name] for name in near)}." if near else ""
        raise ClearError(f"no key holds {' and '.join(map(repr, words))}.{hint}")
    return found


def _files() -> list[tuple[str, str]]:
    """(name for --config-file, first comment) of every shipped config."""
    rows = []
    for name in config_files():
        first = (configs_folder() / name).read_text(encoding="utf-8").split("\n", 1)[0]
        rows.append((PREFIX + name, first.removeprefix("#").strip() if first[:1] == "#" else ""))
    return rows


def main(argv: list[str]) -> int:
    """Prints keys, configs or the folder."""
    args = parser().parse_intermixed_args(argv)
    if args.path:
        folder = str(configs_folder())
        print_json({"path": folder}) if args.json else print(folder)
    elif args.files:
        rows = _files()
        if args.json:
            print_json({"files": [{"name": name, "line": line} for name, line in rows]})
        else:
            print(table(rows))
    else:
        _print_keys(matching(known_keys(stock=args.stock), args.words), as_json=args.json)
    return 0


def _print_keys(keys: list[Key], *, as_json: bool) -> None:
    if as_json:
        entries = [{"key": key, "default": default, "line": line} for key, default, line in keys]
        print_json({"keys": entries})
    elif len(keys) <= _FULL:
        for key, default, line in keys:
            print(f"{key}  {default!r}")
            print(
                textwrap.fill(
                    line or "(no text)", 92, initial_indent="    ", subsequent_indent="    "
                )
            )
    else:
        print(
            table(
                [(k, repr(d), textwrap.shorten(line, 90, placeholder=" …")) for k, d, line in keys]
            )
        )
