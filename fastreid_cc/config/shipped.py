"""Where the configs that come with this package lie: beside it in a checkout, in it when installed.

`fastreid_cc://Market1501/cc_R50.yml` names one of them from any folder, as `--config-file` and as
`_BASE_` of a YAML of your own.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import WrongUse, printable

PREFIX = "fastreid_cc://"
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


def resolve(name: str) -> Path:
    """The file that `fastreid_cc://...` names.

    Raises:
        WrongUse: if there is none, or the name leads out of the folder.
    """
    folder = configs_folder()
    path = (folder / name.removeprefix(PREFIX)).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise WrongUse(
            f"{printable(name)}: no such config comes with fastreid_cc. "
            "`python -m fastreid_cc config --files` lists them."
        )
    return path
