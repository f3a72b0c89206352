"""Ageing evolution over config keys: what to try next, from all that was tried; resumable.

A search is a list of trials in a file. What is tried next depends on that list and a seed alone, so
a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UnreadableFile, WrongUse, printable

POPULATION = 12
CONTEST = 3  # drawn at random; the best of them is the parent
RESAMPLE = 0.5  # chance that a gene is drawn anew; else it is multiplied
STEP = 0.3  # by exp of a normal number of this deviation


@dataclass(frozen=True)
class Gene:
    """A config key that holds a number, and where it may lie.

    Raises:
        WrongUse: unless low < high, both finite.

    >>> Gene.of("MODEL.LOSSES.AdaSP.SCALE", "0:1")
    Gene(key='MODEL.LOSSES.AdaSP.SCALE', low=0.0, high=1.0)
    """

    key: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise WrongUse(
                f"--gene {printable(self.key)} {self.low:g}:{self.high:g}: wanted LOW:HIGH, two"
                " numbers, the lower one first."
            )

    @classmethod
    def of(cls, key: str, text: str) -> Gene:
        """A gene from a command line's "LOW:HIGH"."""
        try:
            low, high = map(float, text.split(":"))
        except ValueError:
            low = high = math.nan
        return cls(key, low, high)

    @property
    def is_weight(self) -> bool:
        """Whether it weighs a loss."""
        return self.key.endswith(".SCALE")


@dataclass(frozen=True)
class Trial:
    """One genome that was tried.

    Args:
        genome: value of each gene, in their order.
        fitness: lower is better; infinite where the training failed or found nothing.
        parent: number of the trial it comes from, -1 = none.
        criteria: other figures, for the table. seconds: what it took.
    """

    genome: tuple[float, ...]
    fitness: float
    parent: int = -1
    criteria: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def is_zero(genes: Sequence[Gene], genome: Sequence[float]) -> bool:
    """Whether no loss among the genes has a weight, though there are such genes."""
    weights = [value for gene, value in zip(genes, genome, strict=True) if gene.is_weight]
    return bool(weights) and not any(weights)


def propose(
    genes: Sequence[Gene], trials: Sequence[Trial], *, seed: int
) -> tuple[tuple[float, ...], int]:
    """(the genome to try next, its parent or -1).

    The first twelve are all genes at their upper end, each gene alone there and the others at their
    lower end, and random ones. Then the best of three among the last twelve is the parent, and one
    or two of its genes change: the oldest dies, however good. A genome in which all weights of
    losses are 0 is never proposed.

    Source: Real et al., arXiv:1802.01548 (ageing evolution), as loss weights are searched in
    Piergiovanni et al., arXiv:2002.12177; the numbers are ours.
    """
    number = len(trials)
    generator = np.random.default_rng((seed, number))
    if number < POPULATION:
        genome = _start(genes, number)
        if genome is None or is_zero(genes, genome):
            genome = _random(genes, generator)
        return genome, -1
    alive = range(number - POPULATION, number)
    drawn = generator.choice(list(alive), CONTEST, replace=False)
    parent = int(min(drawn, key=lambda i: (trials[i].fitness, i)))
    while True:
        genome = _mutated(genes, trials[parent].genome, generator)
        if genome != trials[parent].genome and not is_zero(genes, genome):
            return genome, parent


def _start(genes: Sequence[Gene], number: int) -> tuple[float, ...] | None:
    """All genes high, then each alone; None after those."""
    if number == 0:
        return tuple(gene.high for gene in genes)
    if number > len(genes) or len(genes) == 1:
        return None
    return tuple(gene.high if i == number - 1 else gene.low for i, gene in enumerate(genes))


def _random(genes: Sequence[Gene], generator: np.random.Generator) -> tuple[float, ...]:
    return tuple(float(generator.uniform(gene.low, gene.high)) for gene in genes)


def _mutated(
    genes: Sequence[Gene], genome: Sequence[float], generator: np.random.Generator
) -> tuple[float, ...]:
    """One gene changed, or two."""
    count = min(int(generator.integers(1, 3)), len(genes))
    values = list(genome)
    for i in generator.choice(len(genes), count, replace=False):
        gene = genes[i]
        if generator.random() < RESAMPLE:
            values[i] = float(generator.uniform(gene.low, gene.high))
        else:
            value = values[i] * math.exp(generator.normal(0, STEP))
            values[i] = min(max(value, gene.low), gene.high)
    return tuple(values)


def best_of(trials: Sequence[Trial]) -> int:
    """Number of the trial with the lowest fitness, the first of equals; -1 if none is finite."""
    found = [i for i, trial in enumerate(trials) if math.isfinite(trial.fitness)]
    return min(found, key=lambda i: trials[i].fitness, default=-1)


def append(path: Path, genes: Sequence[Gene], trial: Trial) -> None:
    """Adds a line to the file of trials, and waits until it is on the disk."""
    entry = {
        "genome": {gene.key: value for gene, value in zip(genes, trial.genome, strict=True)},
        "fitness": _written(trial.fitness),
        "parent": trial.parent,
        "criteria": {name: _written(value) for name, value in trial.criteria.items()},
        "seconds": trial.seconds,
    }
    read_trials(path, genes)  # cuts half a line off
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _written(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def read_trials(path: Path, genes: Sequence[Gene]) -> list[Trial]:
    """The trials in a file; [] without one. Half a line at the end, of a killed run, is cut off.

    Raises:
        UnreadableFile: if a line is damaged, or its genes are others.
    """
    if not path.is_file():
        return []
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        text = text[: text.rfind(b"\n") + 1]
        with path.open("r+b") as stream:
            stream.truncate(len(text))
    found = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            genome = tuple(float(entry["genome"][gene.key]) for gene in genes)
            if len(entry["genome"]) != len(genes):
                raise KeyError("genes")
            criteria = {str(name): float(value) for name, value in entry["criteria"].items()}
            figures = float(entry["fitness"]), int(entry["parent"])
            found.append(Trial(genome, *figures, criteria, float(entry["seconds"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableFile(
                f"{printable(path)}, line {number} is no trial of these genes. Give another --out,"
                " or remove the line and those after it."
            ) from error
    return found
