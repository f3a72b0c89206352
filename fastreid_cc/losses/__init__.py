"""Losses on a batch and, for some, a memory."""

from ..registry import discover

discover(__name__)
