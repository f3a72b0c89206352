"""The pseudo-labels in a checkpoint (its entry "cc"), read with distrust: files tear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..data.items import fingerprint
from ..errors import UnreadableFile
from ..structures import PseudoLabels

ADVICE = "Start anew in another OUTPUT_DIR, or use the checkpoint as MODEL.WEIGHTS."


class OtherImages(UnreadableFile, ValueError):
    """The labels of a checkpoint belong to other images than those of the config."""


def labels_of(state: Any, paths: Sequence[str]) -> PseudoLabels | None:
    """The labels of the images at `paths`; None before the first labelling.

    Args:
        state: a checkpoint's "cc" entry.
        paths: the images, in data-set order.

    Raises:
        UnreadableFile: if the entry is not what this version writes.
        OtherImages: if it labels other images.
    """
    if not isinstance(state, dict) or state.get("version") != 1:
        raise UnreadableFile('the checkpoint\'s "cc" entry is none of this version (wanted 1).')
    labels, eps = state.get("labels"), state.get("eps")
    if labels is None:
        return None
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UnreadableFile('the checkpoint\'s "cc" labels are no list of whole numbers.')
    if eps is not None and not isinstance(eps, (int, float)):
        raise UnreadableFile(f'the checkpoint\'s "cc" eps is no number: {type(eps).__name__}.')
    if len(labels) != len(paths):
        raise OtherImages(
            f"The checkpoint labels {len(labels)} images, DATASETS.NAMES has {len(paths)}: they are"
            f" not the same data set. {ADVICE}"
        )
    if state.get("images", fingerprint(paths)) != fingerprint(paths):
        raise OtherImages(
            f"The checkpoint labels {len(labels)} images of other names than those of"
            f" DATASETS.NAMES: files were added, removed or renamed. {ADVICE}"
        )
    found = labels.numpy()
    known = np.unique(found[found >= 0])
    if (found < -1).any() or not np.array_equal(known, np.arange(len(known))):
        raise UnreadableFile('the checkpoint\'s "cc" labels are not -1, 0, 1, ... without gaps.')
    return PseudoLabels(found, eps)
