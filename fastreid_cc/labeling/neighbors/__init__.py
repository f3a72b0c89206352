"""Neighbour searches: features in, the k nearest images of each image out."""

from ...registry import discover

discover(__name__)
