"""Labelled source sets beside an unlabelled target: one numbering of identities and of cameras.

Domain 0 is the target, 1, 2, ... are the sources in the order they are named. Identities of sources
become classes 0..S-1, one source after another; cameras of sources are numbered on from those of
the target, so no two domains share one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BadConfig
from .items import Item, Label, cameras_in_words, fingerprint, is_unknown, number, sort_items


@dataclass(frozen=True)
class SourceImages:
    """The images of all sources, M of them, in the order of the sources, then of their paths.

    Args:
        names: the sources' data set names.
        paths: of the images.
        cameras: i64 [M], above those of the target.
        classes: i64 [M], 0..S-1.
        domains: i64 [M], 1..number of sources.
        held_out: images of other identities of the same sources, numbered for themselves, which are
            not trained on; None = there are none.
    """

    names: tuple[str, ...]
    paths: list[str]
    cameras: np.ndarray
    classes: np.ndarray
    domains: np.ndarray
    held_out: SourceImages | None = None

    @property
    def num_classes(self) -> int:
        """S, identities of all sources."""
        return int(self.classes.max(initial=-1)) + 1

    @property
    def num_domains(self) -> int:
        """The target and the sources."""
        return 1 + len(self.names)

    def fingerprints(self) -> dict[str, str]:
        """Name of each source, in order -> hash of its images' names and of who is in them.

        A folder that moves as a whole keeps it. Cost: O(M) characters.
        """
        found = {}
        for domain, name in enumerate(self.names, 1):
            own = np.flatnonzero(self.domains == domain)
            first = self.classes[own].min(initial=self.num_classes)
            found[name] = fingerprint([f"{self.paths[i]}\t{self.classes[i] - first}" for i in own])
        return found

    def summary(self) -> str:
        """For people: "A: 320 images of 80 identities by 4 cameras; B: ..."."""
        parts = []
        for domain, name in enumerate(self.names, 1):
            own = self.domains == domain
            identities = len(np.unique(self.classes[own]))
            parts.append(
                f"{name}: {own.sum():,} images of {identities:,} identities by"
                f" {cameras_in_words(self.cameras[own])}"
            )
        return "; ".join(parts)


def number_sources(
    listed: Sequence[tuple[str, Sequence[Item]]],
    *,
    first_camera: int,
    target_paths: Collection[str] = (),
) -> SourceImages:
    """Numbers the images of all sources.

    Args:
        listed: (name, items) of each source; identities and cameras may be text or numbers, in one
            source too. Images of unknown identity (-1 or "unknown_...") are left out.
        first_camera: number of the first source camera.
        target_paths: images of the target.
    Raises:
        ValueError: a source without labels or with one identity; an identity label that two sources
            use; an image of the target, or of another source.

    Cost: O(M log M).
    """
    paths: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    owners: dict[object, str] = {}
    seen = {os.path.abspath(path): "DATASETS.NAMES" for path in target_paths}
    num_classes, camera = 0, first_camera
    for domain, (name, items) in enumerate(listed, 1):
        known = [item for item in sort_items(items) if not is_unknown(item[1])]
        classes, identities = number(item[1] for item in known)
        cameras, labels = number(item[2] for item in known)
        _check_labels(name, len(items), identities)
        _check_overlap(name, identities, owners)
        _check_paths(name, [item[0] for item in known], seen)
        paths += [item[0] for item in known]
        parts.append((cameras + camera, classes + num_classes, np.full(len(known), domain)))
        num_classes += len(identities)
        camera += len(labels)
    cameras, classes, domains = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = tuple(name for name, _ in listed)
    return SourceImages(names, paths, cameras, classes, domains)


def hold_out(
    name: str, items: Sequence[Item], share: float, seed: tuple[int, ...]
) -> tuple[list[Item], list[Item]]:
    """Splits a source by identity: (items to train on, items to validate by).

    Args:
        name: of the data set, for messages.
        items: of one source. Images of unknown identity stay with those to train on.
        share: of its identities to hold out, at least 2; drawn among those that two cameras saw.
        seed: of the draw; the order of the items does not matter.
    Raises:
        BadConfig: if too few identities were seen by two cameras.
    """
    seen: dict[Label, set[Label]] = {}
    for _, identity, camera in items:
        if not is_unknown(identity):
            seen.setdefault(identity, set()).add(camera)
    _, identities = number(who for who, where in seen.items() if len(where) > 1)
    count = max(2, round(share * len(seen)))
    if count > len(identities) or count > len(seen) - 2:
        raise BadConfig(
            f"CC.SOURCES.VALIDATION={share}: of {len(seen)} identities of {name} {len(identities)}"
            f" were seen by two cameras, {count} of those were to be held out and 2 others left to"
            " train on. Set it lower, or 0 for a source like this."
        )
    drawn = np.random.default_rng(seed).permutation(len(identities))[:count]
    chosen = {identities[i] for i in drawn.tolist()}
    kept = [item for item in items if item[1] not in chosen]
    return kept, [item for item in items if item[1] in chosen]


def _check_labels(name: str, num_images: int, identities: list) -> None:
    if len(identities) < 2:
        raise BadConfig(
            f"CC.SOURCES: {name} has {num_images} images and {len(identities)} known"
            " identities; a source needs labels of at least 2. Use it as target (DATASETS.NAMES),"
            " or give it identities (a folder by its IDENTITY)."
        )


def _check_overlap(name: str, identities: list, owners: dict[object, str]) -> None:
    shared = [identity for identity in identities if identity in owners]
    if shared:
        raise BadConfig(
            f"CC.SOURCES: {name} and {owners[shared[0]]} share {len(shared)} identity"
            f" label(s), e.g. {shared[0]!r}. Classes must be disjoint: put the data set's name"
            f" before its labels ('{name.lower()}_{shared[0]}') if they are different individuals,"
            " or make one data set of the two if they are the same."
        )
    owners.update(dict.fromkeys(identities, name))


def _check_paths(name: str, paths: list[str], seen: dict[str, str]) -> None:
    paths = [os.path.abspath(path) for path in paths]
    for path in paths:
        if path in seen:
            raise BadConfig(
                f"CC.SOURCES: {name} holds {path}, which {seen[path]} holds too. The target"
                " and every source must be different images (EXCLUDE leaves some of a folder out)."
            )
    seen.update(dict.fromkeys(paths, name))


def join_batches(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Domain-ordered batches: the n-th batch of every part, one after another.

    Raises:
        ValueError: if the parts do not have equally many batches.
    """
    return [np.concatenate(batches) for batches in zip(*parts, strict=True)]
