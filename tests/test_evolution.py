"""Ageing evolution: starts, parents, deaths, and going on where it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.config.evolution import (
    POPULATION,
    Gene,
    Trial,
    append,
    best_of,
    is_zero,
    propose,
    read_trials,
)

GENES = (
    Gene("MODEL.LOSSES.MemoryContrast.SCALE", 0, 1),
    Gene("MODEL.LOSSES.AdaSP.SCALE", 0, 1),
    Gene("CC.CLUSTER.DBSCAN.EPS", 0.4, 0.7),
)


def evolve(count: int, fitness: object, seed: int = 0, genes: tuple[Gene, ...] = GENES) -> list:
    trials: list[Trial] = []
    for _ in range(count):
        genome, parent = propose(genes, trials, seed=seed)
        trials.append(Trial(genome, fitness(genome), parent))  # type: ignore[operator]
    return trials


def away(genome: tuple[float, ...]) -> float:
    """Least at (0.3, 0.8, 0.5)."""
    return float(np.square(np.array(genome) - (0.3, 0.8, 0.5)).sum())


def test_a_search_starts_with_all_each_alone_and_random_ones() -> None:
    trials = evolve(POPULATION, away)
    genomes = [trial.genome for trial in trials]
    assert genomes[0] == (1, 1, 0.7) and genomes[1] == (1, 0, 0.4) and genomes[2] == (0, 1, 0.4)
    assert genomes[3][:2] != (0, 0)  # eps alone would train by no loss: a random one instead
    assert len(set(genomes)) == POPULATION and all(t.parent == -1 for t in trials)


@given(seed=st.integers(0, 50), weights=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_genomes_lie_in_their_ranges_children_change_one_gene_or_two_and_no_weight_is_all(
    seed: int, weights: int
) -> None:
    genes = tuple(Gene(f"L{i}.SCALE", 0, 1) for i in range(weights)) + (Gene("E", -2, 3),)
    trials = evolve(40, lambda genome: sum(genome), seed, genes)  # zero weights look best
    for number, trial in enumerate(trials):
        assert all(g.low <= v <= g.high for g, v in zip(genes, trial.genome, strict=True))
        assert not is_zero(genes, trial.genome)
        if number >= POPULATION:
            assert number - POPULATION <= trial.parent < number  # the oldest have died
            parent = trials[trial.parent].genome
            changed = sum(a != b for a, b in zip(parent, trial.genome, strict=True))
            assert 1 <= changed <= 2


def test_it_finds_what_random_draws_do_not_and_failures_are_no_parents() -> None:
    gains = []
    for seed in range(5):
        evolved = min(t.fitness for t in evolve(90, away, seed))
        drawn = np.random.default_rng(seed).uniform((0, 0, 0.4), (1, 1, 0.7), (90, 3))
        gains.append(min(map(away, drawn)) - evolved)
    assert np.mean(gains) > 0
    trials = evolve(60, lambda g: math.inf if g[0] > 0.5 else away(g))
    parents = [trials[t.parent] for t in trials[POPULATION:]]
    assert np.mean([math.isinf(p.fitness) for p in parents]) < 0.1


def test_a_file_of_trials_goes_on_as_the_list_and_half_a_line_is_cut(tmp_path: Path) -> None:
    path, trials = tmp_path / "trials.jsonl", evolve(14, away)
    trials[3] = Trial(trials[3].genome, math.inf, -1, {"rank": math.nan, "kl": 0.5}, 2.5)
    for trial in trials:
        append(path, GENES, trial)
    with path.open("a") as stream:
        stream.write('{"genome": {"MODEL.LOSSES')
    found = read_trials(path, GENES)
    assert [t.genome for t in found] == [t.genome for t in trials]
    assert [t.fitness for t in found] == [t.fitness for t in trials]
    assert math.isnan(found[3].criteria["rank"]) and found[3].seconds == 2.5
    assert propose(GENES, found, seed=4) == propose(GENES, trials, seed=4)
    append(path, GENES, trials[0])
    assert len(read_trials(path, GENES)) == 15  # no line was glued to the half one
    assert best_of(found) == min(range(14), key=lambda i: trials[i].fitness)
    assert best_of([Trial((1.0,), math.inf)]) == -1


@pytest.mark.parametrize(
    "line", ["{}", "[]", "no json", '{"genome": {"A": 1}, "fitness": 1}', "\x00"]
)
def test_a_damaged_line_or_other_genes_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    append(path, GENES, Trial((1, 1, 0.5), 1.0))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(RuntimeError, match="line 2 is no trial of these genes"):
        read_trials(path, GENES)
    with pytest.raises(RuntimeError, match="line 1"):
        read_trials(path, GENES[:2])
    assert read_trials(tmp_path / "none.jsonl", GENES) == []


@pytest.mark.parametrize("text", ["1", "1:0", "0:nan", "a:b", "0:1:2", "0:inf", "0.5:0.5"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted LOW:HIGH"):
        Gene.of("CC.CLUSTER.DBSCAN.EPS", text)
