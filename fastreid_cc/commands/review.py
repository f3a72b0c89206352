"""the questions whose answers mend a run's labels most"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import boot
from ..errors import ClearError, WrongUse, printable
from ..files import make_folder_atomically
from ..requirements import require_extra
from ._frame import at_least_1, make_parser, print_json, require_folder_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "review",
        "Writes a new folder: review.html, one page that shows pairs of images side by side, and"
        " answers.csv (first, second, same: yes, no or empty), which the page saves filled in. As"
        " CC.LINKS.FILE of a training the answers hold at every labelling. Features are extracted"
        " anew, which costs as much as one labelling.",
        gives_json=True,
    )
    made.add_argument("run", metavar="RUN", type=Path, help="OUTPUT_DIR of a label-free run")
    text = "config keys that changed since, e.g. CC.FOLDER.ROOT"
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help=text)
    text = "questions at most"
    made.add_argument("--questions", type=at_least_1, default=50, metavar="N", help=text)
    text = "folder to make (default: review in the run's folder)"
    made.add_argument("--out", type=Path, metavar="DIR", help=text)
    text = "table of earlier answers, kept and not asked again (default: the run's CC.LINKS.FILE)"
    made.add_argument("--answers", default="", metavar="FILE", help=text)
    made.add_argument(
        "--device", default="", metavar="NAME", help="cpu or cuda (default: the run's)"
    )
    return made


def write_answers(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a table of answers."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("first", "second", "same"))
        table.writerows(rows)


def answered_rows(file: str) -> list[tuple[str, str, str]]:
    """The rows of a table of answers that say yes or no, also of images that are not there now."""
    with open(file, newline="", encoding="utf-8-sig") as stream:
        rows = [(r["first"], r["second"], r["same"]) for r in csv.DictReader(stream)]
    return [row for row in rows if row[2].strip()]


def main(argv: list[str]) -> int:
    """Chooses the questions, writes the folder whole or not at all."""
    args = parser().parse_intermixed_args(argv)
    require_extra("report")
    if not args.run.is_dir():
        raise WrongUse(f"{printable(args.run)}: no such folder.")
    out = args.out or args.run / "review"
    if out.exists() or out.is_symlink():
        raise WrongUse(f"{printable(out)} exists already: remove it, or name another --out.")
    require_folder_of(out)
    boot.activate()
    from ..labeling.questions import choose_questions
    from ..plugin.offline.run_features import labelled_images
    from ..report.review import build_review

    pairs = [*args.pairs, *(["CC.LINKS.FILE", args.answers] if args.answers else [])]
    images, names, file, known, links = labelled_images(args.run, pairs, device=args.device)
    told = {} if known is None else {"same": known.same, "other": known.other}
    questions = choose_questions(
        images.features, images.labels, args.questions, links=links, **told
    )
    if not questions:
        raise ClearError(f"{printable(args.run)}: no question is left; the answers say it all.")
    kept = answered_rows(file) if file else []
    page = build_review(
        questions,
        paths=images.paths,
        names=names,
        labels=images.labels,
        answered=kept,
        title=args.run.resolve().name,
    )
    with make_folder_atomically(out) as part:
        (part / "review.html").write_text(page, "utf-8")
        write_answers(
            part / "answers.csv",
            [*kept, *((names[q.first], names[q.second], "") for q in questions)],
        )
    found = {"out": str(out), "questions": len(questions), "answered": len(kept)}
    found |= {kind: sum(q.kind == kind for q in questions) for kind in ("join", "split")}
    if args.json:
        print_json(found)
    else:
        print(
            f"{printable(out)}: {found['questions']} questions, {found['join']} whether to join,"
            f" {found['split']} whether to split; {found['answered']} answers kept. Answer them in"
            " review.html, save answers.csv, train with CC.LINKS.FILE answers.csv"
        )
    return 0
