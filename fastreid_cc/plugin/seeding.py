"""Random states from stated numbers: a run's seed, its epoch, an image's place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_words(*entropy: int, count: int = 1) -> list[int]:
    """`count` seeds of 32 bits, a function of the numbers given, each of which is at least 0."""
    return [int(word) for word in np.random.SeedSequence(entropy).generate_state(count)]


def sample_rows(total: int, count: int, seed: int) -> np.ndarray:
    """`count` of `total` rows, i64, drawn by `seed`, in order; all if there are no more."""
    rows = np.arange(total)
    if total > count:
        generator = np.random.default_rng(seed_words(seed))
        rows = np.sort(generator.choice(rows, count, replace=False))
    return rows


def seed_globals(*entropy: int) -> None:
    """Seeds python's, numpy's and torch's global generators, CUDA's too."""
    torch.manual_seed(_seed_host(*entropy))


@contextmanager
def random_state(*entropy: int) -> Iterator[None]:
    """Seeds the global generators of the CPU within, and puts them back after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.random.default_generator.manual_seed(_seed_host(*entropy))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed_host(*entropy: int) -> int:
    """Seeds python's and numpy's generators; the seed for torch's."""
    words = seed_words(*entropy, count=3)
    random.seed(words[0])
    np.random.seed(words[1])
    return words[2]
