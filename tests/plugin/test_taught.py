"""Soft labels of a mean teacher, and two networks taught by each other's, inside stock training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import watched
from test_resume import same_end
from tiny_runs import build, config, digest, train, weights

pytestmark = pytest.mark.usefixtures("plugin")
SOFT: tuple[object, ...] = (
    "CC.TEACHER.ENABLED",
    True,
    "CC.TEACHER.MOMENTUM",
    0.5,
    "CC.TEACHER.OWN_VIEW",
    True,
    "MODEL.LOSSES.NAME",
    '("MemoryContrast","SoftContrast","SoftTriplet")',
)
MUTUAL: tuple[object, ...] = (*SOFT, "MODEL.META_ARCHITECTURE", "MutualContrast")


def test_soft_losses_learn_from_the_teachers_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batches, losses = watched(tmp_path, monkeypatch, *SOFT)
    teacher = trainer._hooks[0].teacher
    assert teacher.step == 4
    assert {"loss_memory_contrast", "loss_soft_contrast", "loss_soft_triplet"} == set(losses[0])
    assert batches[0]["teacher_features"].shape == (8, 128)
    assert not batches[0]["teacher_features"].requires_grad
    model = trainer.model
    assert not any("teacher" in name for name in model.state_dict())
    assert digest(dict(teacher.model.named_parameters())) != digest(dict(model.named_parameters()))


def test_the_teacher_sees_another_augmentation_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, own, _ = watched(tmp_path / "own", monkeypatch, *SOFT)
    _, same, _ = watched(tmp_path / "same", monkeypatch, *SOFT, "CC.TEACHER.OWN_VIEW", False)
    assert "images_2" in own[0] and "images_2" not in same[0]
    assert torch.equal(own[0]["indices"], same[0]["indices"])
    assert not torch.equal(own[0]["teacher_features"], same[0]["teacher_features"])


def test_soft_losses_without_a_teacher_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SoftContrast.*set CC\.TEACHER\.ENABLED True"):
        build(config(tmp_path, *SOFT, "CC.TEACHER.ENABLED", False))


def test_two_networks_resume_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(tmp_path, monkeypatch, 3, *MUTUAL, "CC.MEMORY.NAME", "hybrid", "CC.LABELS.PERIOD", 2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """(output, trainer, batches, losses) of two networks."""
    from tiny_runs import plugin_at

    output = tmp_path_factory.mktemp("pair")
    with plugin_at(data_root), pytest.MonkeyPatch.context() as patch:
        return output, *watched(output, patch, *MUTUAL)


def test_each_network_is_taught_by_the_teacher_of_the_other(pair: Any) -> None:
    _, trainer, batches, losses = pair
    names = {"loss_memory_contrast", "loss_soft_contrast", "loss_soft_triplet"}
    assert set(losses[0]) == set(losses[1]) == names  # a step calls `losses` for each network
    assert losses[0] != losses[1]
    model, teacher, memory = trainer.model, trainer._hooks[0].model, trainer._hooks[1].memory
    pixels = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    first, second = teacher.eval().features_of({"images": pixels})
    model.train()
    own, other = model.inputs_of_both({"images": pixels}, model.step)
    assert torch.equal(own["teacher_features"], second) and torch.equal(
        other["teacher_features"], first
    )
    assert not torch.equal(first, second)
    halves = model.step.split()
    assert [step.memory for step in halves] == [memory.first, memory.second]
    assert [step.teacher_memory for step in halves] == [memory.second, memory.first]
    assert not torch.equal(memory.first.rows, memory.second.rows)


def test_features_of_two_networks_are_side_by_side(pair: Any) -> None:
    model = pair[1].model.eval()
    pixels = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    before = pixels.clone()
    with torch.no_grad():
        features = model({"images": pixels})
        assert torch.equal(pixels, before)
        alone = model.peer({"images": pixels})
    assert features.shape == (4, 256)
    torch.testing.assert_close(features[:, 128:], torch.nn.functional.normalize(alone))


def test_weights_of_one_network_start_both(pair: Any, tmp_path: Path) -> None:
    train(config(tmp_path / "one", "SOLVER.MAX_EPOCH", 1))
    model = build(
        config(tmp_path / "two", *MUTUAL, "MODEL.WEIGHTS", tmp_path / "one" / "model_final.pth")
    ).model
    one = weights(tmp_path / "one")
    assert digest(one) == digest(model.peer.state_dict())
    assert digest(one) == digest({k: v for k, v in model.state_dict().items() if k in one})
