"""`search` on tiny trainings: trials, best.yml, budget, kills, and no identity in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_no_label_leak import replace_identities
from tiny_runs import PAIRS, YAML, plugin_at, train

from fastreid_cc import __main__ as cli
from fastreid_cc.parallel import trainings
from fastreid_cc.parallel.trainings import Training

pytestmark = pytest.mark.usefixtures("plugin")
LOSSES = ("MODEL.LOSSES.NAME", '("MemoryContrast","AdaSP")')
GENES = ("--gene", "MODEL.LOSSES.MemoryContrast.SCALE", "0:1")
GENES = (*GENES, "--gene", "MODEL.LOSSES.AdaSP.SCALE", "0:1")
OPTIONS = ("--clusters", 8, "--seeds", 1, *GENES)
WARM = ("CC.WARMUP.EPOCHS", 1, "SOLVER.MAX_EPOCH", 3)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Trainings run in this process; those that did."""
    return run_here(monkeypatch)


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Training]]:
    """(the folder of a search of three trials, its trainings)."""
    out = tmp_path_factory.mktemp("search") / "whole"
    with plugin_at(data_root), pytest.MonkeyPatch.context() as patch:
        done = run_here(patch)
        assert search(out, "--trials", 3) == 0
    return out, done


def run_here(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    from fastreid.config import get_cfg

    done: list[Training] = []

    def run_all(wanted: list[Training], jobs: int) -> None:
        for training in wanted:
            training.prepare()
            cfg = get_cfg()
            cfg.merge_from_file(str(training.config))
            cfg.merge_from_list(["OUTPUT_DIR", str(training.output), *training.options])
            (training.output / "config.yaml").write_text(cfg.dump())
            train(cfg, resume="--resume" in training.command)
            done.append(training)

    monkeypatch.setattr(trainings, "run_all", run_all)
    return done


def search(out: Path, *words: object, pairs: tuple[object, ...] = WARM) -> int:
    given = ("--budget", "1h", "--out", out, *OPTIONS, *words)
    tiny = [*PAIRS, *LOSSES, *pairs]
    return cli.main(["search", *map(str, (YAML, *given, *tiny))])


def trials(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    for trial in found:
        assert trial.pop("seconds") > 0
    return found


def test_a_search_tries_measures_and_writes_what_was_best(
    whole: tuple[Path, list[Training]], capsys: Any
) -> None:
    out, done = whole
    found = trials(out)
    genomes = [tuple(trial["genome"].values()) for trial in found]
    assert genomes[:3] == [(1, 1), (1, 0), (0, 1)] and len(genomes) == 3
    assert len({trial["fitness"] for trial in found}) > 1  # weights change what is learnt
    assert set(found[0]["criteria"]) == {
        "kl_uniform", "kl_zipf", "silhouette", "stability", "rank", "outliers",
    }  # fmt: skip
    best = min(range(3), key=lambda i: found[i]["fitness"])
    written = yaml.safe_load((out / "best.yml").read_text())
    assert written["MODEL"]["LOSSES"]["AdaSP"]["SCALE"] == genomes[best][1]
    assert written["MODEL"]["LOSSES"]["NAME"] == ["MemoryContrast", "AdaSP"]
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(out / "best.yml"))
    assert cfg.CC.SYNTHETIC.TRAIN_IDS == 8 and cfg.CC.WARMUP.EPOCHS == 1
    assert search(out, "--trials", 3) == 0  # nothing left to try: the table again
    told = capsys.readouterr().out
    assert told.splitlines()[1].split()[0] == str(best) and "No identity was read" in told
    assert not list(out.glob("trial0*"))  # nothing but the shared beginning is kept
    starts = [training.start for training in done]
    assert starts[0] is None and len(set(starts[1:])) == 1 and starts[1].is_file()  # type: ignore[union-attr]


def test_a_search_killed_in_a_trial_goes_on_to_the_same_trials(
    whole: Any, here: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all, calls = trainings.run_all, []

    def killed(wanted: Any, jobs: int) -> Any:
        calls.append(1)
        if len(calls) == 2:  # after the training, before it is measured
            run_all(wanted, jobs)
            raise KeyboardInterrupt
        return run_all(wanted, jobs)

    with monkeypatch.context() as patch:
        patch.setattr(trainings, "run_all", killed)
        assert search(tmp_path / "parts", "--trials", 2) == 130
    assert len(trials(tmp_path / "parts")) == 1
    before = len(here)
    assert search(tmp_path / "parts", "--trials", 2) == 0
    assert len(here) == before == 2  # the second trial was trained already
    assert trials(tmp_path / "parts") == trials(whole[0])[:2]


def test_other_identities_give_the_same_trials(
    whole: Any, here: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = replace_identities(monkeypatch, lambda ids: list(reversed(ids)))
    assert search(tmp_path, "--trials", 2) == 0
    assert seen and trials(tmp_path) == trials(whole[0])[:2]


def test_the_budget_is_looked_at_between_trials_and_earlier_calls_count(
    here: list[Training], tmp_path: Path
) -> None:
    assert search(tmp_path, "--budget", "0.01s") == 0
    assert search(tmp_path, "--budget", "0.01s") == 0
    assert len(trials(tmp_path)) == 1


def test_a_trial_that_fails_is_the_worst_and_the_first_one_ends_the_search(
    here: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run_all: Callable[..., Any] = trainings.run_all
    failing = {1}

    def fails(wanted: Any, jobs: int) -> Any:
        if int(wanted[0].output.parent.name[-1]) in failing:
            raise RuntimeError("loss is NaN")
        return run_all(wanted, jobs)

    monkeypatch.setattr(trainings, "run_all", fails)
    assert search(tmp_path, "--trials", 2) == 0
    assert [trial["fitness"] for trial in trials(tmp_path)][1] == "inf"
    assert "trial 1 failed: loss is NaN" in capsys.readouterr().err
    failing.add(0)
    assert search(tmp_path / "other", "--trials", 2) == 1
    assert "The first trial, all genes at their upper end: loss is NaN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gene", "MODEL.LOSSES.SupCon.SCALE", "0:1"), "MODEL.LOSSES.NAME does not hold SupCon"),
        (("--gene", "CC.CLUSTER.DBSCAN.EPS", "0.4:1.5"), "CC.CLUSTER.DBSCAN.EPS=1.5 must lie in"),
        (("--gene", "CC.CLUSTER.DBSCAN.EPSS", "0:1"), "no such key. Near: CC.CLUSTER.DBSCAN.EPS"),
        (("--gene", "CC.CLUSTER.DBSCAN.MIN_SAMPLES", "2:8"), "holds 2, no real number"),
        (("--gene", "MODEL.LOSSES.AdaSP.SCALE", "0:2"), "A gene is named twice"),
        (("--gene", "MODEL.LOSSES.AdaSP.SCALE", "1:0"), "wanted LOW:HIGH"),
        (("--budget", "soon"), "'soon' is no time"),
        (("--zipf", "-1"), "--zipf and --seed must be 0 or more"),
        (("--trials", 1, "--clusters", 80), "--clusters 80: there are only 48 images"),
    ],
)
def test_what_cannot_be_searched_is_one_message(
    words: tuple[object, ...], said: str, here: list[Training], tmp_path: Path, capsys: Any
) -> None:
    try:
        status = search(tmp_path, *words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    err = capsys.readouterr().err
    assert status in (1, 2) and said in err, err
    assert not (tmp_path / "best.yml").exists()


def test_a_folder_of_another_search_is_refused(whole: Any, capsys: Any) -> None:
    assert search(whole[0], "--trials", 1, "--zipf", 0, "--seeds", 2) == 2
    assert "holds another search: its zipf, seeds differ" in capsys.readouterr().err
