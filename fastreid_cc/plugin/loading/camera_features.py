"""TEST.BN camera: what is tested, extracted with the batch-norm statistics of each camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from ...data.items import number
from ...parallel.collectives import unwrapped
from .extract import extract_features, extraction_config
from .target_images import ImageList


class ExtractedFeatures(nn.Module):
    """Stands for a network in an evaluation: hands out features that are there already.

    Args:
        paths: of N images.
        features: f32 [N, D].
    """

    def __init__(self, paths: list[str], features: Tensor) -> None:
        super().__init__()
        self.row_of = {path: row for row, path in enumerate(paths)}
        self.features = features

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Of a batch's `img_paths`; mirrored images are in them already, by TEST.FLIP."""
        return self.features[[self.row_of[path] for path in batch["img_paths"]]]


def by_camera(cfg: Any, model: nn.Module, data: Any) -> ExtractedFeatures:
    """Features of a data set's test images, unit rows, each camera with its own statistics.

    Those of batches of CC.EXTRACT.IMS_PER_BATCH test images, query and gallery together: what an
    image gives depends on the others of its camera, of whom no label is read. A camera of fewer
    images than about 30 has poor statistics.

    Cost: one pass over the test images.
    """
    paths = sorted({item[0] for item in (*data.query, *data.gallery)})
    images = ImageList(paths, true_cameras(data, paths))
    return ExtractedFeatures(paths, extracted_as_tested(cfg, model, images))


def extracted_as_tested(cfg: Any, model: nn.Module, images: ImageList) -> Tensor:
    """Features f32 [N, D] as evaluation takes them: TEST.BN, TEST.FLIP, MODEL.HEADS.TEST_FEAT."""
    cfg = extraction_config(cfg, cfg.TEST.BN, flip=cfg.TEST.FLIP.ENABLED)
    return extract_features(cfg, unwrapped(model), images, tested=True)


def true_cameras(data: Any, paths: list[str]) -> np.ndarray:
    """i64 [N], the camera of each test image of a data set, numbered from 0.

    Of its items, or, where their third field stands for something else, its `camera_of`.
    """
    camera_of = {item[0]: item[2] for item in (*data.query, *data.gallery)}
    camera_of |= getattr(data, "camera_of", {})
    return number(camera_of[path] for path in paths)[0]
