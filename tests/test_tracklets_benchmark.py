"""`benchmarks/tracklets.py`: the faults it makes of known tracks, and its table."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/tracklets.py"
IMAGES = [f"{p:03d}/{c:02d}_{v}.png" for p in range(1, 21) for c in (1, 2) for v in range(1, 9)]


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_tracklets", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(benchmark: Any, fault: str) -> dict[tuple[str, str], list[str]]:
    """(camera, tracklet) -> the person on each of its images."""
    found = defaultdict(list)
    lines = benchmark.with_faults(benchmark.true_tracks("pku37", IMAGES), fault, 1)
    assert [image for image, _, _ in lines] == sorted(IMAGES)
    for image, tracklet, _ in lines:
        found[image[4:6], tracklet].append(image[:3])
    return found


def test_names_tell_tracks(benchmark: Any) -> None:
    names = [f"bounding_box_train/0001_c2s1_{n:06d}_00.jpg" for n in (1, 4, 5, 8)]
    assert benchmark.true_tracks("synthetic", names) == {
        ("2", "0001-0"): names[:2],
        ("2", "0001-1"): names[2:],
    }
    clean = made(benchmark, "clean")
    assert len(clean) == 40 and all(people == [t] * 8 for (_, t), people in clean.items())


def test_switches_hit_the_stated_share_of_tracks_in_pairs(benchmark: Any) -> None:
    for share, hit in ((10, 2), (20, 4)):
        found = made(benchmark, f"switch{share}")
        mixed = [(key, people) for key, people in found.items() if len(set(people)) > 1]
        assert len(found) == 40 and Counter(c for (c, _), _ in mixed) == {"01": hit, "02": hit}
        assert all(len(set(people)) == 2 for _, people in mixed)
    assert made(benchmark, "switch20") == made(benchmark, "switch20")


def test_fragments_part_every_track_once(benchmark: Any) -> None:
    found = made(benchmark, "fragments")
    assert len(found) == 80 and all(len(set(people)) == 1 for people in found.values())


def test_times_overlap_in_a_camera_and_grow_within_a_track(benchmark: Any) -> None:
    lines = benchmark.with_faults(benchmark.true_tracks("pku37", IMAGES), "clean", 1)
    span = defaultdict(list)
    for image, tracklet, time in lines:
        span[image[4:6], tracklet].append(time)
    assert all(times == sorted(set(times)) for times in span.values())
    ends = sorted((times[0], times[-1]) for (camera, _), times in span.items() if camera == "01")
    assert all(a[1] > b[0] for a, b in zip(ends, ends[1:], strict=False))


def test_the_table_compares_with_no_tracklets_seed_by_seed(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for row, gain in (("none", 0), ("clean", 5)):
        for seed in (1, 2):
            folder = tmp_path / "pku37" / row / str(seed)
            folder.mkdir(parents=True)
            (folder / "model_final.pth").touch()
            last = {"mAP": 50 + 10 * seed + gain, "Rank-1": 60}
            lines = [{"cc/ari": 0.1, "cc/num_clusters": 9}, {"cc/ari": 0.5}, last]
            (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    words = [str(SCRIPT), "data", "weights", "--output", str(tmp_path), "--table-only"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(benchmark.boot, "activate", lambda: None)
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| pku37 | none | 1, 2 | 65.0 ± 7.1 | 60.0 ± 0.0 | 0.50 ± 0.00 |")
    assert lines[3].endswith("| 9.0 ± 0.0 | 0.10 ± 0.00 | +5.0 ± 0.0 |")
