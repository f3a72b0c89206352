"""Makers of images to learn from beside real ones."""

from ..registry import discover

discover(__name__)
