"""Features of test images and of their generated views, kept in a file between calls."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...data.generated_views import ViewFolder
from ...data.items import fingerprint
from ...files import write_atomically
from ...report.runs import TestSet
from .run_features import embed, tested_sets
from .run_folder import read_config

logger = logging.getLogger("fastreid.cc.styles")
BATCH = 128


def sets_with_views(
    run: str, other: str, folder: str, *, cache: Path | None = None
) -> Iterator[tuple[TestSet, np.ndarray, int]]:
    """Test sets with the features of their views.

    Args:
        run: network of the images, and whose test sets they are: as in `run_features.embed`.
        other: network of the views.
        folder: of views of the test images; where one is missing, the image is shown to `other`.
        cache: npz file that the views' features are taken from where it holds those of the same
            network, files and sizes, and put into where not; None = none.
    Yields:
        (test set, f32 [Q + G, K, D] features of the views, number of missing ones).
    Raises:
        BadConfig: if there is no view of an image.

    Cost: K + 1 extractions; K · (Q + G) · D floats.
    """
    kept = dict(np.load(cache, allow_pickle=False)) if cache is not None and cache.is_file() else {}
    for test in tested_sets(run, pairs=(), checkpoint="")[0]:
        views = ViewFolder(test.paths, folder=folder)
        places = range(len(views.views))
        paths = [views.path_of(path, place) or path for path in test.paths for place in places]
        if views.num_missing:
            logger.warning(
                f"{test.name}: {views.num_missing:,} of {len(test.paths):,} x {len(places)} views"
                " are missing; the image itself takes their place."
            )
        key = _key(other, paths)
        if key not in kept:
            kept[key] = embed(other, paths, pairs=(), checkpoint="", batch=BATCH)[0]
            if cache is not None:
                with write_atomically(cache) as part, part.open("wb") as stream:
                    np.savez(stream, **kept)
        yield test, kept[key].reshape(len(test.paths), len(places), -1), views.num_missing


def _key(source: str, paths: list[str]) -> str:
    """Says what features are of: the files of a run or config, and images by size and time."""
    folder = Path(source)
    stated = (
        sorted(folder.rglob("*.pth")) if folder.is_dir() else [read_config(source).MODEL.WEIGHTS]
    )
    files = [*map(str, stated), *paths]
    marks = []
    for name in files:
        status = Path(name).stat() if Path(name).exists() else None
        marks.append(f"{name} {status.st_size} {status.st_mtime_ns}" if status else name)
    return fingerprint(marks)
