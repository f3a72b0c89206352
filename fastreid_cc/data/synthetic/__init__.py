"""Synthetic pedestrians: people, cameras and pictures drawn from a seed, no download needed."""

from .build import VERSION, SyntheticOptions, build_synthetic
from .camera import Camera, sample_camera
from .figure import Pose, draw_figure
from .identity import Identity, sample_identity
from .market import read_market
from .picture import draw_picture, sample_pose

__all__ = [
    "VERSION",
    "Camera",
    "Identity",
    "Pose",
    "SyntheticOptions",
    "build_synthetic",
    "draw_figure",
    "draw_picture",
    "read_market",
    "sample_camera",
    "sample_identity",
    "sample_pose",
]
