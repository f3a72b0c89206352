"""Where the configs that come with this package lie: beside it in a checkout, in it when installed.

`Market1501/cc_R50` names one of them from any folder as `--config-file`; the long form of it,
`fastreid_cc://Market1501/cc_R50.yml`, as `_BASE_` of a YAML of your own too.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..errors import BadConfig, printable

PREFIX = "fastreid_cc://"
#: What the line `# tested: ...` above a config may say, the least first: the highest that holds.
TESTED = {
    "none": "not run yet, and nothing published to equal",
    "values": "its parts equal recorded or closed-form values; not run to a figure yet",
    "demo": "run and measured on generated people",
    "own images": "run and measured on small sets of real images",
    "full": "run and measured on the public data set",
}
_PACKAGE = Path(__file__).resolve().parents[1]


def configs_folder() -> Path:
    """The folder of the shipped configs.

    Raises:
        FileNotFoundError: if the installation lacks them.
    """
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (folder / "Base-USL.yml").is_file():
            return folder
    raise FileNotFoundError(
        f"the configs of fastreid_cc are neither in {_PACKAGE / 'configs'} nor in "
        f"{_PACKAGE.parent / 'configs'}: install the package again."
    )


def config_files() -> list[str]:
    """All shipped configs, as paths below the folder with "/", sorted."""
    folder = configs_folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yml"))


def how_tested(name: str) -> str:
    """How far a shipped config was tested: a key of `TESTED`; "" of a base and of other files.

    >>> how_tested("OwnImages/cc_osnet_x0_25")
    'own images'

    Args:
        name: as `find_config` takes it, or the path of a file.
    """
    name = find_config(name)
    path = resolve(name) if name.startswith(PREFIX) else Path(name).expanduser().resolve()
    if not (path.is_relative_to(configs_folder().resolve()) and path.is_file()):
        return ""  # a copy of one may have been changed
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# tested: "):
            return line.removeprefix("# tested: ")
    return ""


def resolve(name: str) -> Path:
    """The file that `fastreid_cc://...` names.

    Raises:
        BadConfig: if there is none, or the name leads out of the folder.
    """
    path = _shipped(name.removeprefix(PREFIX))
    if path is None:
        raise BadConfig(
            f"{printable(name)}: no such config comes with fastreid_cc.{_near(name)} "
            "`python -m fastreid_cc config --files` lists them."
        )
    return path


def find_config(name: str) -> str:
    """The name that opens a config: a path as it is, a shipped one's short name in its long form.

    >>> find_config("quick/usl_tiny")
    'fastreid_cc://quick/usl_tiny.yml'

    Raises:
        BadConfig: with the nearest name, if there is neither.
    """
    if "://" in name or os.path.lexists(os.path.expanduser(name)):
        return name
    path = _shipped(name if name.endswith((".yml", ".yaml")) else f"{name}.yml")
    if path is None:
        raise BadConfig(
            f"{printable(name)}: no such file in {printable(os.getcwd())}, and no config of this "
            f"name comes with fastreid_cc.{_near(name)} `python -m fastreid_cc config --files` "
            "lists them."
        )
    return PREFIX + path.relative_to(configs_folder().resolve()).as_posix()


def _shipped(name: str) -> Path | None:
    folder = configs_folder().resolve()
    path = (folder / name).resolve() if "\0" not in name else folder
    return path if path.is_relative_to(folder) and path.is_file() else None


def _near(name: str) -> str:
    """A hint with the shipped config whose short name is nearest, "" if none is."""
    short = name.removeprefix(PREFIX).removeprefix("configs/").removesuffix(".yml")
    known = [file.removesuffix(".yml") for file in config_files()]
    lower = {file.lower(): file for file in known}
    lower |= {file.rsplit("/", 1)[-1].lower(): file for file in known if "/" not in short}
    near = difflib.get_close_matches(short.lower(), lower, n=1, cutoff=0.6)
    return f" Did you mean {lower[near[0]]}?" if near else ""
