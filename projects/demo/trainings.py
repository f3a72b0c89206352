"""Where this repository lies, and trainings side by side."""

from __future__ import annotations

from pathlib import Path

from fastreid_cc.parallel.trainings import Training, cores, read_metrics, run_all

__all__ = ["ROOT", "Training", "cores", "read_metrics", "run_all"]

ROOT = Path(__file__).resolve().parents[2]
