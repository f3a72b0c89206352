"""Config keys of the AdaSP authors' fork of fastreid, translated as a config is merged.

`MODEL.LOSSES.ADASP.{SCALE,TEMP,TYPE}` are our `MODEL.LOSSES.AdaSP.{SCALE,TEMPERATURE,TYPE}`.
`MODEL.HEADS.CLS_ENABLE` False, a head without a classifier, is `MODEL.HEADS.NAME
ClusterContrastHead`; True is stock. With both forms in one file the new one counts. Each
translation is logged as a warning.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from fastreid.config import CfgNode

logger = logging.getLogger("fastreid.cc.old_keys")

OLD, NEW = "MODEL.LOSSES.ADASP", "MODEL.LOSSES.AdaSP"
ENABLE, HEAD = "MODEL.HEADS.CLS_ENABLE", "MODEL.HEADS.NAME"
ARGUMENTS = {"TEMP": "TEMPERATURE"}
OLD_TEMP = 0.05  # the fork's default, where ours is 0.04


def translate_node(other: Any) -> Any:
    """A copy of a config node without old keys; the node itself if it has none."""
    model = other.get("MODEL") or {}
    losses, heads = model.get("LOSSES") or {}, model.get("HEADS") or {}
    if "ADASP" not in losses and "CLS_ENABLE" not in heads:
        return other
    other = other.clone()
    other.defrost()
    if "ADASP" in losses:
        _translate_loss(other.MODEL.LOSSES)
    if "CLS_ENABLE" in heads:
        _translate_head(other.MODEL.HEADS)
    return other


def _translate_loss(losses: Any) -> None:
    old = losses.pop("ADASP")
    new = losses.setdefault("AdaSP", CfgNode())
    for name, value in {"TEMP": OLD_TEMP, **old}.items():
        new.setdefault(ARGUMENTS.get(name, name), value)
    told = ", ".join(f"{name} {value}" for name, value in new.items())
    logger.warning(f"{OLD} is read as {NEW}: {told}. Please rename it in the config.")


def _translate_head(heads: Any) -> None:
    if heads.pop("CLS_ENABLE"):
        logger.warning(f"{ENABLE} True is what fastreid does anyway; please take it out.")
        return
    heads["NAME"] = "ClusterContrastHead"
    logger.warning(f"{ENABLE} False is read as {HEAD} ClusterContrastHead; please rename it.")


def translate_pairs(pairs: list[Any]) -> list[Any]:
    """KEY VALUE pairs with new keys in place of old ones; the list itself if it has none."""
    if not any(key == ENABLE or str(key).startswith(f"{OLD}.") for key in pairs[::2]):
        return pairs
    found: list[Any] = []
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if str(key).startswith(f"{OLD}."):
            name = key[len(OLD) + 1 :]
            new = f"{NEW}.{ARGUMENTS.get(name, name)}"
            logger.warning(f"{key} is read as {new}; please rename it.")
            key = new
        elif key == ENABLE:
            logger.warning(f"{ENABLE} {value} is read as {HEAD}; please rename it.")
            is_on = str(value).strip().lower() == "true"
            key, value = HEAD, "EmbeddingHead" if is_on else "ClusterContrastHead"
        found += [key, value]
    return found


def translate_merges(name: str, translate: Callable[[Any], Any]) -> None:
    """Lets what is merged by a method of fastreid's configs go through `translate` first."""
    original = getattr(CfgNode, name)

    @functools.wraps(original)
    def merge(self: Any, other: Any) -> Any:
        return original(self, translate(other))

    setattr(CfgNode, name, merge)


translate_merges("merge_from_other_cfg", translate_node)
translate_merges("merge_from_list", translate_pairs)
