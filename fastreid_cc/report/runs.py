"""What a run left in its folder (scalars, config, versions), and features of its images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

#: Scalars of one name over the run: (iterations i64 [T], values f64 [T]).
Series = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Clustered:
    """The training images of a label-free run, as its last labelling left them.

    Args:
        paths: N image files, in data-set order.
        cameras: i64 [N].
        labels: i64 [N], -1 = outlier.
        features: f32 [N, D], unit rows, by the final network.
        truth: i64 [N] identities, -1 = unknown; None where no image has one. To look at only.
    """

    paths: list[str]
    cameras: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class TestSet:
    """Query and gallery of one test set with their features; query rows come first.

    Args:
        name: as in DATASETS.TESTS.
        paths: Q + G image files.
        identities, cameras: i64 [Q + G].
        features: f32 [Q + G, D], unit rows.
        num_query: Q.
    """

    __test__ = False  # pytest takes the name for a test's

    name: str
    paths: list[str]
    identities: np.ndarray
    cameras: np.ndarray
    features: np.ndarray
    num_query: int


@dataclass(frozen=True)
class RunFeatures:
    """A run's images with their features; `notes` says in sentences what could not be had."""

    clustered: Clustered | None = None
    tests: list[TestSet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Run:
    """One run.

    Args:
        name: what the page calls it.
        folder: OUTPUT_DIR.
        scalars: series by name, from metrics.json.
        config: full key -> value, from config.yaml.
        versions: what it was trained with, from versions.json; empty where there is none.
        features: its images, with features by its final network.
        notes: what is missing, in sentences.
    """

    name: str
    folder: Path
    scalars: dict[str, Series]
    config: dict[str, object]
    versions: dict[str, str]
    features: RunFeatures = field(default_factory=RunFeatures)
    notes: list[str] = field(default_factory=list)

    def last(self, key: str, scale: float = 1) -> float | None:
        """Last value of a series, times `scale`; None without one."""
        found = self.scalars.get(key)
        return None if found is None else scale * float(found[1][-1])

    def before(self) -> float | None:
        """mAP before label-free training: of direct transfer, else of the weights at the start."""
        key = self.measured("mAP")
        found = self.last(f"transfer/{key}")
        return self.last(f"start/{key}") if found is None else found

    def measured(self, name: str) -> str:
        """Key of a measurement, e.g. "mAP": with several test sets the first one's."""
        if name in self.scalars:
            return name
        keys = [f"{test}/{name}" for test in self.names("DATASETS.TESTS")]
        return next((key for key in keys if key in self.scalars), name)

    def plain_name(self, key: str) -> str:
        """The reverse of `measured`: the name without the first test set's."""
        tests = self.names("DATASETS.TESTS")
        plain = key.removeprefix(f"{tests[0]}/") if tests else key
        return plain if self.measured(plain) == key else key

    def names(self, key: str) -> list[str]:
        """A config key that holds names, such as DATASETS.NAMES; [] where it is unknown."""
        found = self.config.get(key)
        return list(map(str, found)) if isinstance(found, (list, tuple)) else []


def identities(run: Run) -> int | None:
    """True identities among the training images, where all of them are known."""
    images = run.features.clustered
    if images is None or images.truth is None or (images.truth < 0).any():
        return None
    return len(np.unique(images.truth))


def read_metrics(path: Path) -> tuple[dict[str, Series], list[str]]:
    """Series of metrics.json, and what is wrong with the file.

    A resumed run appends steps it did before; the later value of a step counts, and what lay after
    it is dropped. Half a line at the end (a killed run) is left out and said.
    """
    found: dict[str, dict[int, float]] = {}
    notes: list[str] = []
    if not path.is_file():
        return {}, [f"{path} is missing, so there are no curves."]
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            step = int(entry.pop("iteration"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            notes.append(f"Line {number} of metrics.json is damaged and left out.")
            continue
        for key, value in entry.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                points = found.setdefault(key, {})
                while points and next(reversed(points)) >= step:
                    points.popitem()
                points[step] = float(value)
    return {
        key: (np.array(list(points), dtype=np.int64), np.array(list(points.values())))
        for key, points in found.items()
    }, notes


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Nested dictionaries as full key -> value."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def read_config(path: Path) -> tuple[dict[str, object], list[str]]:
    """Full keys of config.yaml; tags that would build objects are refused."""
    import yaml

    if not path.is_file():
        return {}, [f"{path} is missing, so the set-up is unknown."]
    try:
        tree = yaml.safe_load(path.read_text("utf-8", errors="replace"))
    except yaml.YAMLError as error:
        return {}, [f"config.yaml cannot be read: {str(error).splitlines()[0]}"]
    return (flatten(tree), []) if isinstance(tree, dict) else ({}, ["config.yaml holds no keys."])


def read_versions(path: Path) -> dict[str, str]:
    """versions.json, empty where it is missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def read_run(folder: Path, name: str) -> Run:
    """Reads a run's folder.

    Raises:
        ValueError: if there is no such folder, or it holds neither metrics.json nor config.yaml.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; want the OUTPUT_DIR of a run.")
    scalars, notes = read_metrics(folder / "metrics.json")
    config, more = read_config(folder / "config.yaml")
    if not scalars and not config:
        raise ValueError(
            f"{folder} holds neither metrics.json nor config.yaml; want the OUTPUT_DIR of a run."
        )
    if "total_loss" in scalars and not np.isfinite(scalars["total_loss"][1]).all():
        more.append("The loss was not finite at some steps; they are left out of the curve.")
    return Run(
        name, folder, scalars, config, read_versions(folder / "versions.json"), notes=notes + more
    )


def names(folders: list[Path]) -> list[str]:
    """Short names for folders, as many last parts of their paths as it takes to differ."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return [f"{name} ({i})" for i, name in enumerate(found, 1)]
