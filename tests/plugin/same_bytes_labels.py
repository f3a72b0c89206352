"""What a checkout makes of recorded features: labels, neighbours, distances. For same_bytes.py.

python tests/plugin/same_bytes_labels.py OUT.json FOLDER ...
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from same_bytes import leaves
from same_bytes_cases import LABELLINGS, WHERE


def find(name: str) -> Any:
    """A name of the library, wherever this checkout has it."""
    for place in WHERE[name]:
        module, new = (place, name) if isinstance(place, str) else place
        try:
            return getattr(importlib.import_module(module), new)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name}: tell the script where it is, in WHERE")


def is_before(name: str) -> bool:
    """Whether a checkout is older than a name of the library."""
    try:
        find(name)
    except ImportError:
        return True
    return False


def labelling(name: str, options: str, features: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """What `python -m fastreid_cc label` gives."""
    given, cams, out = (folder / file for file in ("features.npy", "cams.npy", "out.npz"))
    np.save(given, features)
    np.save(cams, np.arange(len(features)) % 4)
    words = options.replace("CAMS", str(cams)).split()
    assert find("main")(["label", str(given), "--out", str(out), "--quiet", *words]) == 0
    yield f"{name}.labels", np.load(out)["labels"]
    yield f"{name}.eps", float(np.load(out)["eps"])


def clusters_of_faiss(path: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """Labels of k-means."""
    case = np.load(path)
    if {"features", "k1"} <= set(case):
        options = "--cluster kmeans --num-clusters 9"
        yield from labelling("kmeans", options, case["features"], folder)


def labels_of(path: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """Labels, neighbours and distances made of one recorded file."""
    case = dict(np.load(path))
    if path.stem == "spcl_label_refine":
        for name in ("case0", "case1", "case2"):
            refiner = find("REFINERS").get("self_paced")()
            for epoch in ("", "epoch1_"):
                tight, normal, loose = (
                    case[f"{name}__{epoch}dbscan_{kind}"] for kind in ("tight", "normal", "loose")
                )
                others: Any = {0.02: loose, -0.02: tight}
                if is_before("find_neighbors"):  # then a refiner called back
                    others = others.__getitem__
                kept = refiner.refine(normal, others)
                yield f"{name}.{epoch}labels", kept
            yield f"{name}.state", refiner.state_dict()
    if not {"features", "k1"} <= case.keys():
        return
    features, k1, k2 = case["features"], int(case["k1"]), int(case.get("k2", 6))
    cameras = np.arange(len(features)) % 4
    for name, options in LABELLINGS.items():
        yield from labelling(name, options.format(k1=k1, k2=k2), features, folder)
    rows, search = find("unit_rows")(features), find("NEIGHBORS").get("exact")()
    yield "neighbors", vars(search(rows, k1))
    for name, lengths in (("jaccard", {"k1": k1, "k2": k2}), ("ca_jaccard", {})):
        distance = find("DISTANCES").get(name)(**lengths)
        found: Any = search
        if not is_before("find_neighbors"):  # then a distance searched by itself
            wanted = distance.searches(len(rows), 4)
            found = find("find_neighbors")(search, rows, wanted, cameras)
        graph = distance(rows, found, max_distance=1.0, cameras=cameras)
        yield name, {part: getattr(graph, part) for part in ("indptr", "indices", "data")}
    if "indep_thres" in case:  # the second labelling of a run, by a given threshold
        refiner = find("REFINERS").get("self_paced")(eps_gap=float(case["eps_gap"]))
        labeler = find("PseudoLabeler")(
            distance=find("DISTANCES").get("jaccard")(k1=k1, k2=k2), refiners=[refiner]
        )
        yield "first", labeler(features).labels
        refiner.load_state_dict({"threshold": float(case["epoch1_indep_thres"])})
        eps = float(case["eps"])
        if is_before("find_neighbors"):  # then the labeller kept the graph
            yield "second", labeler.relabel(eps).labels
        else:
            yield "second", labeler.sweep(features, [eps])[-1].labels


def main(out: Path, *folders: Path) -> None:
    """Everything that is made of the recordings in some folders."""
    found = {}
    paths = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.npz"))]
    for make in (labels_of, clusters_of_faiss):  # infomap crashes once faiss has been loaded
        for folder, path in paths:
            for name, value in make(path, out.parent):
                found.update(leaves(value, f"{folder.name}/{path.stem}/{name}"))
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
