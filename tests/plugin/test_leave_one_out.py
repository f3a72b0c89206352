"""A folder measured leave-one-out: what stock evaluation makes of it."""

import os

import numpy as np
import pytest
from PIL import Image

from fastreid_cc.data.folder import FolderItems
from fastreid_cc.data.naming import FolderOptions


@pytest.mark.parametrize("apart", ["image", "camera", r"_(\d+)\.png"])
def test_leave_one_out_by_the_stock_evaluator_is_what_a_loop_counts(plugin, tmp_path, apart):
    """Identities of 4, 4, 3 and 1 images; the last has no match and asks in vain."""
    from fastreid.evaluation.rank import evaluate_rank

    for person in ("000", "001", "002", "003", "004", "other"):
        names = [f"{camera:02d}_{view}" for camera in (1, 2) for view in range(2)]
        for name in names[: {"002": 3, "003": 1, "other": 1}.get(person, 4)]:
            (tmp_path / person).mkdir(exist_ok=True)
            Image.new("RGB", (8, 16)).save(tmp_path / person / f"{name}.png")
    items = FolderItems(
        FolderOptions(
            root=str(tmp_path),
            camera=r"/(\d+)_",
            identity=r"^(\d+)/",  # not of "other": it answers and never asks
            include="^004",
            test_include="^(00[0123]|other)",
            **{"measure": "leave-one-out", "apart": apart},
        )
    )
    assert len(items.gallery) == len(items.query) + 1 == 13
    features = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    row = {path: i for i, (path, _, _) in enumerate(items.gallery)}
    distance = np.square(features[:, None] - features).sum(2)

    def told_apart(path):
        camera, view = os.path.basename(path).removesuffix(".png").split("_")
        return {"image": path, "camera": camera}.get(apart, view)

    expected = []
    for path, person, _ in items.query:
        others = [
            (distance[row[path], row[other]], identity == person)
            for other, identity, _ in items.gallery
            if identity != person or told_apart(other) != told_apart(path)
        ]
        hits = [hit for _, hit in sorted(others)]
        places = [place for place, hit in enumerate(hits, 1) if hit]
        if places:
            expected.append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
    q, g = (
        [np.array(v) for v in zip(*part, strict=True)][1:] for part in (items.query, items.gallery)
    )
    rows = [row[path] for path, _, _ in items.query]
    _, precision, _ = evaluate_rank(distance[rows], q[0], g[0], q[1], g[1], 5, use_cython=False)
    assert len(expected) == len(precision) == 11
    np.testing.assert_allclose(precision, expected)
    assert "leave-one-out, 12 test images ask and 13 answer" in items.protocol
