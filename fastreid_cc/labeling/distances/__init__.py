"""Distances between images, as sparse matrices: absent means farther than asked for."""

from ...registry import discover
from .rerank import jaccard_query_gallery, rerank_distance

__all__ = ["jaccard_query_gallery", "rerank_distance"]

discover(__name__)
