"""Mean teacher: equal to a loop over steps, buffers included; its limits and its state."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from fastreid_cc.networks.mean_teacher import MeanTeacher


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def train_a_step(model: nn.Module, seed: int) -> None:
    """Changes parameters, running statistics and the integer buffer."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    model(torch.randn(5, 3, 4, 4, generator=generator)).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
            parameter.grad = None


@pytest.mark.parametrize("ramp", [False, True])
def test_three_steps_equal_the_formula(ramp: bool) -> None:
    student = network()
    teacher = MeanTeacher(student, momentum=0.6, ramp=ramp)
    expected = {k: v.double() for k, v in student.state_dict().items()}
    for step in range(3):
        train_a_step(student, step)
        teacher.update(student)
        m = min(0.6, 1 - 1 / (step + 1)) if ramp else 0.6
        expected = {k: m * expected[k] + (1 - m) * v for k, v in student.state_dict().items()}
    for name, value in teacher.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 3
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert teacher.step == 3


def test_with_the_ramp_an_early_teacher_is_the_mean_of_the_steps() -> None:
    student = network()
    teacher = MeanTeacher(student, momentum=0.999)
    seen = []
    for step in range(4):
        train_a_step(student, step)
        seen.append(student[1].running_mean.clone())
        teacher.update(student)
    torch.testing.assert_close(teacher.model[1].running_mean, torch.stack(seen).mean(0))


@pytest.mark.parametrize(("momentum", "moves"), [(0.0, True), (1.0, False)])
def test_momentum_0_copies_and_1_stays_bit_for_bit(momentum: float, moves: bool) -> None:
    student = network()
    start = {k: v.clone() for k, v in student.state_dict().items()}
    teacher = MeanTeacher(student, momentum=momentum, ramp=False)
    train_a_step(student, 0)
    teacher.update(student)
    expected = student.state_dict() if moves else start
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, expected[name]) or name.endswith("num_batches_tracked")


def test_the_teacher_is_apart_from_the_student() -> None:
    student = network()
    train_a_step(student, 0)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    teacher = MeanTeacher(student, momentum=0.5)
    assert not teacher.model.training and student.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert all(p.requires_grad for p in student.parameters())
    train_a_step(teacher.model.requires_grad_(True), 1)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_a_restored_teacher_goes_on_with_the_same_bytes() -> None:
    student = network()
    teacher, other = MeanTeacher(student), MeanTeacher(network(seed=1))
    for step in range(2):
        train_a_step(student, step)
        teacher.update(student)
    buffer = io.BytesIO()
    torch.save(teacher.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    train_a_step(student, 2)
    for each in (teacher, other):
        each.update(student)
    assert other.step == 3
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def test_another_network_is_refused() -> None:
    teacher = MeanTeacher(network())
    with pytest.raises(ValueError):
        teacher.update(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"CC\.TEACHER\.MOMENTUM=1\.1"):
        MeanTeacher(network(), momentum=1.1)
