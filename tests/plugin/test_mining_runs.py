"""Trainings on mined triplets: what the batches hold, the same bytes by workers and by a resume."""

from __future__ import annotations

import copy
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mined_runs import LABEL_FREE, LABELLED
from test_resume import train_until
from test_two_processes import free_port
from tiny_runs import (
    PAIRS,
    ROOT,
    build,
    command,
    config,
    digest,
    plugin_at,
    run,
    same,
    train,
    weights,
)

from fastreid_cc.config import faults
from fastreid_cc.data.cut_out import CutOut
from fastreid_cc.data.triplet_mining import NothingToMine
from fastreid_cc.errors import BadConfig, ClearError
from fastreid_cc.plugin.trainer import mining_hook
from fastreid_cc.plugin.trainer.mining_hook import MiningHook

pytestmark = pytest.mark.usefixtures("plugin")
DEMO = sorted((ROOT / "configs/demo/done-right").glob("*.yml"))
BOTH = pytest.mark.parametrize("options", [LABELLED, LABEL_FREE], ids=["labels", "pseudo-labels"])


def watched(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Trains; what every step was given and gave."""
    seen: list[dict[str, Any]] = []
    model = trainer.model
    stock = model.forward

    def forward(inputs: Any) -> Any:
        told = {k: copy.copy(v) for k, v in inputs.items() if k != "images"}
        found = stock(inputs)
        if model.training:
            steps = trainer._trainer.data_loader.dataset.transform.transforms
            area = next(step.area for step in steps if isinstance(step, CutOut))
            seen.append({**told, "epoch": trainer.epoch, "losses": set(found), "area": area})
        return found

    monkeypatch.setattr(model, "forward", forward)
    trainer.train()
    return seen


@BOTH
def test_stages_train_on_batches_and_then_on_triplets_of_the_labels_at_hand(
    options: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(config(tmp_path, *options))
    steps = watched(trainer, monkeypatch)
    first = "loss_cls" if options is LABELLED else "loss_memory_contrast"
    always = set() if options is LABELLED else {first}
    assert len(steps) == trainer.max_iter
    for step in steps:
        assert step["area"] == pytest.approx(0.1 + 0.3 * step["epoch"] / (trainer.max_epoch - 1))
        if step["epoch"] == 0:
            assert "roles" not in step and step["losses"] == {first}
            continue
        assert step["losses"] == {"loss_mined_triplet"} | always
        assert step["roles"].tolist() == [0, 1, 2, 3, 4, 5]
        q, p, n = step["targets"].reshape(2, 3).T
        assert (q == p).all() and (q != n).all() and (q >= 0).all()
        query, positive, _ = step["indices"].reshape(2, 3).T
        assert (query != positive).all()


def test_the_mined_loss_moves_the_network_and_only_what_lies_before_it(tmp_path: Path) -> None:
    options = (*LABELLED, "SOLVER.OPT", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.MAX_EPOCH", 2)
    train(config(tmp_path, *options, "SOLVER.WEIGHT_DECAY", 0.0))
    first, last = weights(tmp_path, "model_0000.pth"), weights(tmp_path)
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert any(name.startswith("backbone") for name in moved)
    assert "heads.bottleneck.0.weight" in moved
    assert "heads.weight" not in moved  # the classifier's stage is over


@pytest.mark.parametrize("alike", [False, True])
def test_a_collapse_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    alike: bool,
) -> None:
    def extract(*_: Any) -> torch.Tensor:
        noise = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(noise + (10 if alike else 0))

    monkeypatch.setattr(mining_hook, "extract_features", extract)
    caplog.set_level(logging.WARNING)
    train(config(tmp_path, *LABELLED, "CC.MINING.POOL", 24))
    assert caplog.text.count("features have become alike") == alike
    assert not alike or "CC.LOSS_STAGES" in caplog.text


class Whole(NamedTuple):
    """A run that nothing stopped, and the steps at which it mined."""

    options: tuple[object, ...]
    output: Path
    mined_at: list[int]


def train_noting(cfg: Any, *, resume: bool = False) -> list[int]:
    """Trains; the steps at which triplets were mined."""
    mined_at: list[int] = []
    stock = MiningHook._mine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MiningHook, "_mine", lambda self, step: (mined_at.append(step), stock(self, step))[1]
        )
        train(cfg, resume=resume)
    return mined_at


@pytest.fixture(scope="module", params=[LABELLED, LABEL_FREE], ids=["labels", "pseudo-labels"])
def whole(
    request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    output = tmp_path_factory.mktemp("whole")
    with plugin_at(data_root):
        return Whole(request.param, output, train_noting(config(output, *request.param)))


def test_a_run_killed_within_a_round_ends_with_the_same_bytes(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint resumed from lies within a round, whose triplets are used up."""
    is_labelled = whole.options is LABELLED
    # labels made anew, at steps 4 and 8, begin a round of three
    assert whole.mined_at == ([4, 9, 14] if is_labelled else [2, 4, 7, 8])
    killed_at, resumed_at = (10, 8) if is_labelled else (7, 6)
    train_until(config(tmp_path, *whole.options), killed_at, monkeypatch)
    later = train_noting(config(tmp_path, *whole.options), resume=True)
    assert later == [step for step in whole.mined_at if step > resumed_at]
    ends = [torch.load(folder / "model_final.pth") for folder in (whole.output, tmp_path)]
    assert same(*ends) == ""


def test_the_number_of_workers_changes_no_byte(whole: Whole, tmp_path: Path) -> None:
    train(config(tmp_path, *whole.options, "DATALOADER.NUM_WORKERS", 2))
    assert digest(weights(tmp_path)) == digest(weights(whole.output))


def test_pseudo_labels_leave_the_nearest_negatives_out_and_true_ones_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fastreid_cc.plugin.trainer.mining_hook as module

    told: list[float] = []
    stock = module.mine
    monkeypatch.setattr(module, "mine", lambda *a, **k: (told.append(k["skip"]), stock(*a, **k))[1])
    more = ("CC.MINING.SKIP", 0.25, "SOLVER.MAX_EPOCH", 2)
    for name, options in (("labelled", LABELLED), ("label-free", LABEL_FREE)):
        train(config(tmp_path / name, *options, *more))
    assert told == [0.0, 0.25]


def test_mining_leaves_the_network_and_the_random_states_alone(tmp_path: Path) -> None:
    """Batch norm's statistics above all: the pool is embedded in eval mode."""
    trainer = build(config(tmp_path, *LABELLED))
    trainer.epoch = 1
    miner = next(h for h in trainer._hooks if isinstance(h, MiningHook))
    before = digest(trainer.model.state_dict()), torch.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    rows = miner._mine(7)
    assert digest(trainer.model.state_dict()) == before[0] and trainer.model.training
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (np.random.get_state()[1] == np_state).all()
    assert rows.shape == (10, 3) and np.array_equal(rows, miner._mine(7))
    assert not np.array_equal(rows, miner._mine(8))


def test_any_triplet_needs_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fastreid_cc.plugin.trainer.mining_hook as module

    monkeypatch.setattr(module, "extract_features", lambda *a: pytest.fail("embedded"))
    train(config(tmp_path, *LABELLED, "CC.MINING.TOP", 0, "SOLVER.MAX_EPOCH", 2))


def test_the_log_says_what_was_mined_and_who_has_no_positive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(config(tmp_path, *LABELLED, "CC.MINING.POOL", 6, "SOLVER.MAX_EPOCH", 2))
    text = caplog.text
    assert re.search(
        r"mined 10 triplets of \d queries in 6 images; \d of \d identities have one", text
    )
    assert "losses from here on: MinedTriplet" in text
    assert re.search(r"epoch 1: 1 rounds of mined triplets, squared distance", text)


def test_a_pool_without_positives_says_so_with_counts(tmp_path: Path) -> None:
    trainer = build(config(tmp_path, *LABELLED, "CC.MINING.POOL", 3))
    miner = next(h for h in trainer._hooks if isinstance(h, MiningHook))
    told = []
    for step in range(20):
        try:
            miner._mine(step)
        except NothingToMine as error:
            told.append(str(error))
    assert told and "3 images of 3 identities or clusters, 3 of them with one image" in told[0]


def test_a_round_of_other_images_is_refused_and_of_other_options_forgotten(tmp_path: Path) -> None:
    train(config(tmp_path / "a", *LABELLED, "SOLVER.MAX_EPOCH", 2))
    trainer = build(config(tmp_path / "b", *LABELLED))
    miner = next(h for h in trainer._hooks if isinstance(h, MiningHook))
    state = torch.load(tmp_path / "a" / "model_final.pth")["cc_mining"]
    assert state["start"] == 4
    miner.load_state_dict({**state, "triplets": state["triplets"][:3]})
    assert miner.round is None
    for wrong, words in (
        ({"images": "x"}, "of other images than the 48"),
        ({"start": "4"}, "triplets are none of this version"),
    ):
        with pytest.raises(ClearError, match=words):
            miner.load_state_dict({**state, **wrong})
    miner.load_state_dict(state)
    assert miner.round is not None and miner.round.start == 4


def test_two_processes_train_on_the_triplets_of_one_and_learn_the_same(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision, as in test_two_processes.py; then cross-entropy, whose batches differ.

    In each of the two stages the classifier, or the triplets, have no part in the loss, which
    DistributedDataParallel would not forgive.
    """
    options = (*LABELLED, "SOLVER.OPT", "SGD", "SOLVER.BASE_LR", 0.0001, "CC.SAMPLES_PER_BN", 5)
    stages = "((0, ('MinedTriplet',)), (2, ('CrossEntropyLoss',)))"
    options += ("CC.LOSS_STAGES", stages, "SOLVER.MAX_EPOCH", 3, "CC.MINING.TRIPLETS", 4)
    reports: list[list[Any]] = []
    for flags in ((), ("--num-gpus", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")):
        output = tmp_path / str(len(flags))
        output.mkdir()
        monkeypatch.setenv("REPORT", str(output))
        line = command(output / "run", *options, flags=flags, imports=("run_report", "in_double"))
        done = run(data_root, line)
        assert done.returncode == 0, done.stdout
        reports.append([torch.load(path) for path in sorted(output.glob("*.pth"))])
    ((one,), (first, second)) = reports
    assert digest(first["parameters"]) == digest(second["parameters"])
    for whole, *halves in zip(one["batches"], first["batches"], second["batches"], strict=True):
        assert [part.shape for part in halves] == [(2, whole.shape[1] // 2)] * 2
        if whole.shape[1] == 12:
            assert torch.equal(torch.cat(halves, dim=1), whole)
    assert [batch.shape[1] for batch in one["batches"]] == [12] * 8 + [8] * 4
    both = torch.tensor([first["losses"], second["losses"]], dtype=torch.float64)[:, :8].mean(0)
    alone = torch.tensor(one["losses"], dtype=torch.float64)[:8]
    assert alone.min() > 0.1
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)  # rounding, doubled every step


def test_a_scale_of_0_mines_nothing_and_changes_nothing(tmp_path: Path) -> None:
    both = ("MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'MinedTriplet')", "CC.LOSS_STAGES", "()")
    off = ("MODEL.LOSSES.MinedTriplet.SCALE", 0.0)
    alone = ("MODEL.LOSSES.NAME", "('CrossEntropyLoss',)", "CC.LOSS_STAGES", "()")
    found = []
    for name, more in (("off", (*both, *off)), ("without", alone)):
        trainer = train(config(tmp_path / name, *LABELLED, *more, "SOLVER.MAX_EPOCH", 1))
        assert not any(isinstance(hook, MiningHook) for hook in trainer._hooks)
        found.append(digest(weights(tmp_path / name)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.MINING.TOP", -1), ("CC.MINING.TOP=-1",)),
        (("INPUT.CUT_OUT.AREA", 1.5), ("INPUT.CUT_OUT.AREA=1.5",)),
        (("MODEL.HEADS.NECK_FEAT", "before"), ("NECK_FEAT=before", "set NECK_FEAT after")),
        (
            (
                "MODEL.META_ARCHITECTURE",
                "MutualContrast",
                "MODEL.HEADS.NAME",
                "ClusterContrastHead",
            ),
            ("MutualContrast has two",),
        ),
        (
            (
                *("MODEL.LOSSES.NAME", "('MinedTriplet',)", "CC.LOSS_STAGES", "()"),
                *("MODEL.LOSSES.MinedTriplet.SCALE", 0.0),
            ),
            ("MODEL.LOSSES.MinedTriplet.SCALE=0", "raise it"),
        ),
    ],
)
def test_what_cannot_be_mined_is_a_fault_before_anything_is_built(
    pairs: tuple[object, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    cfg = config(tmp_path, *LABELLED, *pairs)
    (found,) = faults(cfg)
    assert all(word in found for word in words), found
    with pytest.raises(BadConfig):
        build(cfg)


def test_triplets_are_shared_out_evenly_and_not_among_sources(tmp_path: Path) -> None:
    (found,) = faults(config(tmp_path, *LABELLED), world_size=3)
    assert "CC.MINING.TRIPLETS=2 must be a multiple of the 3 processes" in found
    sources = ("CC.SOURCES.NAMES", "('SyntheticSource',)")
    found = " ".join(faults(config(tmp_path, *LABEL_FREE, *sources)))
    assert "mined batches hold no images of sources" in found


@pytest.mark.parametrize("path", DEMO, ids=lambda path: path.stem)
def test_a_demo_config_has_one_practice_off_and_trains(path: Path, tmp_path: Path) -> None:
    cfg = from_file(path)
    off = {
        "max-pooling": cfg.MODEL.HEADS.POOL_LAYER != "GlobalMaxPool",
        "cut-out": not cfg.INPUT.CUT_OUT.ENABLED,
        "classification": not cfg.CC.LOSS_STAGES,
        "mining": not cfg.CC.MINING.TOP,
        "depth": cfg.MODEL.BACKBONE.DEPTH != "34x",
        "resolution": tuple(cfg.INPUT.SIZE_TEST) != (128, 64),
    }
    assert [f"without-{name}" for name, is_off in off.items() if is_off] in ([path.stem], [])
    assert any(off.values()) == (path.stem != "full")
    if path.stem not in ("full", "without-classification"):
        return
    stages = "((0, ('CrossEntropyLoss',)), (1, ('MinedTriplet',)))"
    options = [*PAIRS, "CC.ITERS_PER_EPOCH", 2, "OUTPUT_DIR", tmp_path, "CC.MINING.TRIPLETS", 2]
    options += ["DATALOADER.NUM_INSTANCE", 2, "MODEL.LOSSES.MinedTriplet.MARGIN", 5.0]  # never 0
    options += ["CC.LOSS_STAGES", stages] if cfg.CC.LOSS_STAGES else []
    cfg.merge_from_list([str(option) for option in options])
    trainer = train(cfg)
    assert trainer.storage.history("total_loss").latest() > 0
    assert list(trainer.model.active_losses(trainer.model.step)) == ["MinedTriplet"]


def from_file(path: Path) -> Any:
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def test_an_epochs_batches_of_true_labels_hold_the_images_of_their_classes(tmp_path: Path) -> None:
    """By the names of the files."""
    cfg = config(tmp_path, *LABELLED)
    images = build(cfg)._trainer.data_loader
    names: dict[int, set[str]] = {}
    for batch in images.epoch_loader(cfg, 0):
        assert len(batch["targets"]) == 8
        columns = batch["img_paths"], batch["targets"].tolist(), batch["indices"].tolist()
        for path, target, row in zip(*columns, strict=True):
            names.setdefault(target, set()).add(Path(path).name.split("_")[0])
            assert images.paths[row] == path and images.targets[row] == target
    assert len(names) > 4 and all(len(found) == 1 for found in names.values())
    assert len(set.union(*names.values())) == len(names)
