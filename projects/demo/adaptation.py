"""The table of docs/uda.md: every way to adapt beside its control, on the generated domains.

    python projects/demo/adaptation.py --seeds 3

Runs what is not done yet – a call that was stopped goes on where it was –, writes results.json and
prints the table. Rows that differ only in what follows the source labels share those epochs
(compare.py).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from compare import cell, differences, is_trained, train
from tabulate import tabulate
from trainings import ROOT, cores, read_metrics

CONFIGS = ROOT / "configs/demo/uda"
TARGET, SOURCE = "SyntheticReID", "SyntheticSource"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        text: what the reader sees.
        config: stem of a file of `CONFIGS`; of a row without `stage`, the run's final figures.
        control: `config` of the row it is compared with; "transfer" = direct transfer.
        stage: prefix of the scalars, "transfer/" for what was measured before the target.
    """

    text: str
    config: str
    control: str = ""
    stage: str = ""


ROWS = (
    Row("direct transfer: after the source's labels", "pretrain-cc", stage="transfer/"),
    Row("the target's own labels", "target-labels", "transfer"),
    Row("the target alone, no source", "target-only", "transfer"),
    Row("Cluster Contrast after the source's labels", "pretrain-cc", "transfer"),
    Row("strong baseline: classifier from cluster means", "strong-baseline", "pretrain-cc"),
    Row("triplet on clusters (UDA_TP)", "uda-tp", "pretrain-cc"),
    Row("two networks (MMT), one memory each", "mmt", "pretrain-cc"),
    Row("MMT with classifiers and triplets", "mmt-classifier", "mmt"),
    Row("SpCL, source and target in one memory", "joint-spcl", "pretrain-cc"),
    Row(
        "super-strong baseline: without self-paced rule and outliers", "super-strong", "joint-spcl"
    ),
    Row("ECN with 0 neighbours", "ecn-no-neighbors", "transfer"),
    Row("ECN, 2 neighbours", "ecn-two-neighbors", "ecn-no-neighbors"),
    Row("ECN, 6 neighbours", "ecn", "ecn-no-neighbors"),
    Row("ECN+GPP, predicted neighbours", "ecn_gpp", "ecn"),
    Row("two sources, one batch norm", "cc-two-sources", "pretrain-cc"),
    Row("two sources, a batch norm for each domain", "rdsbn-no-gates", "cc-two-sources"),
    Row("two sources, rectified (RDSBN)", "rdsbn", "rdsbn-no-gates"),
    Row("RDSBN and MDIF as published", "rdsbn_mdif", "rdsbn"),
    Row("RDSBN and a fusion that does not cancel (ours)", "rdsbn_mdif_similarity", "rdsbn"),
)
SCALARS = {
    "mAP": f"{TARGET}/mAP",
    "Rank-1": f"{TARGET}/Rank-1",
    "source before": f"transfer/{SOURCE}/mAP",
    "source after": f"{SOURCE}/mAP",
    "clusters": "cc/num_clusters",
    "ARI": "cc/ari",
}


def read(row: Row, seeds: range, output: Path) -> dict[str, list[float]]:
    """Scalar -> one value per seed that is trained; none of a scalar that the run does not have."""
    folders = [output / row.config / f"seed{seed}" for seed in seeds]
    runs = [read_metrics(folder) for folder in folders if is_trained(folder)]
    if row.stage:  # the source is measured once, and nothing was clustered
        names = {
            "mAP": TARGET + "/mAP",
            "Rank-1": TARGET + "/Rank-1",
            "source after": SCALARS["source after"],
        }
        names = {column: row.stage + name for column, name in names.items()}
    else:
        names = SCALARS
    return {column: [run[name] for run in runs if name in run] for column, name in names.items()}


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: mean ± sample standard deviation over the seeds, and the control of each row.

    Args:
        results: `Row.text` -> what `read` gave.
    """

    texts = {row.stage.rstrip("/") or row.config: row.text for row in ROWS}
    lines = []
    for row in ROWS:
        found = results[row.text]
        source = [cell(found.get(column, [])) for column in ("source before", "source after")]
        own, against = found["mAP"], texts.get(row.control, "")
        gains = differences(own, results[against]["mAP"]) if against else ("", "")
        cells = [cell(found.get(column, [])) for column in ("mAP", "Rank-1", "clusters", "ARI")]
        lines.append([row.text, *cells, " → ".join(filter(None, source)), against, *gains])
    headers = ["", "mAP", "Rank-1", "clusters", "ARI", "mAP on the source", "control"]
    headers += ["mAP over it, seed by seed", "mean"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Trains, writes results.json, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, seeded 1, 2, ...")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at once")
    parser.add_argument("--only", nargs="*", help="configs to train now; the table has all")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/adaptation")
    args = parser.parse_args()
    seeds = range(1, args.seeds + 1)
    stems = dict.fromkeys(args.only or (row.config for row in ROWS))
    train([CONFIGS / f"{stem}.yml" for stem in stems], seeds, args.output, args.jobs)
    results = {row.text: read(row, seeds, args.output) for row in ROWS}
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
