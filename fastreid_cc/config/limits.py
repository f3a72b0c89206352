"""Numbers of the config that no part's constructor checks: finite, and within their limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

#: key -> (least, most, whether the least itself is too small)
LIMITS: dict[str, tuple[float, float, bool]] = {
    "CC.SEED": (0, 2**63 - 1, False),
    "CC.DIST_TIMEOUT": (0, 1e6, True),
    "CC.EXTRACT.IMS_PER_BATCH": (1, math.inf, False),
    "CC.WARMUP.TEMPERATURE": (0, math.inf, True),
    "CC.WARMUP.MOMENTUM": (0, 1, False),
}


def number_faults(cfg: Any) -> list[str]:
    """Faults of the numbers below CC and MODEL, each with its key.

    NaN and infinity are none of a number's values anywhere: comparisons with them pass unnoticed.
    """
    numbers = {**dict(_walk(cfg.CC, "CC.")), **dict(_walk(cfg.MODEL, "MODEL."))}
    found = [
        f"{key}={value} must be a finite number."
        for key, value in numbers.items()
        if not math.isfinite(value)
    ]
    for key, (least, most, is_open) in LIMITS.items():
        value = numbers[key]
        if not least <= value <= most or (is_open and value == least):
            span = f"{'above' if is_open else 'at least'} {least:g}"
            found.append(f"{key}={value} must be {span}{f', at most {most:g}' * (most < 2**62)}.")
    return found


def _walk(node: Any, path: str) -> Iterator[tuple[str, float]]:
    for name, value in node.items():
        if hasattr(value, "items"):
            yield from _walk(value, f"{path}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{path}{name}", value
