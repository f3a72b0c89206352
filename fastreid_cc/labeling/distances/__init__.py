"""Distances between images, as sparse matrices: absent means farther than asked for."""

from ...registry import discover

discover(__name__)
