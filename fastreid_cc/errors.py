"""Errors whose message is all a user needs: the command line prints them without a traceback."""

from __future__ import annotations


class ClearError(Exception):
    """Something the user can put right; the message says how.

    Attributes:
        status: exit status of what ends with it: 2 = the command line or the config is wrong, 1 =
            both are right, but what was asked for cannot be done here.
    """

    status = 1


class WrongUse(ClearError, ValueError):
    """A command line or a value that makes no sense."""

    status = 2


class BadConfig(ClearError, KeyError, ValueError):
    """A config file or key that makes no sense; the message names it."""

    status = 2
    __str__ = Exception.__str__  # KeyError's would put the message in quotes


class MissingPackage(ClearError, ImportError):
    """A package or module is not installed; the message says what to type."""


class MissingData(ClearError, RuntimeError):
    """A data set is not where it is looked for; the message says where that is."""


class MissingWeights(ClearError, RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message names the file and the key."""


class UnreadableFile(ClearError, RuntimeError):
    """A checkpoint or weights file is damaged or refused; the message names it."""


class Unwritable(ClearError, OSError):
    """An output folder is full or read-only; the message names it and what is kept."""


def counted(number: float, noun: str) -> str:
    """ "1 cluster", "2,000 clusters"."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def printable(text: object) -> str:
    """Escapes what could act on a terminal in a text from outside (file name, identity, error).

    Control characters, line ends, bytes that are no UTF-8 and marks that turn the direction of
    writing become escapes such as \\n and \\x1b; all else stays as it is.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
