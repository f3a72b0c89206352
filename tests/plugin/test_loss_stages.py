"""CC.LOSS_STAGES: which losses work in which epoch, of fastreid's and of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_registered_losses import OURS, R50, inputs, training_losses
from test_registered_losses import build as build_model
from tiny_runs import build, config, digest, train, weights

from fastreid_cc.config import faults, losses_at
from fastreid_cc.errors import BadConfig
from fastreid_cc.plugin.trainer.labelled_hook import LossStageHook

pytestmark = pytest.mark.usefixtures("plugin")
#: With true labels, two epochs of two steps.
STOCK: tuple[object, ...] = (
    "CC.ENABLED",
    False,
    "CC.SEED_SUPERVISED",
    True,
    "MODEL.META_ARCHITECTURE",
    "Baseline",
    "MODEL.HEADS.NAME",
    "EmbeddingHead",
    "DATALOADER.SAMPLER_TRAIN",
    "NaiveIdentitySampler",
    "DATALOADER.NUM_INSTANCE",
    2,
    "SOLVER.IMS_PER_BATCH",
    16,
)
CE_TRIPLET = ("MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'TripletLoss')")
STAGES = (*CE_TRIPLET, "CC.LOSS_STAGES", "((0, ('CrossEntropyLoss',)), (1, ('TripletLoss',)))")


def losses_by_epoch(trainer: Any) -> list[set[str]]:
    """Trains; names of the losses of each epoch."""
    found: list[set[str]] = [set() for _ in range(trainer.max_epoch)]
    stock = type(trainer.model).forward

    def forward(self: Any, inputs: Any) -> Any:
        losses = stock(self, inputs)
        if self.training:
            found[trainer.epoch] |= set(losses)
        return losses

    trainer.model.forward = forward.__get__(trainer.model)
    trainer.train()
    return found


def test_fastreids_own_losses_take_turns_with_true_labels(tmp_path: Path) -> None:
    trainer = build(config(tmp_path, *STOCK, *STAGES))
    assert losses_by_epoch(trainer) == [{"loss_cls"}, {"loss_triplet"}]
    assert trainer.model.loss_kwargs["loss_names"] == ("CrossEntropyLoss", "TripletLoss")


def test_one_stage_of_all_losses_gives_the_bytes_of_no_stages(tmp_path: Path) -> None:
    all_at_once = ("CC.LOSS_STAGES", "((0, ('CrossEntropyLoss', 'TripletLoss')),)")
    for name, more in (("none", ()), ("one", all_at_once)):
        train(config(tmp_path / name, *STOCK, *CE_TRIPLET, *more, "SOLVER.MAX_EPOCH", 1))
    assert digest(weights(tmp_path / "none")) == digest(weights(tmp_path / "one"))


def test_a_run_is_in_the_stage_of_its_epoch_whichever_came_before(tmp_path: Path) -> None:
    """So a resumed one is too."""
    from fastreid.utils.events import EventStorage

    trainer = build(config(tmp_path, *STOCK, *STAGES))
    trainer.storage = EventStorage()
    hook = next(hook for hook in trainer._hooks if isinstance(hook, LossStageHook))
    for epoch, name in ((1, "TripletLoss"), (0, "CrossEntropyLoss"), (1, "TripletLoss")):
        trainer.epoch = epoch
        trainer.storage.put_scalar("loss_of_last_stage", 1.0)
        hook.before_epoch()
        assert trainer.model.step.loss_stage == {name}
        shown = bool(trainer.storage.histories())
        assert shown == (epoch == 0), "of losses that are over nothing is shown"


@pytest.mark.parametrize("architecture", ["ClusterContrast", "MutualContrast"])
def test_registered_losses_take_turns_without_labels(architecture: str, tmp_path: Path) -> None:
    names = "('MemoryContrast', 'SupCon')"
    stages = "((0, ('SupCon',)), (1, ('MemoryContrast',)))"
    more = ("MODEL.META_ARCHITECTURE", architecture, "MODEL.LOSSES.NAME", names)
    trainer = build(config(tmp_path, *more, "CC.LOSS_STAGES", stages))
    first, second = losses_by_epoch(trainer)
    suffixes = ["", "_peer"][: trainer.model.num_networks]
    assert first == {f"loss_sup_con{suffix}" for suffix in suffixes}
    assert second == {f"loss_memory_contrast{suffix}" for suffix in suffixes}


def test_mgn_has_stages_too_and_no_parameter_is_left_without_a_gradient() -> None:
    stages = "((0, ('CrossEntropyLoss',)), (1, ('TripletLoss', 'AdaSP')))"
    mgn = ("MODEL.META_ARCHITECTURE", "MGN", *R50, "MODEL.LOSSES.NAME", OURS)
    model = build_model(*mgn, "CC.LOSS_STAGES", stages, device="cpu")
    kinds = []
    for names in (["CrossEntropyLoss"], ["TripletLoss", "AdaSP"]):
        model.step.loss_stage = frozenset(names)
        found = training_losses(model, inputs())
        kinds.append({name.split("_")[1] for name in found})
    assert kinds == [{"cls"}, {"triplet", "adasp"}]
    sum(found.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_stage_of_an_epoch_is_the_last_that_has_begun(tmp_path: Path) -> None:
    cfg = config(tmp_path, *STOCK, *CE_TRIPLET)
    assert losses_at(cfg, 7) == ("CrossEntropyLoss", "TripletLoss")
    stages = "((0, ['CrossEntropyLoss']), (2, ['TripletLoss']), (5, ['CrossEntropyLoss']))"
    cfg = config(tmp_path, *STOCK, *CE_TRIPLET, "CC.LOSS_STAGES", stages)
    found = [losses_at(cfg, epoch)[0][0] for epoch in range(7)]
    assert "".join(found) == "CCTTTCC"


@pytest.mark.parametrize("labels", [True, False], ids=["true labels", "no labels"])
@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("((1, ('{0}', '{1}')),)", ("begins at the epochs [1]", "begin with 0")),
        ("((0, ('{0}',)), (0, ('{1}',)))", ("[0, 0]", "ascend")),
        ("((0, ('{0}',)), (2, ('{1}',)))", ("at epoch 2", "MAX_EPOCH=2", "never begin")),
        ("((0, ('{0}',)),)", ("holds {1}, which no stage",)),
        ("((0, ('{0}', '{1}')), (1, ('SoftTriplet',)))", ("names SoftTriplet", "add it there")),
        ("(0, ('{0}',))", ("must be a list of (first epoch, (loss, ...))",)),
        ("((0, '{0}'),)", ("must be a list of",)),
        ("((0, ()),)", ("must be a list of",)),
        ("((0.5, ('{0}', '{1}')),)", ("must be a list of",)),
    ],
)
def test_stages_that_make_no_sense_are_faults(
    stages: str, words: tuple[str, ...], labels: bool, tmp_path: Path
) -> None:
    names = ("CrossEntropyLoss", "TripletLoss") if labels else ("MemoryContrast", "SupCon")
    options = STOCK if labels else ()
    pairs = ("MODEL.LOSSES.NAME", names, "CC.LOSS_STAGES", stages.format(*names))
    cfg = config(tmp_path, *options, *pairs)
    (found,) = faults(cfg)
    assert all(word.format(*names) in found for word in ("CC.LOSS_STAGES", *words)), found
    with pytest.raises(BadConfig):
        build(cfg)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (found,) = faults(config(tmp_path, *STOCK, *STAGES, "MODEL.META_ARCHITECTURE", "MoCo"))
    assert "CC.LOSS_STAGES needs a MODEL.META_ARCHITECTURE among Baseline" in found
