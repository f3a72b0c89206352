"""Poses: key points in one order, their maps and drawings."""

from .keypoints import LIMBS, NAMES, resize_keypoints, to_18
from .maps import draw_skeleton, pose_map

__all__ = ["LIMBS", "NAMES", "draw_skeleton", "pose_map", "resize_keypoints", "to_18"]
