"""Poses: key points in one order, read, drawn, clustered; features of views joined."""

from .canonical import Canonical, canonical_poses, mean_pose_images, normalize
from .fusion import fuse
from .keypoints import LIMBS, NAMES, resize_keypoints, to_18
from .maps import draw_skeleton, pose_map
from .readers import Poses, read_poses, write_coco

__all__ = [
    "LIMBS",
    "NAMES",
    "Canonical",
    "Poses",
    "canonical_poses",
    "draw_skeleton",
    "fuse",
    "mean_pose_images",
    "normalize",
    "pose_map",
    "read_poses",
    "resize_keypoints",
    "to_18",
    "write_coco",
]
