"""Errors whose message is all a user needs: the command line prints them without a traceback."""

from __future__ import annotations


class ClearError(Exception):
    """Something the user can put right; the message says how."""


class MissingPackage(ClearError, ImportError):
    """A package or module is not installed; the message says what to type."""


class MissingWeights(ClearError, RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message names the file and the key."""
