"""Image files: which one failed, what they may start, and warnings of how they are read."""

from __future__ import annotations

import warnings
from typing import Any

from fastreid.data.common import CommDataset
from PIL import EpsImagePlugin

from fastreid_cc.errors import printable

from ..patching import around, assign


@around(CommDataset, "__getitem__")
def name_the_image_that_failed(stock: Any, dataset: Any, index: int) -> Any:
    """Adds the path to an exception while an image is read or transformed.

    Breaks: "image file is truncated" and the like name no file. All versions. Does: the same
    exception class with the path added, also out of a worker process. Test: test_compat_loader.py.
    May go: when fastreid adds the path.
    """
    try:
        return stock(dataset, index)
    except Exception as error:
        path = str(dataset.img_items[index][0]) if index < len(dataset.img_items) else ""
        if not path or path in str(error):
            raise
        raise _with_path(error, path) from error


def _with_path(error: Exception, path: str) -> Exception:
    message = f"{error} (image: {printable(path)})"
    try:
        return type(error)(message)
    except TypeError:
        return RuntimeError(f"{type(error).__name__}: {message}")


def never_start_ghostscript() -> None:
    """Refuses image files that hold PostScript, whatever their name.

    Breaks: to draw one, Pillow starts the program `gs` on the file, and PostScript is a programming
    language. All versions. Does: such a file is an image that cannot be read. Test:
    test_security.py. May go: never.
    """
    assign(EpsImagePlugin, "gs_binary", False)


def silence_deprecations() -> None:
    """Keeps two warnings of torch out of the log.

    Breaks: "TypedStorage is deprecated" (torch >= 2.0), where images are read, and "This overload
    of addmm_ is deprecated", where distances are computed, in the middle of the log. Does: ignores
    them where fastreid causes them. Test: test_compat_transforms.py, test_compat_evaluation.py. May
    go: when fastreid uses neither.
    """
    for message in ("TypedStorage is deprecated", r"\s*This overload of addmm_ is deprecated"):
        warnings.filterwarnings("ignore", message, UserWarning, r"fastreid\.")
