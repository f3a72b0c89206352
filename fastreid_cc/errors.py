"""Errors whose message is all a user needs: the command line prints them without a traceback."""

from __future__ import annotations


class MissingPackage(ImportError):
    """A package or module is not installed; the message says what to type."""
