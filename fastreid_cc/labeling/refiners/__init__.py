"""Refiners: take doubtful images out of clusters before they are trained on."""

from ...registry import discover

discover(__name__)
