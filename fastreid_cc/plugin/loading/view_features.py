"""Features of images joined with those of their generated views, for labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .extract import extract_features
from .target_images import ImageList, TargetImages


@torch.no_grad()
def joined_with_views(cfg: Any, model: nn.Module, images: TargetImages, features: Tensor) -> Tensor:
    """Features f32 [N, D] that labels are made from: the images', joined with their views'.

    With CC.POSES.FUSE, where a missing view is the image itself; else `features`, those of the
    images. The same as `data.poses.fuse`, in 4·N·D floats. Cost: an extraction for each of K views.
    """
    views = images.views
    if views is None:
        return features
    joined = features
    for place in range(len(views.views)):
        found = [views.path_of(path, place) for path in images.paths]
        rows = np.flatnonzero([path is not None for path in found])
        there = ImageList([path for path in found if path is not None], images.cameras[rows])
        of_view = features.clone()
        of_view[torch.from_numpy(rows)] = extract_features(cfg, model, there)
        joined = torch.maximum(joined, of_view) if views.fuse == "max" else joined + of_view
    return F.normalize(joined)
