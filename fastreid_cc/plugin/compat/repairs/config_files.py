"""Config files: plain YAML only, the shipped ones by name, one clear message for a mistake."""

from __future__ import annotations

import os
from typing import Any

import yaml
from fastreid.config.config import CfgNode
from fastreid.utils import file_io

from fastreid_cc.config import near_keys, walk
from fastreid_cc.config.shipped import PREFIX, find_config, resolve
from fastreid_cc.errors import BadConfig, ClearError, printable

from ..patching import around, assign

BASE = "_BASE_"
MOST_NODES = 100_000


@around(CfgNode, "load_yaml_with_base")
def read_plain_yaml(stock: Any, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
    """Loads a config file and its bases as plain YAML.

    Breaks: `CfgNode.load_yaml_with_base(allow_unsafe=True)` runs what `!!python/...` tags of a
    config say; a `_BASE_` that names itself recurses until the stack ends; a few lines of aliases
    grow without bound; an empty file is a TypeError. All versions. Does: plain YAML only, whatever
    the argument; each of these is one message with the file's name; `fastreid_cc://x.yml`, in short
    `x`, names a shipped config. Test: test_compat_config.py. May go: never.
    """
    return load_config(find_config(str(filename)))


class ShippedConfigs(file_io.PathHandler):
    """Opens fastreid_cc:// paths for reading."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        return str(resolve(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        if mode not in ("r", "rb"):
            raise BadConfig(f"{printable(path)} is shipped with fastreid_cc: it can only be read.")
        return open(resolve(path), mode, buffering)


def open_shipped_configs() -> None:
    """Lets `PathManager` open fastreid_cc://x.yml, as `default_setup` does with the config file.

    Breaks: it is no file. Does: a handler for that prefix, for reading. Test:
    test_compat_config.py. May go: never.
    """
    handlers = file_io.PathManager._PATH_HANDLERS | {PREFIX: ShippedConfigs()}
    assign(file_io.PathManager, "_PATH_HANDLERS", handlers)


@around(CfgNode, "merge_from_file", "merge_from_list")
def explain_wrong_keys(stock: Any, cfg: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
    """Says what is wrong with a key or a value, in one message.

    Breaks: in `merge_from_file` and `merge_from_list` an unknown key or a value of another type is
    a traceback of yacs without a hint. All versions. Does: a `BadConfig` (a KeyError and ValueError
    still) with yacs's sentence, the file and the nearest key. Test: test_compat_config.py. May go:
    never.
    """
    try:
        return stock(cfg, source, *args, **kwargs)
    except ClearError:
        raise
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        where = f"{printable(source)}: " if isinstance(source, str) else ""
        text = printable(error.args[0] if error.args else type(error).__name__)
        if "odd length" in text:
            text = _odd_one_out(source)
        raise BadConfig(f"{where}{text}{_nearest(cfg, text)}") from error


def _odd_one_out(pairs: Any) -> str:
    """What to say of KEY VALUE pairs of which one lacks its value."""
    joined = [str(word) for word in pairs if "=" in str(word) and "." in str(word).split("=")[0]]
    if joined:
        key, _, value = joined[0].partition("=")
        return f"{printable(joined[0])}: write {printable(key)} {printable(value)}, with a space."
    shown = printable(" ".join(map(str, pairs)))[:200]
    return f"KEY VALUE pairs come in twos, but these are {len(pairs)} words: {shown}"


def _nearest(root: Any, message: str) -> str:
    """A hint: the known key nearest to the one the message ends in; how to write a number."""
    if "Type mismatch (<class 'float'> vs. <class 'int'>)" in message:
        return ". Write the number with a point, as in 2.0."
    if "xistent" not in message:
        return ""
    wanted = message.split(":")[-1].strip()
    near = near_keys(wanted, (key for key, _ in walk(root)))
    hint = f" Did you mean {near[0]}?" if near else ""
    return f".{hint} `python -m fastreid_cc config WORD` lists keys."


def load_config(filename: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A config file as a dict, merged over its `_BASE_`, that one's base, and so on.

    Raises:
        BadConfig: naming the file, for anything that is no plain YAML mapping, a base that is
            missing, from the network, or among its own heirs.
    """
    is_shipped = str(filename).startswith(PREFIX)
    path = str(resolve(filename)) if is_shipped else os.path.realpath(os.path.expanduser(filename))
    if path in seen:
        raise BadConfig(f"{printable(path)}: its {BASE} leads back to itself.")
    own = _read(path)
    base = own.pop(BASE, None)
    if base is None:
        return own
    if not isinstance(base, str) or not base:
        raise BadConfig(f"{printable(path)}: {BASE} must be the name of a file, not {base!r}.")
    if base.startswith(("http://", "https://")):
        where = f"{printable(path)}: {BASE} {printable(base)}"
        raise BadConfig(f"{where} is not loaded from the network.")
    if not base.startswith(("~", PREFIX)):
        base = os.path.join(os.path.dirname(path), base)
    merged = load_config(base, (*seen, path))
    _merge(own, merged, path)
    return merged


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.safe_load(stream)
    except OSError as error:
        raise BadConfig(f"{printable(path)}: {error.strerror}.") from error
    except yaml.constructor.ConstructorError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise BadConfig(
            f"{printable(path)}{place}: {printable(error.problem)}. Only plain YAML is loaded: "
            "tags such as !!python/object could run code."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise BadConfig(f"{printable(path)} is no YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise BadConfig(f"{printable(path)} holds a {kind}, not keys with values.")
    _check_size(content, path)
    return content


def _check_size(content: Any, path: str) -> None:
    """Counts what is reached with aliases written out; an alias inside itself is endless."""
    left, waiting = MOST_NODES, [content]
    while waiting:
        node = waiting.pop()
        children = list(node.values() if isinstance(node, dict) else node)
        waiting += [child for child in children if isinstance(child, (dict, list))]
        left -= len(children)
        if left < 0:
            raise BadConfig(
                f"{printable(path)}: its aliases stand for more than {MOST_NODES} values."
            )


def _merge(own: dict[str, Any], base: dict[str, Any], path: str) -> None:
    for key, value in own.items():
        if isinstance(value, dict) and key in base:
            if not isinstance(base[key], dict):
                raise BadConfig(f"{printable(path)}: {printable(key)} is one value in its {BASE}.")
            _merge(value, base[key], path)
        else:
            base[key] = value
