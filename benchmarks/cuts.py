"""Counts the tracklets that CC.LINKS.CUT cuts, rightly and wrongly; ARI of the labels with them.

    python benchmarks/cuts.py DATA_ROOT WEIGHTS [--output logs/cuts] [--sets pku37 synthetic]
                              [--seeds 1 2 3] [--shares 0 0.5 0.75 0.9] [--world 7]

Sets, folds and faults are those of benchmarks/tracklets.py. Nothing is trained: features are those
of the checkpoint, labels those of `OwnImages/cc_osnet_x0_25`. Printed for each set, fault and share
(0 = no cut), summed over seeds: tracklets of two people that were cut, of how many; tracklets of
one that were cut, of how many; and the mean ARI of the labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import tracklets
from sklearn.metrics import adjusted_rand_score
from tabulate import tabulate

from fastreid_cc import boot
from fastreid_cc.data.tracks import Tracks

FAULTS = ("clean", "switch10", "switch20", "fragments")


def rows(
    args: argparse.Namespace, name: str, seed: int
) -> Iterator[tuple[str, float, list[float]]]:
    """(fault, share, [right cuts, of, wrong cuts, of, ARI]) of a set and seed."""
    from fastreid.config import get_cfg
    from fastreid.engine import DefaultTrainer

    from fastreid_cc.labeling.tracklets import Linker, LinkOptions
    from fastreid_cc.labels.numbering import outliers_as_clusters
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import collect_images
    from fastreid_cc.plugin.trainer.builders import build_labeler

    keys, found = tracklets.keys_of(args, name, seed)
    cfg = get_cfg()
    cfg.merge_from_file("OwnImages/cc_osnet_x0_25")
    cfg.merge_from_list([*keys, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"])
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())])
    configure_from(cfg)
    images = collect_images(cfg)
    features = extract_features(cfg, DefaultTrainer.build_model(cfg), images)
    places = [next(i for i in found if path.endswith(i)) for path in images.paths]
    for fault in FAULTS:
        told = tracklets.with_faults(tracklets.true_tracks(name, found), fault, seed)
        of = {image: (track, time) for image, track, time in told}
        own = [f"{c} {of[p][0]}" for p, c in zip(places, images.cameras, strict=True)]
        tracks = Tracks(
            np.unique(own, return_inverse=True)[1].astype(np.int64),
            np.array([of[place][1] for place in places]),
        )
        people = [
            len(set(images.truth[tracks.tracklets == t])) for t in np.unique(tracks.tracklets)
        ]
        for share in args.shares:
            linker = Linker(LinkOptions(cut=share, overlap=False), images.cameras, tracks)
            links = linker(features)
            parts = [
                len(set(linker.parts[tracks.tracklets == t])) for t in np.unique(tracks.tracklets)
            ]
            mixed, is_cut = np.array(people) > 1, np.array(parts) > 1
            labels = build_labeler(cfg)(features, images.cameras, links=links).labels
            ari = adjusted_rand_score(images.truth, outliers_as_clusters(labels))
            counts = (is_cut & mixed).sum(), mixed.sum(), (is_cut & ~mixed).sum(), (~mixed).sum()
            yield fault, share, [*map(float, counts), ari]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_ROOT")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--output", type=Path, default=Path("logs/cuts"))
    parser.add_argument("--sets", nargs="+", choices=tracklets.SETS, default=list(tracklets.SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.5, 0.75, 0.9])
    parser.add_argument("--world", type=int, default=7, help="CC.SYNTHETIC.SEED")
    args = parser.parse_args()
    boot.activate()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        made: dict[tuple[str, float], list[list[float]]] = {}
        for fault, share, figures in (r for s in args.seeds for r in rows(args, name, s)):
            made.setdefault((fault, share), []).append(figures)
        lines = []
        for fault, share in product(FAULTS, args.shares):
            found = np.array(made[fault, share])
            right, of_mixed, wrong, of_whole = found[:, :4].sum(0).astype(int)
            aris = f"{found[:, 4].mean():.2f} ± {found[:, 4].std(ddof=len(found) > 1):.2f}"
            lines.append([fault, share, f"{right} of {of_mixed}", f"{wrong} of {of_whole}", aris])
        print(f"\n{name}\n")
        heads = ["tracklets", "CUT", "two people, cut", "one, cut", "ARI"]
        print(tabulate(lines, heads, tablefmt="github", disable_numparse=True), flush=True)


if __name__ == "__main__":
    main()
