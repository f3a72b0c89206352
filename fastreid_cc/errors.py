"""Errors whose message is all a user needs: the command line prints them without a traceback."""

from __future__ import annotations

FASTREID_COMMAND = "pip install --no-deps fastreid==1.4.0"
_PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    **{
        name: name
        for name in (
            "matplotlib",
            "numba",
            "numpy",
            "scipy",
            "tabulate",
            "tensorboard",
            "termcolor",
        )
    },
    **{name: name for name in ("torch", "torchvision", "tqdm", "yacs")},
}


class ClearError(Exception):
    """Something the user can put right; the message says how."""


class WrongUse(ClearError, ValueError):
    """A command line or a value that makes no sense; the command ends with exit status 2."""


class BadConfig(ClearError, KeyError, ValueError):
    """A config file or key that makes no sense; the message names it."""

    __str__ = Exception.__str__  # KeyError's would put the message in quotes


class MissingPackage(ClearError, ImportError):
    """A package or module is not installed; the message says what to type."""


class MissingWeights(ClearError, RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message names the file and the key."""


class UnreadableFile(ClearError, RuntimeError):
    """A checkpoint or weights file is damaged or refused; the message names it."""


class Unwritable(ClearError, OSError):
    """An output folder is full or read-only; the message names it and what is kept."""


def printable(text: object) -> str:
    """A name from outside (file, identity) as it may be printed: nothing in it acts on a terminal.

    Control characters, line ends, bytes that are no UTF-8 and marks that turn the direction of
    writing become escapes such as \\n and \\x1b; all else stays as it is.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def missing_fastreid() -> MissingPackage:
    """The error for a missing fastreid, with the command to type."""
    return MissingPackage(
        "fastreid is not installed. Install it without its outdated pins:\n"
        f"    {FASTREID_COMMAND}\n"
        "or put a clone of github.com/JDAI-CV/fast-reid on PYTHONPATH."
    )


def explain_missing(error: ModuleNotFoundError) -> ImportError:
    """The same error as a MissingPackage, if it is about a package that fastreid or we need."""
    name = (error.name or "").split(".")[0]
    if name == "fastreid":
        return missing_fastreid()
    if name not in _PACKAGES:
        return error
    return MissingPackage(
        f"the package {name!r}, which fastreid needs, is not installed. Install it:\n"
        f"    pip install {_PACKAGES[name]}"
    )
