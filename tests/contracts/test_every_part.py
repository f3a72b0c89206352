"""What every part of every family keeps: its base class, arguments, limits, keys and docstring."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import pytest
from torch import nn

from fastreid_cc.config import part_keys
from fastreid_cc.registry import LOSSES, Part

from .parts import REGISTRIES, Case, as_bytes, surroundings

FAMILIES = REGISTRIES


def arguments(case: Case) -> dict[str, Any]:
    return case.registry.parameters(case.name)


def outside(limit: Any) -> list[Any]:
    """Values that a limit leaves out: beyond an interval, its open ends, NaN; no such choice."""
    if isinstance(limit, tuple):
        return ["no such choice"]
    low, high = (float(end) for end in limit.rpartition(" or ")[2][1:-1].split(", "))
    found = [math.nan]
    if math.isfinite(low):
        found += [low - 1, *([low] if "(" in limit else [])]
    if math.isfinite(high):
        found += [high + 1, *([high] if ")" in limit else [])]
    first = limit.rpartition(" or ")[0]
    return [value for value in found if not first or value != float(first)]


def test_it_is_of_its_familys_base(case: Case) -> None:
    assert issubclass(case.part, Part) and issubclass(case.part, case.registry.base)
    assert case.registry.base is not Part


def test_arguments_are_keywords_with_plain_defaults(case: Case) -> None:
    for argument in list(inspect.signature(case.part.__init__).parameters.values())[1:]:
        assert argument.kind is inspect.Parameter.KEYWORD_ONLY, argument.name
        assert type(argument.default) in (bool, int, float, str, tuple), argument.name
    if case.registry is LOSSES:
        assert "scale" not in arguments(case), "the training multiplies every loss by its SCALE"


def test_every_argument_is_a_key_and_is_described(case: Case) -> None:
    assert (case.part.__doc__ or "").strip()
    keys = part_keys(case.registry, case.name)
    assert [name for name, key in keys.items() if not key.help] == []
    node = case.part.key
    assert set(keys) >= {f"{node}.{argument.upper()}" for argument in arguments(case)}


def test_numbers_have_limits(case: Case) -> None:
    """What a number may be is said beside the signature; no limit is misspelt."""
    numbers = {name for name, value in arguments(case).items() if type(value) in (int, float)}
    assert numbers - set(case.part.limits) == set()
    assert set(case.part.limits) - set(case.registry.base.limits) <= set(arguments(case))


def test_values_outside_the_limits_are_refused_with_the_full_key(case: Case) -> None:
    for argument, limit in case.part.limits.items():
        for value in outside(limit):
            with pytest.raises(ValueError) as refused:
                case.build(**{argument: value})
            assert f"{case.part.key}.{argument.upper()}={value!r}" in str(refused.value)


def test_the_defaults_build_a_part(case: Case) -> None:
    assert isinstance(case.part(), case.part)


def test_building_it_only_stores(case: Case) -> None:
    """Only a part with weights of its own may draw random numbers."""
    around = surroundings()
    one, other = case.build(), case.build()
    assert surroundings() == around
    if isinstance(one, nn.Module):
        assert as_bytes(one.state_dict()) == as_bytes(other.state_dict())
        pickle.dumps(one)  # parts go to other processes
    else:
        assert pickle.dumps(one) == pickle.dumps(other)
