"""What an argument or config key may be: an interval of numbers, or a tuple of choices.

An interval is written as in mathematics, a round bracket leaving its end out: "(0, 1]", "[1, inf)".
NaN lies in no interval. A value that no interval holds stands before it: "0 or [2, inf)".
"""

from __future__ import annotations

import re
from functools import cache
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

Limit: TypeAlias = "str | tuple[Any, ...]"


class Interval(NamedTuple):
    """Numbers between two ends; an infinite end is left out by its round bracket."""

    low: float
    high: float
    holds_low: bool
    holds_high: bool

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, Real):
            return False
        number = float(value)
        above = number >= self.low if self.holds_low else number > self.low
        return above and (number <= self.high if self.holds_high else number < self.high)


@cache
def parse_interval(text: str) -> tuple[float | None, Interval]:
    """The single value before the interval (None: there is none), and the interval.

    Raises:
        ValueError: if the text is no interval.
    """
    number = r"(-?inf|-?[\d.]+(?:e-?\d+)?)"
    match = re.fullmatch(rf"(?:{number} or )?([\[(]){number}, {number}([\])])", text)
    if match is None:
        raise ValueError(f"{text!r} is no interval; want e.g. '(0, 1]', '[1, inf)'.")
    single, left, low, high, right = match.groups()
    interval = Interval(float(low), float(high), left == "[", right == "]")
    return None if single is None else float(single), interval


def wanted(limit: Limit) -> str:
    """What a value must do, for messages: "must lie in (0, 1]", "must be one of a, b"."""
    if isinstance(limit, tuple):
        return f"must be one of {', '.join(map(str, limit))}"
    single, interval = parse_interval(limit)
    if interval.high == float("inf"):
        bound = f"{'at least' if interval.holds_low else 'above'} {interval.low:g}"
        return f"must be {bound}" if single is None else f"must be {single:g} or {bound}"
    return f"must lie in {limit}"


def fault(key: str, value: Any, limit: Limit) -> str | None:
    """What is wrong with a value, e.g. "CC.CLUSTER.DBSCAN.EPS=1.5 must lie in (0, 1]."; or None."""
    if isinstance(limit, tuple):
        fits = value in limit
    else:
        single, interval = parse_interval(limit)
        fits = value in interval or (single is not None and value == single)
    return None if fits else f"{key}={value!r} {wanted(limit)}."
