"""The label engine as the tests call it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from fastreid_cc.labeling.distances.base import Distance
from fastreid_cc.labeling.neighbor_lists import find_neighbors
from fastreid_cc.labeling.neighbors.exact import ExactKNN


def distances(
    distance: Distance,
    features: np.ndarray | Tensor,
    radius: float = 1.0,
    cameras: np.ndarray | None = None,
) -> sp.csr_array:
    """The distances of unit rows up to a radius, from the searches it declares."""
    rows = torch.as_tensor(features)
    camera = (
        np.zeros(len(rows), int) if cameras is None else np.unique(cameras, return_inverse=True)[1]
    )
    wanted = distance.searches(len(rows), int(camera.max()) + 1)
    graphs = find_neighbors(ExactKNN(), rows, wanted, camera)
    return distance(rows, graphs, max_distance=radius, cameras=cameras)
