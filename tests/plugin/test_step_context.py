"""The object through which network, hooks and losses talk: what is in it when, and what lets go."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import watched
from test_taught import MUTUAL, SOFT
from tiny_runs import build, config, train

pytestmark = pytest.mark.usefixtures("plugin")


def test_a_copy_of_a_network_has_an_empty_context_and_its_state_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _, _ = watched(tmp_path, monkeypatch, *SOFT)
    model, teacher = trainer.model, trainer._hooks[0].model
    assert model.step.memory is trainer._hooks[1].memory
    assert model.step.teacher is teacher
    assert model.step.last_batch is None  # taken after the last step
    for other in (copy.deepcopy(model), teacher):
        assert other.step == type(other.step)()
        assert other.state_dict().keys() == model.state_dict().keys()
    assert not [key for key in model.state_dict() if "step" in key or "memory" in key]


def test_a_forward_in_training_leaves_its_batch_once_and_one_in_evaluation_none(
    tmp_path: Path,
) -> None:
    model = train(config(tmp_path, "SOLVER.MAX_EPOCH", 1)).model
    pixels = torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    targets = torch.arange(8) // 4
    inputs = {"images": pixels, "targets": targets, "camids": targets + 5, "indices": targets + 7}
    model.eval()(dict(inputs, images=pixels.clone()))
    assert model.step.last_batch is None
    sum(model.train()(inputs).values()).backward()
    batch = model.step.take_last_batch()
    assert batch.features.shape == (8, 128) and not batch.features.requires_grad
    assert torch.equal(batch.cameras, targets + 5) and torch.equal(batch.indices, targets + 7)
    assert model.step.take_last_batch() is None
    model(dict(inputs, targets=torch.full_like(targets, -1)))  # fastreid's PreciseBN
    assert model.step.last_batch is None
    model.step.start_stage(None, is_warm_up=True)
    assert model.active_losses(model.step) == {}  # the config has no warm-up


def test_with_true_labels_there_is_no_memory_and_the_losses_are_the_config_s(
    tmp_path: Path,
) -> None:
    options = ("CC.ENABLED", False, "MODEL.LOSSES.NAME", "('SupCon',)")
    model = build(config(tmp_path, *options)).model
    assert list(model.active_losses(model.step)) == ["SupCon"]
    assert model.step.memory is None


def test_two_networks_leave_one_batch_of_both(tmp_path: Path) -> None:
    trainer = build(config(tmp_path, *MUTUAL, "SOLVER.MAX_EPOCH", 1))
    seen: list[Any] = []
    take = type(trainer.model.step).take_last_batch

    def spy(step: Any) -> Any:
        seen.append(take(step))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.model.step), "take_last_batch", spy)
        trainer.train()
    assert [batch.features.shape for batch in seen] == [(8, 256), (8, 256)]
    assert trainer.model.peer.step.last_batch is None


@pytest.mark.parametrize("epoch", [0, 1], ids=["in mid-period", "before a labelling"])
def test_what_a_checkpoint_held_is_let_go_once_it_is_used(
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory of N x D floats and a second network are not held twice until the run ends."""
    from fastreid_cc.plugin.trainer.pseudo_label_hook import PseudoLabelHook
    from fastreid_cc.plugin.trainer.teacher_hook import TeacherHook

    options = (*SOFT, "CC.MEMORY.NAME", "hybrid", "CC.LABELS.PERIOD", 2, "SOLVER.MAX_EPOCH", 3)
    train(config(tmp_path, *options))
    (tmp_path / "last_checkpoint").write_text(f"model_{epoch:04d}.pth")
    read: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []

    def watch(hook: Any, tensor: Callable[[Any], torch.Tensor]) -> None:
        load = hook.load_state_dict

        def load_state_dict(self: Any, state: Any) -> None:
            read.append(weakref.ref(tensor(state)))
            load(self, state)

        monkeypatch.setattr(hook, "load_state_dict", load_state_dict)

    def before_epoch(self: Any) -> None:
        start_epoch(self)
        gc.collect()
        held.append(sum(ref() is not None for ref in read))

    start_epoch = PseudoLabelHook.before_epoch
    monkeypatch.setattr(PseudoLabelHook, "before_epoch", before_epoch)
    watch(PseudoLabelHook, lambda state: state["memory"]["rows"])
    watch(TeacherHook, lambda state: next(iter(state["model"].values())))
    trainer = build(config(tmp_path, *options), resume=True)
    assert [ref() is not None for ref in read] == [True, True]
    trainer.train()
    assert held[0] == 0
