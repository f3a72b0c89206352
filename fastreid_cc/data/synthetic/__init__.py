"""Synthetic pedestrians: people, cameras and pictures drawn from a seed, no download needed."""

from .body import Pose
from .build import VERSION, StyledOptions, SyntheticOptions, build_synthetic
from .camera import Camera, sample_camera
from .clips import ClipOptions, write_clips
from .figure import draw_figure
from .identity import Identity, sample_identity
from .keypoints import key_points, synthetic_poses, write_views
from .market import read_market
from .picture import draw_picture, sample_pose
from .style import STYLES, Style

__all__ = [
    "STYLES",
    "VERSION",
    "Camera",
    "ClipOptions",
    "Identity",
    "Pose",
    "Style",
    "StyledOptions",
    "SyntheticOptions",
    "build_synthetic",
    "draw_figure",
    "draw_picture",
    "key_points",
    "read_market",
    "sample_camera",
    "sample_identity",
    "sample_pose",
    "synthetic_poses",
    "write_clips",
    "write_views",
]
