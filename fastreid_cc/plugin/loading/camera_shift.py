"""Whether a network's features tell more of the camera than of who is in front of it."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from ...labels.feature_figures import cross_camera_share
from ..seeding import sample_rows

logger = logging.getLogger("fastreid.cc.engine")

#: Neighbours from other cameras less often than this share of chance follow the camera.
LEAST = 0.9
#: Images, at most, whose neighbours are looked at, among themselves.
IMAGES = 2000
#: CC.EXTRACT.BN auto in a training whose statistics are frozen, and in one where they are learnt.
LABELLED_BY = {True: "running", False: "camera"}


def follows_cameras(features: Tensor, cameras: np.ndarray, seed: int) -> bool:
    """Whether the 10 nearest images come from another camera less often than by chance.

    No identity is read. Images of one camera alone tell nothing and count as following it; so do
    individuals whom each camera took more than 10 times, whose nearest images are of the same
    camera however good the features are. 0.9 of chance lies between two sets of objects that want
    it either way (docs/own-images.md).

    Args:
        features: f32 [N, D], by the statistics that a network brought along. cameras: i64 [N].

    Cost: 4·10^6·D multiplications at most, on the CPU.
    """
    rows = sample_rows(len(cameras), IMAGES, seed)
    found = features[torch.from_numpy(rows).to(features.device)].cpu().numpy()
    share = cross_camera_share(found, cameras[rows])
    follows = not share >= LEAST  # one camera: no number
    logger.info(
        f"neighbours come from another camera {share:.2f} times as often as by chance:"
        f" features {'follow' if follows else 'do not follow'} the camera"
    )
    return follows
