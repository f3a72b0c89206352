"""Memories: rows that stand for clusters, images or source classes."""

from ..registry import discover

discover(__name__)
