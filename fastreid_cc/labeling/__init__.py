"""Features in, pseudo-labels out, without fastreid: search, distance, clusterer, refiners."""

from .pseudo_labeler import PseudoLabeler

__all__ = ["PseudoLabeler"]
