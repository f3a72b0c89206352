"""Parts check their arguments by the limits beside their signature."""

from __future__ import annotations

import copy
import doctest
import math

import pytest
from torch import nn

import fastreid_cc.limits
import fastreid_cc.registry
from fastreid_cc.limits import fault, holds
from fastreid_cc.registry import Part, Registry


class Family(Part):
    """A base whose limits its parts inherit."""

    limits = {"share": "(0, 1]"}


class Good(Family):
    """A part with a limit of its own."""

    limits = {"kind": ("near", "far")}

    def __init__(self, *, share: float = 0.5, kind: str = "near", free: int = 0) -> None:
        self.share, self.kind, self.free = share, kind, free


def registry() -> Registry:
    made = Registry("family", "CC.FAMILY")
    made.base = Family
    return made


@pytest.mark.parametrize("module", [fastreid_cc.limits, fastreid_cc.registry])
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ("limit", "inside", "outside"),
    [
        ("(0, 1]", (1e-9, 1, 1.0), (0, -1, 1.1, math.nan, math.inf)),
        ("[0, 1)", (0, 0.99), (1, -1e-9)),
        ("[1, inf)", (1, 10**9), (0, math.inf, math.nan)),
        ("(-inf, inf)", (-1e30, 0), (math.inf, -math.inf, math.nan)),
        ("0 or [2, inf)", (0, 2, 3), (1, -1)),
        (("a", "b"), ("a",), ("c", None, 1)),
    ],
)
def test_a_limit_holds_what_it_says(limit, inside, outside):
    assert [fault("K", value, limit) for value in inside] == [None] * len(inside)
    assert all(fault("K", value, limit) for value in outside)


def test_messages_say_key_value_and_what_is_wanted():
    assert fault("CC.A", 1.5, "(0, 1]") == "CC.A=1.5 must lie in (0, 1]."
    assert fault("CC.A", 0, "[1, inf)") == "CC.A=0 must be at least 1."
    assert fault("CC.A", 0, "(0, inf)") == "CC.A=0 must be above 0."
    assert fault("CC.A", 1, "0 or [2, inf)") == "CC.A=1 must be 0 or at least 2."
    assert fault("CC.A", "x", ("a", "b")) == "CC.A='x' must be one of a, b."
    assert fault("CC.A", "x", "(0, 1]") == "CC.A='x' must lie in (0, 1]."


def test_a_text_that_is_no_interval_is_refused():
    for text in ("0..1", "0, 1", "[0; 1]", "{0, 1}", "[0, one]"):
        with pytest.raises(ValueError, match=r"interval|float|unpack"):
            holds(text, 0.5)


def test_every_argument_out_of_its_limits_is_named_with_the_full_key():
    registry().register("good")(Good)
    with pytest.raises(ValueError) as refused:
        Good(share=2, kind="odd", free=-5)
    assert str(refused.value) == (
        "CC.FAMILY.GOOD.SHARE=2 must lie in (0, 1]. CC.FAMILY.GOOD.KIND='odd' must be one of near,"
        " far."
    )
    assert Good(share=1, free=-5).free == -5


def test_parts_are_copied_without_arguments_and_may_be_networks():
    class Net(Part, nn.Module):
        limits = {"size": "[1, inf)"}

        def __init__(self, *, size: int) -> None:
            super().__init__()
            self.layer = nn.Linear(size, size)

    assert copy.deepcopy(Net(size=2)).layer.in_features == 2
    with pytest.raises(ValueError, match="Net.SIZE=0 must be at least 1"):
        Net(size=0)


def test_a_part_without_a_constructor_refuses_arguments():
    with pytest.raises(TypeError):
        Family(nothing=1)


def test_register_refuses_strangers_and_wrong_defaults():
    with pytest.raises(TypeError, match=r"Stranger is no family: derive it from .*\.Family"):

        @registry().register("stranger")
        class Stranger:
            pass

    with pytest.raises(ValueError, match=r"Wrong: CC\.FAMILY\.WRONG\.SHARE=7 must lie in"):

        @registry().register("wrong")
        class Wrong(Family):
            def __init__(self, *, share: float = 7) -> None:
                self.share = share
