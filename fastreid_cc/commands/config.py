"""config keys: default, range, what each does; shipped configs"""

from __future__ import annotations

import argparse
import functools
import textwrap
from collections.abc import Sequence

from .. import boot
from ..config import Key, all_keys, near_keys
from ..config.shipped import PREFIX, config_files, configs_folder, how_tested
from ..errors import ClearError
from ._frame import make_parser, print_json, table

_short = functools.partial(textwrap.shorten, placeholder=" …")
_FULL = 8  # so few keys are shown with their whole text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "config",
        "Lists config keys: name, default, range or choices, what it does. With WORDs, those that "
        "hold every word in name or text; few of them are shown with their whole text.",
        gives_json=True,
    )
    made.add_argument("words", nargs="*", metavar="WORD", help="e.g. eps, MEMORY, camera")
    made.add_argument("--stock", action="store_true", help="fastreid's own keys too")
    text = "list the shipped configs with every WORD instead"
    made.add_argument("--files", action="store_true", help=text)
    made.add_argument("--path", action="store_true", help="print the folder of the shipped configs")
    return made


def known_keys(*, stock: bool) -> dict[str, Key]:
    """Every key, sorted; parts brought in by `--import` included."""
    boot.activate()
    from ..plugin.offline.stock_keys import stock_keys
    from ..plugin.stock_names import stock_names

    found = {**(stock_keys() if stock else {}), **all_keys()}
    for name, names in stock_names().items():
        if name in found and found[name].limits is None:
            found[name] = found[name]._replace(limits=names)
    return dict(sorted(found.items()))


def _holds(text: str, words: Sequence[str]) -> bool:
    return all(word.lower() in text.lower() for word in words)


def matching(keys: dict[str, Key], words: Sequence[str]) -> dict[str, Key]:
    """Keys that hold every word, upper or lower case.

    Raises:
        ClearError: if there is none, naming the nearest.
    """
    found = {name: key for name, key in keys.items() if _holds(f"{name} {key.help}", words)}
    if not found:
        text = "\n".join(f"{name} {key.help}" for name, key in keys.items())
        unknown = [word for word in words if not _holds(text, [word])]
        near = [name for word in unknown for name in near_keys(word, keys)]
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise ClearError(f"no key holds {' and '.join(map(repr, unknown or words))}.{hint}")
    return found


def shipped_files(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """(short name for --config-file, how far tested, first comment) of those that hold every word.

    Raises:
        ClearError: if there is none.
    """
    rows = []
    for name in config_files():
        first = (configs_folder() / name).read_text(encoding="utf-8").split("\n", 1)[0]
        line = first.removeprefix("#").strip() if first[:1] == "#" else ""
        state = how_tested(PREFIX + name) or "base"
        if _holds(f"{name} {state} {line}", words):
            rows.append((name.removesuffix(".yml"), state, line))
    if not rows:
        raise ClearError(
            f"no shipped config holds {' and '.join(map(repr, words))}; `config --files` lists all."
        )
    return rows


def main(argv: list[str]) -> int:
    """Prints keys, configs or the folder."""
    args = parser().parse_intermixed_args(argv)
    if args.path:
        folder = str(configs_folder())
        print_json({"path": folder}) if args.json else print(folder)
    elif args.files:
        rows = shipped_files(args.words)
        if args.json:
            keys = ("name", "tested", "line")
            print_json({"files": [dict(zip(keys, row, strict=True)) for row in rows]})
        else:
            print(table([("config", "tested", "its first line"), *rows]))
    else:
        _print_keys(matching(known_keys(stock=args.stock), args.words), as_json=args.json)
    return 0


def _print_keys(keys: dict[str, Key], *, as_json: bool) -> None:
    if as_json:
        entries = [
            {"key": name, "default": key.default, "range": key.range, "help": key.help}
            for name, key in keys.items()
        ]
        print_json({"keys": entries})
    elif len(keys) <= _FULL:
        for name, key in keys.items():
            print(f"{name}  {key.default!r}" + f"  {key.range}" * bool(key.range))
            if key.help:
                print(textwrap.indent(textwrap.fill(key.help, 88), " " * 4))
    else:
        cells = ((name, repr(key.default), key.range, key.help) for name, key in keys.items())
        print(table([(name, *map(_short, texts, (30, 36, 90))) for name, *texts in cells]))
