"""who is on images, who is new, how many individuals there are"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ..gallery.store import Facts, Store, sha256
from ..labels.open_set import (
    MANY_WRONG,
    Calibrated,
    calibrate,
    separate_open_set,
    wrong_answers,
)
from ..labels.similarities import Separation
from ..requirements import require_extra
from ._frame import (
    STATUSES,
    Formatter,
    at_least_1,
    make_parser,
    print_json,
    require_folder_of,
    table,
)
from ._names import add_names, named_images
from .embed import features_of, find_images, readable

OWN = "the gallery's own individuals"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser("gallery", "Keeps features of individuals, in a folder or on a server.")
    parts = made.add_subparsers(
        dest="action",
        required=True,
        metavar="ACTION",
        help="what to do; ACTION --help tells its options",
    )

    def action(
        name: str, text: str, *, images: str = "folders, searched with all below them, and files"
    ) -> argparse.ArgumentParser:
        how: dict[str, Any] = {"formatter_class": Formatter, "allow_abbrev": False}
        sub = parts.add_parser(name, help=text, description=text, epilog=STATUSES, **how)
        sub.add_argument("--json", action="store_true", help="print one JSON object instead")
        sub.add_argument("store", metavar="STORE", type=Path, help="folder of the gallery")
        if images:
            sub.add_argument("images", metavar="IMAGES", nargs="*", type=Path, help=images)
            sub.add_argument("--batch", type=at_least_1, default=64, help="images at a time")
            told = "leave out images that cannot be read"
            sub.add_argument("--skip-unreadable", action="store_true", help=told)
        return sub

    table_too = "folders and files, or one table with the columns image and cluster"
    text = "Adds images of individuals; makes the gallery where there is none."
    add = action("add", text, images=table_too)
    told = "the network, when the gallery is made: a run, an .onnx file, a config with weights"
    add.add_argument("--model", default="", help=told)
    add_names(add, "individual", "name")
    told = "a Qdrant server to keep the features on (default: in the folder)"
    add.add_argument("--server", default="", metavar="URL", help=told)
    add.add_argument("--collection", default="individuals", help="its name on the server")
    text = "Sets from which cosine on a name is given, by groups of images or the gallery's own."
    told = f"a run, whose last labels count, {table_too}; none = the gallery's individuals"
    more = action("calibrate", text, images=told)
    add_names(more, "cluster or tracklet", "")
    told = "expected share of new individuals given a name (default: fewest errors of both kinds)"
    more.add_argument("--max-false-matches", type=float, metavar="SHARE", help=told)
    told = "go by clusters also where they are doubtful"
    more.add_argument("--trust", action="store_true", help=told)
    ask = action("query", "Says who is on images, or that they show somebody new.")
    ask.add_argument("--top", type=at_least_1, default=3, metavar="N", help="answers an image")
    ask.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    told = "cosine to use instead of the calibrated one"
    ask.add_argument("--threshold", type=float, metavar="X", help=told)
    action("list", "Lists the individuals and what the gallery is of.", images="")
    gone = action("remove", "Removes an individual or an image.", images="")
    which = gone.add_mutually_exclusive_group(required=True)
    which.add_argument("--name", default="", help="the individual")
    which.add_argument("--image", default="", metavar="PATH", help="the image's path as listed")
    action("count", "Counts the individuals on images without names, by those of the gallery.")
    return made


def main(argv: list[str]) -> int:
    """Opens the gallery, does one action, closes it."""
    args, rest = parser().parse_known_args(argv)
    if any(word.startswith("-") for word in rest) or (rest and not hasattr(args, "images")):
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # IMAGES behind options
        args.images += map(Path, rest)
    store = Store(args.store)
    served = store.facts.url if store.facts else getattr(args, "server", "")
    require_extra("gallery-server" if served else "gallery")
    try:
        told, text = ACTIONS[args.action](args, store)
    finally:
        store.close()
    print_json(told) if args.json else print(text)
    return 0


Told = tuple[dict[str, Any], str]


def embedded(
    args: argparse.Namespace, facts: Facts, paths: Sequence[str]
) -> tuple[np.ndarray, list[int]]:
    """(features by the gallery's network, rows of `paths` that could be read).

    Raises:
        WrongUse: if the network's file is another one than when the gallery was made.
    """
    features, by, rows = _embedded(args, facts.model, paths)
    if sha256(by) != facts.model_sha256:
        raise WrongUse(
            f"{printable(by)} has changed since the gallery was made; features of two networks"
            " cannot be compared. Put the old file back, or make another gallery."
        )
    return features, rows


def _embedded(
    args: argparse.Namespace, model: str, paths: Sequence[str]
) -> tuple[np.ndarray, str, list[int]]:
    if not paths:
        raise WrongUse("there are no images.")
    good, _ = readable(paths, skip=args.skip_unreadable)  # each once
    features, by = features_of(model, good, batch=args.batch)
    row_of = {path: row for row, path in enumerate(paths)}
    return features, by, [row_of[path] for path in good]


def add(args: argparse.Namespace, store: Store) -> Told:
    """Embeds and keeps images under names."""
    if store.facts is None and not args.model:
        store.known()  # says what to do
    paths, names = named_images(args)
    model = args.model or store.known().model
    features, by, rows = _embedded(args, model, paths)
    where = {"url": args.server, "collection": args.collection} if args.server else {}
    store.claim(Facts(features.shape[1], model, sha256(by), **where))
    images = [str(Path(paths[row]).absolute()) for row in rows]
    store.shelf.add(features, [names[row] for row in rows], images)
    sizes = store.shelf.sizes()
    told = {"added": len(rows), "images": sum(sizes.values()), "individuals": len(sizes)}
    text = f"{len(rows):,} images added: {told['individuals']:,} individuals, "
    return told, text + f"{told['images']:,} images in {printable(store.folder)}"


def calibrate_store(args: argparse.Namespace, store: Store) -> Told:
    """Sets the threshold by clusters, by the gallery where these are doubtful, or by tracklets."""
    if not args.images:
        return _set_threshold(args, store, _own(store), OWN)
    facts = store.known()
    if (args.images[0] / "config.yaml").is_file():
        from .. import boot
        from .clusters import read

        boot.activate()
        items, labels, _ = read(str(args.images[0]), "", ())
        paths, what = [path for path, _ in items], f"clusters of {args.images[0]}"
    else:
        paths, names = named_images(args)
        labels = np.unique(names, return_inverse=True)[1]
        what = f"{len(set(names))} groups of {', '.join(map(str, args.images))}"
    features, rows = embedded(args, facts, paths)
    found = _apart(features, np.asarray(labels)[rows])
    if args.names or args.trust or wrong_answers(found) <= MANY_WRONG:
        return _set_threshold(args, store, found, what)
    text = f"with {printable(what)} more than one answer in six is wrong by any threshold:\nthey"
    text += " are of other things than individuals, or the network tells few apart; "
    try:
        told, rates = _set_threshold(args, store, _own(store), OWN)
        text += "--trust goes by them\n"
    except ClearError:  # too few
        told, rates = _set_threshold(args, store, found, what)
        text += "the gallery has too few images to go by\n"
    return {**told, "doubted": what}, text + rates


def _kept(store: Store) -> tuple[np.ndarray, list[str], list[str]]:
    """(features f32 [N, D], names, images) of the whole gallery."""
    kept = list(store.shelf.everything())
    features = [feature for feature, _, _ in kept]
    found = np.stack(features) if kept else np.zeros((0, store.known().size), np.float32)
    return found, [who for _, who, _ in kept], [image for _, _, image in kept]


def _own(store: Store) -> Separation:
    features, names, _ = _kept(store)
    return _apart(features, np.unique(names, return_inverse=True)[1])


def _apart(features: np.ndarray, labels: np.ndarray) -> Separation:
    try:
        return separate_open_set(features, labels)
    except ValueError as error:
        raise ClearError(f"nothing to calibrate with: {error}") from error


def _set_threshold(args: argparse.Namespace, store: Store, found: Separation, what: str) -> Told:
    facts = store.known()
    got = calibrate(found, max_false_match_rate=args.max_false_matches)
    facts.threshold, facts.false_match_rate, facts.miss_rate = map(float, got)
    facts.calibrated_on = what
    store.save()
    told = {**got._asdict(), "calibrated_on": what, "doubted": ""}
    return told, f"{_rates(got)}\nby {printable(what)}: as true as those are"


def _rates(got: Calibrated) -> str:
    return (
        f"a name from a cosine of {got.threshold:.4f} on; expected: {got.false_match_rate:.1%} of"
        f" images of new individuals get a name,\n{got.miss_rate:.1%} of known ones not theirs"
    )


def query(args: argparse.Namespace, store: Store) -> Told:
    """Says for each image who it is, or "new"."""
    facts = store.known()
    threshold = args.threshold if args.threshold is not None else facts.threshold
    if threshold is None:
        raise WrongUse(
            "from which cosine on is it the same individual? `gallery calibrate` finds out, or"
            " give --threshold."
        )
    paths = find_images(args.images)
    features, rows = embedded(args, facts, paths)
    found = store.shelf.nearest(features, args.top)
    lines: list[dict[str, Any]] = []
    for row, matches in zip(rows, found, strict=True):
        known = bool(matches) and matches[0].cosine >= threshold
        lines.append(
            {
                "image": paths[row],
                "individual": matches[0].individual if known else "new",
                "cosine": matches[0].cosine if matches else None,
                "nearest": [match._asdict() for match in matches],
            }
        )
    if args.csv:
        require_folder_of(args.csv)
        with write_atomically(args.csv) as part, part.open("w", newline="") as stream:
            out = csv.writer(stream, lineterminator="\n")
            out.writerow(("image", "individual", "cosine"))
            out.writerows((x["image"], x["individual"], x["cosine"]) for x in lines)
    rate = facts.false_match_rate if args.threshold is None else None
    told = {"threshold": threshold, "false_match_rate": rate, "images": lines}
    cells = [("image", "individual", "cosine", "nearest")]
    for x in lines:
        near = ", ".join(f"{m['individual']} {m['cosine']:.3f}" for m in x["nearest"])
        cosine = "-" if x["cosine"] is None else f"{x['cosine']:.4f}"
        cells.append((printable(x["image"]), printable(x["individual"]), cosine, printable(near)))
    end = f"new below {threshold:.4f}"
    if rate is not None:
        end += f"; expected: {rate:.1%} of images of new individuals get a name all the same"
    return told, f"{table(cells)}\n{end}"


def listed(args: argparse.Namespace, store: Store) -> Told:
    """The individuals."""
    facts, sizes = store.known(), store.shelf.sizes()
    told = {**vars(facts), "individuals": sizes}
    lines = [("individual", "images"), *((printable(name), n) for name, n in sizes.items())]
    end = f"{len(sizes):,} individuals, {sum(sizes.values()):,} images, by {facts.model}"
    if facts.threshold is not None:
        end += f"; new below {facts.threshold:.4f} (by {facts.calibrated_on})"
    return told, f"{table(lines)}\n{printable(end)}"


def remove(args: argparse.Namespace, store: Store) -> Told:
    """Removes an individual or an image."""
    store.known()
    field, value = ("individual", args.name) if args.name else ("image", args.image)
    count = store.shelf.remove(field, value)
    if not count:
        raise WrongUse(f"no {field} {printable(value)!r} is in the gallery; `gallery list`.")
    return {"removed": count}, f"{count:,} images removed"


def count(args: argparse.Namespace, store: Store) -> Told:
    """Individuals on images without names."""
    facts = store.known()
    paths = find_images(args.images)
    unnamed, _ = embedded(args, facts, paths)
    named, who, _ = _kept(store)
    names = np.unique(who, return_inverse=True)[1].astype(np.int64)
    from ..labeling.dense import count_unnamed

    try:
        found = count_unnamed(named, names, unnamed)
    except ValueError as error:
        raise ClearError(f"cannot count: {error}") from error
    told = {"images": len(unnamed), "named": len(set(names.tolist())), **found._asdict()}
    return told, (
        f"about {found.estimate:.0f} individuals, {found.low} to {found.high} (meant to hold 9"
        f" times in 10), on {len(unnamed):,} images,\nif they were photographed like the"
        f" {told['named']:,} individuals of the gallery"
    )


ACTIONS = {
    "add": add,
    "calibrate": calibrate_store,
    "query": query,
    "list": listed,
    "remove": remove,
    "count": count,
}
