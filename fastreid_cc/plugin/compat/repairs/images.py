"""Image files: which one failed, what they may start, and warnings of how they are read."""

from __future__ import annotations

import functools
import warnings
from typing import Any

from fastreid.data.common import CommDataset
from PIL import EpsImagePlugin

from fastreid_cc.errors import printable

from ..patching import assign


def name_the_image_that_failed() -> None:
    """Adds the path to an exception while an image is read or transformed.

    Breaks: "image file is truncated" and the like name no file. All versions. Does: the same
    exception class with the path added, also out of a worker process. Test: test_compat_loader.py.
    May go: when fastreid adds the path.
    """
    stock = CommDataset.__getitem__

    @functools.wraps(stock)
    def __getitem__(self: Any, index: int) -> Any:
        try:
            return stock(self, index)
        except Exception as error:
            path = str(self.img_items[index][0]) if index < len(self.img_items) else ""
            if not path or path in str(error):
                raise
            raise _with_path(error, path) from error

    assign(CommDataset, "__getitem__", __getitem__)


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
