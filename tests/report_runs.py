"""Made-up runs for the report's tests: a folder as a training leaves it, images, features."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from fastreid_cc.report import Clustered, Run, RunFeatures, TestSet, read_run

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&"


class Page(HTMLParser):
    """Tags, ids, attributes and tables of a page; notes what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def images(folder: Path, count: int, *, name: str = "") -> list[str]:
    """`count` small images of a colour each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        path = folder / f"{name}{i:03d}.png"
        Image.new("RGB", (16, 32), (i * 9 % 256, i * 31 % 256, 99)).save(path)
        paths.append(str(path))
    return paths


def clustered(folder: Path, *, seed: int = 0, name: str = "") -> Clustered:
    """Five clusters of six to ten images by three cameras, four outliers, one image mislabelled."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(5), [6, 7, 8, 9, 10])
    labels = truth.copy()
    labels[[0, 9, 20, 39]], labels[1] = -1, 3
    features = np.eye(5, 16)[truth] + generator.normal(0, 0.15, (40, 16))
    cameras = generator.integers(0, 3, 40)
    return Clustered(images(folder, 40, name=name), cameras, labels, unit(features), truth)


def made_test_set(folder: Path, *, seed: int = 0, noise: float = 0.4) -> TestSet:
    """Six queries of six identities and 24 gallery images by two cameras; some of nobody."""
    generator = np.random.default_rng(seed)
    identities = np.concatenate([np.arange(6), np.repeat(np.arange(6), 3), np.full(6, -1)])
    cameras = np.concatenate([np.zeros(6), np.tile([0, 1, 1], 6), np.ones(6)]).astype(np.int64)
    features = unit(np.eye(7, 12)[identities] + generator.normal(0, noise, (30, 12)))
    return TestSet("Made", images(folder, 30), identities, cameras, features, 6)


def write(folder: Path, *, has_clusters: bool = True, offset: float = 0.0) -> list[dict]:
    """metrics.json and config.yaml of a run of 100 steps; returns the lines of the former."""
    folder.mkdir(parents=True)
    lines: list[dict] = []
    for step in range(0, 100, 20):
        if has_clusters:
            lines.append(
                {
                    "iteration": step,
                    "cc/num_clusters": 30.0 - step / 10,
                    "cc/eps": 0.6,
                    "cc/outlier_share": 0.25 - step / 500,
                    "cc/ari": 0.3 + step / 200,
                    "cc/cameras_per_cluster": 1.5 + step / 100,
                }
            )
        lines.append({"iteration": step + 19, "total_loss": 3.25 / (1 + step) + offset})
    lines.append({"iteration": 50, "mAP": 41.25 + offset, "Rank-1": 60.5})
    lines.append({"iteration": 100, "mAP": 57.75 + offset, "Rank-1": 75.0, "mINP": 20.0})
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(
        f"DATASETS: {{NAMES: [Made], TESTS: [Made]}}\nSOLVER: {{BASE_LR: {0.001 + offset}}}\n"
        "MODEL: {DEVICE: cpu}\n"
    )
    return lines


def label_free(folder: Path, *, name: str = "label_free", offset: float = 0.0) -> Run:
    """A run with clusters and a test set."""
    write(folder / name, offset=offset)
    run = read_run(folder / name, name)
    run.features = RunFeatures(clustered(folder / "train"), [made_test_set(folder / "test")])
    return run


def supervised(folder: Path, name: str = "supervised") -> Run:
    """A run with a test set only, the same images, better features."""
    write(folder / name, has_clusters=False, offset=2.0)
    run = read_run(folder / name, name)
    run.features = RunFeatures(None, [made_test_set(folder / "test", seed=1, noise=0.2)])
    return run
