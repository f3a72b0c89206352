"""Versions of what a run or a page was made with."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata

PACKAGES = "fastreid_cc fastreid torch torchvision numpy scikit-learn matplotlib".split()


def installed() -> dict[str, str]:
    """Package -> version, of Python and those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
