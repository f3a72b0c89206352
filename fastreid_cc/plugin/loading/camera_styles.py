"""Camera styles of the target's training images, from CC.CAMSTYLE."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ...data.camera_style import StyleFolder, StyleStatistics

logger = logging.getLogger("fastreid.cc.styles")


def camera_style(cfg: Any, paths: list[str], cameras: np.ndarray) -> Any:
    """What changes an image's camera, `(image, path, camera) -> image`; None with MODE off.

    Raises:
        ValueError: from `StyleFolder` and `StyleStatistics`.
    """
    node = cfg.CC.CAMSTYLE
    if node.MODE == "off":
        return None
    if node.MODE == "folder":
        style = StyleFolder(node.FOLDER, paths)
        if style.num_without:
            logger.warning(
                f"CC.CAMSTYLE.FOLDER has no transfer of {style.num_without:,} of {len(paths):,}"
                " images: they are always seen as they are."
            )
        return style
    if len(np.unique(cameras)) == 1:
        logger.warning("CC.CAMSTYLE.MODE statistics with one camera: images stay as they are.")
        return None
    return StyleStatistics(
        paths, cameras, images_per_camera=node.IMAGES_PER_CAMERA, seed=cfg.CC.SEED
    )
