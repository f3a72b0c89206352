"""One feature of an image and its generated views, after PN-GAN's test."""

from __future__ import annotations

import numpy as np

from ...errors import WrongUse

HOW = ("max", "mean", "concat")


def fuse(
    views: np.ndarray, how: str, *, real: np.ndarray | None = None, there: np.ndarray | None = None
) -> np.ndarray:
    """Scales each feature to unit length and joins those of an image: 8 generated, or 1 + 8.

    Args:
        views: f32 [N, K, D], of K views of each image.
        how: entry by entry the largest ("max") or the mean, or all in a row ("concat").
        real: f32 [N, D], of the image itself; None = the views alone.
        there: bool [N, K], which views there are; the others' features are not read, `real` takes
            their place. None = all.
    Returns:
        f32 [N, D], or [N, (K + 1)·D] or [N, K·D] for "concat"; rows of unit length. K + 1 equal
        features give themselves by max and mean; the order of views matters to concat alone.
    Raises:
        ValueError: if views are missing and there is no real feature, `how` is not known, or the
            sizes of features differ.

    Where the features of `real` and `views` are by two networks (PN-GAN's A and B), an entry of one
    means nothing to the other: max and mean of both are as published, and arbitrary. Concat is not.
    Cost: O(N·K·D). Source: Qian et al., arXiv:1712.02225: max; its script has all three.
    """
    if real is not None and real.shape[-1] != views.shape[-1]:
        raise WrongUse(
            f"Features of {real.shape[-1]} and {views.shape[-1]} numbers cannot be joined: the"
            " network of images and that of views must be of one size."
        )
    if how not in HOW:
        raise ValueError(f"{how!r} is no way to fuse; known are {', '.join(HOW)}.")
    joined = _unit(views)
    if real is not None:
        own = _unit(real)[:, None]
        if there is not None:
            joined = np.where(there[..., None], joined, own)
        joined = np.concatenate([own, joined], 1)
    elif there is not None and not there.all():
        raise ValueError("Some views are missing, and there is no real feature in their place.")
    if how == "concat":
        return _unit(joined.reshape(len(joined), -1))
    return _unit(joined.max(1) if how == "max" else joined.mean(1))


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norm, np.float32(1e-12))
