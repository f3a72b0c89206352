"""The console of `train` without what nobody reads there: the full config, environment, layers."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from fastreid.engine import defaults

MOST_LINES = 30


class ShortFormatter(logging.Formatter):
    """Gives the first line of a long message and says where the others are.

    Args:
        inner: formats a message in full.
        folder: where log.txt is, which holds them in full.
    """

    def __init__(self, inner: logging.Formatter, folder: str) -> None:
        super().__init__()
        self.inner, self.folder = inner, folder

    def format(self, record: logging.LogRecord) -> str:
        """The message; of warnings and errors every line."""
        text = self.inner.format(record)
        first, *rest = text.splitlines() or [""]
        if len(rest) < MOST_LINES or record.levelno >= logging.WARNING:
            return text
        return f"{first} … ({len(rest)} lines, in {self.folder}/log.txt)"


@contextlib.contextmanager
def short_console(folder: str) -> Iterator[None]:
    """Within, `default_setup` makes a logger that is short on the console, in full in log.txt."""
    stock = defaults.setup_logger

    def setup(*args: Any, **kwargs: Any) -> logging.Logger:
        logger: logging.Logger = stock(*args, **kwargs)
        for handler in logger.handlers:
            inner, stream = handler.formatter, getattr(handler, "stream", None)
            if inner and stream is sys.stdout and not isinstance(inner, ShortFormatter):
                handler.setFormatter(ShortFormatter(inner, folder))
        return logger

    defaults.setup_logger = setup
    try:
        yield
    finally:
        defaults.setup_logger = stock
