"""What an argument or config key may be: an interval of numbers, or a tuple of choices.

An interval is written as in mathematics, a round bracket leaving its end out: "(0, 1]", "[1, inf)".
NaN lies in no interval. A value beside the interval stands before it: "0 or [2, inf)".

>>> fault("CC.CLUSTER.DBSCAN.EPS", 1.5, "(0, 1]")
'CC.CLUSTER.DBSCAN.EPS=1.5 must lie in (0, 1].'
>>> fault("CC.LABELS.OUTLIERS", "keep", ("drop", "singleton"))
"CC.LABELS.OUTLIERS='keep' must be one of drop, singleton."
>>> fault("CC.SAMPLES_PER_BN", 1, "0 or [2, inf)")
'CC.SAMPLES_PER_BN=1 must be 0 or at least 2.'
"""

from __future__ import annotations

from numbers import Real
from typing import Any, TypeAlias

Limit: TypeAlias = "str | tuple[Any, ...]"


def holds(limit: Limit, value: Any) -> bool:
    """Whether a value is within a limit; a value of another type never is.

    Raises:
        ValueError: if the limit is neither a tuple nor an interval.
    """
    if isinstance(limit, tuple):
        return value in limit
    single, _, interval = limit.rpartition(" or ")
    low, high = map(float, interval[1:-1].split(", "))
    if interval[0] not in "[(" or interval[-1] not in "])":
        raise ValueError(f"{limit!r} is no interval; want e.g. '(0, 1]', '[1, inf)'.")
    if not isinstance(value, Real):
        return False
    number = float(value)
    inside = low < number < high or (number == low and interval[0] == "[")
    return inside or (number == high and interval[-1] == "]") or (single == f"{number:g}")


def fault(key: str, value: Any, limit: Limit) -> str | None:
    """What is wrong with a value, in a sentence with its key; None if nothing is."""
    if holds(limit, value):
        return None
    if isinstance(limit, tuple):
        return f"{key}={value!r} must be one of {', '.join(map(str, limit))}."
    if limit.endswith(", inf)"):
        bound = limit[:-6].replace("[", "at least ").replace("(", "above ")
        return f"{key}={value!r} must be {bound}."
    return f"{key}={value!r} must lie in {limit}."
