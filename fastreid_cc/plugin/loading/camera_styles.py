"""Other pictures of training images: camera styles of CC.CAMSTYLE, poses of CC.POSES."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ...config.keys import arguments
from ...data.camera_style import StyleFolder, StyleStatistics
from ...data.generated_views import ViewFolder

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


def generated_views(cfg: Any, paths: list[str]) -> ViewFolder | None:
    """The generated views of training images; None with CC.POSES.SHOW 0 and FUSE off.

    Raises:
        BadConfig: from `ViewFolder`.
    """
    node = cfg.CC.POSES
    if node.SHOW <= 0 and node.FUSE == "off":
        return None
    found = ViewFolder(paths, **arguments(cfg, ViewFolder))
    if found.num_missing:
        logger.warning(
            f"CC.POSES.FOLDER lacks {found.num_missing:,} of {len(paths):,} x {len(found.views)}"
            f" views, all of {found.num_without:,} images: the image is shown in their place."
        )
    else:
        logger.info(f"CC.POSES.FOLDER: {len(found.views)} views of each of {len(paths):,} images")
    return found
