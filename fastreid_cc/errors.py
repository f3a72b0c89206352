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


class MissingPackage(ClearError, ImportError):
    """A package or module is not installed; the message says what to type."""


class MissingWeights(ClearError, RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message names the file and the key."""


class UnreadableFile(ClearError, RuntimeError):
    """A checkpoint or weights file is damaged or refused; the message names it."""


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
