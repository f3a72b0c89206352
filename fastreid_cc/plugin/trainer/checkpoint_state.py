"""A checkpoint's entry "cc": written as tensors and plain values, read with distrust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...data.items import fingerprint
from ...errors import UnreadableFile
from ...labeling.pseudo_labeler import PseudoLabeler
from ...labeling.tracklets import Linker
from ...structures import PseudoLabels
from ..loading.target_images import TargetImages

ADVICE = "Start anew in another OUTPUT_DIR, or use the checkpoint as MODEL.WEIGHTS."
TORN = "Delete that checkpoint to resume from the one before it."


def torn(what: str) -> UnreadableFile:
    """The error of an entry that this version did not write."""
    return UnreadableFile(f'the checkpoint\'s "cc" {what}. {TORN}')


class OtherImages(UnreadableFile, ValueError):
    """The labels of a checkpoint belong to other images than those of the config."""


def state_of(
    images: TargetImages,
    labeler: PseudoLabeler,
    labels: PseudoLabels | None,
    memory: dict[str, Any] | None,
    linker: Linker | None = None,
) -> dict[str, Any]:
    """The entry: since the first labelling state of the refiners, labels, cuts of tracklets, and a
    memory if given.

    Before it there is none of these, so methods that differ only in them go on from one checkpoint;
    only a memory of source rows is there while source labels are learnt.
    """
    state: dict[str, Any] = {"version": 1}
    if images.sources is not None:
        state["sources"] = images.sources.fingerprints()
    if labels is not None:
        state["labeler"] = labeler.state_dict()
        state["labels"] = torch.from_numpy(labels.labels)
        state["images"] = fingerprint(images.paths)
        state["eps"] = labels.eps
        if linker is not None:
            state["parts"] = torch.from_numpy(linker.parts)
    if memory is not None:
        state["memory"] = memory
    return state


def labels_of(state: Any, paths: Sequence[str]) -> PseudoLabels | None:
    """The labels of the images at `paths`; None before the first labelling.

    Args:
        state: a checkpoint's "cc" entry.
        paths: the images, in data-set order.

    Raises:
        UnreadableFile: if the entry is not what this version writes.
        OtherImages: if it labels other images.
    """
    if not isinstance(state, dict) or state.get("version") != 1:
        raise torn("entry is none of this version (wanted 1)")
    labels, eps = state.get("labels"), state.get("eps")
    if labels is None:
        return None
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise torn("labels are no list of whole numbers")
    if eps is not None and not isinstance(eps, (int, float)):
        raise torn(f"eps is no number: {type(eps).__name__}")
    if len(labels) != len(paths):
        raise OtherImages(
            f"The checkpoint labels {len(labels)} images, DATASETS.NAMES has {len(paths)}: they are"
            f" not the same data set. {ADVICE}"
        )
    if state.get("images", fingerprint(paths)) != fingerprint(paths):
        raise OtherImages(
            f"The checkpoint labels {len(labels)} images of other names than those of"
            f" DATASETS.NAMES: files were added, removed or renamed. {ADVICE}"
        )
    found = labels.numpy()
    known = np.unique(found[found >= 0])
    if (found < -1).any() or not np.array_equal(known, np.arange(len(known))):
        raise torn("labels are not -1, 0, 1, ... without gaps")
    return PseudoLabels(found, eps)


def check_sources(state: dict[str, Any], images: TargetImages) -> None:
    """Raises OtherImages unless the sources are the run's: which, in which order, which images.

    Branches of batch norm, classes, and rows of the memory are numbered by them.
    """
    wanted = {} if images.sources is None else images.sources.fingerprints()
    found = state.get("sources", {})
    if not isinstance(found, dict):
        raise torn("sources are no list of names")
    names, now = (", ".join(map(str, listed)) or "none" for listed in (found, wanted))
    if names != now:
        raise OtherImages(
            f"The checkpoint was trained with the sources {names}; CC.SOURCES holds {now}."
            f" Name the same ones in the same order: they number branches and classes. {ADVICE}"
        )
    changed = [name for name, value in wanted.items() if found[name] != value]
    if changed:
        raise OtherImages(
            f"{', '.join(changed)} of CC.SOURCES holds other images or identities than the"
            " checkpoint was trained with: files were added, removed or renamed. Put them back."
            f" {ADVICE}"
        )


def restore_cuts(state: dict[str, Any], linker: Linker | None) -> None:
    """Gives tracklets the cuts of the checkpoint; UnreadableFile if there can be none such.

    A checkpoint without any, of tracklets told later, begins with the whole ones.
    """
    if linker is None or "parts" not in state:
        return
    found, whole = state["parts"], linker.tracks.tracklets
    if not isinstance(found, torch.Tensor) or found.dtype != torch.int64 or found.ndim != 1:
        raise torn("parts of tracklets are no list of whole numbers")
    parts = found.numpy()
    same = len(parts) == len(whole) and np.array_equal(parts < 0, whole < 0)
    of = dict(zip(parts.tolist(), whole.tolist(), strict=True)) if same else {}
    if not same or [of[part] for part in parts.tolist()] != whole.tolist():
        raise OtherImages(
            "The checkpoint's tracklets are other ones than those of CC.FOLDER.TRACKLET: the rule"
            f" or its table was changed. Put it back. {ADVICE}"
        )
    linker.parts = parts


def restore_labeler(state: dict[str, Any], labeler: PseudoLabeler) -> None:
    """Gives the refiners their state back; UnreadableFile if it is none of theirs."""
    try:
        labeler.load_state_dict(state["labeler"])
    except (KeyError, TypeError, AttributeError) as error:
        raise torn(f"entry cannot be read: {type(error).__name__} {error}") from error


def recent_of(state: dict[str, Any]) -> dict[str, list[tuple[float, int]]]:
    """The last values of the losses; {} if there are none, or in another form."""
    found = state.get("recent", {})
    try:
        return {str(n): [(float(v), int(i)) for v, i in pairs] for n, pairs in found.items()}
    except (AttributeError, TypeError, ValueError):
        return {}
