"""Clusterers: pseudo-labels from features, neighbours or distances."""

from ...registry import discover

discover(__name__)
