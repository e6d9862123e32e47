"""The teacher's average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data2vec2.training.optim import Ema


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)) for _ in range(2))
    return teacher.requires_grad_(False), student


def test_the_teacher_is_the_closed_form() -> None:
    teacher, student = pair()
    ema = Ema(teacher, student, start=0.5, end=0.9, anneal_updates=4)
    history = [[p.detach().double().clone() for p in teacher.parameters()]]
    decays = []
    for update in range(1, 9):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.normal_()
        ema.update(update)
        decays.append(0.5 + 0.4 * min(update, 4) / 4)
        history.append([p.detach().double().clone() for p in student.parameters()])
    for index, parameter in enumerate(teacher.parameters()):
        expected = history[0][index]
        weight = 1.0
        total = torch.zeros_like(expected)
        for update in range(8, 0, -1):  # teacher = sum of (1 - d_i) * product of the later d * student_i
            total += weight * (1 - decays[update - 1]) * history[update][index]
            weight *= decays[update - 1]
        assert torch.allclose(parameter.double(), total + weight * expected, atol=1e-6)


def test_decay_goes_linearly_from_start_to_end() -> None:
    ema = Ema(*pair(), start=0.99, end=0.999, anneal_updates=1_000)
    assert ema.decay(0) == 0.99
    assert ema.decay(500) == pytest.approx(0.9945)
    assert ema.decay(1) == pytest.approx(0.99 + 0.009 / 1_000)
    assert ema.decay(1_000) == ema.decay(10**6) == 0.999
    assert Ema(*pair(), start=0.9, end=1.0, anneal_updates=0).decay(0) == 1.0


def test_a_decay_of_one_stands_still_and_of_zero_copies() -> None:
    teacher, student = pair()
    before = [p.clone() for p in teacher.parameters()]
    Ema(teacher, student, start=1, end=1, anneal_updates=0).update(1)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    Ema(teacher, student, start=0, end=0, anneal_updates=0).update(1)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))


def test_the_student_is_never_touched() -> None:
    teacher, student = pair()
    before = [p.clone() for p in student.parameters()]
    Ema(teacher, student, start=0.5, end=0.5, anneal_updates=0).update(1)
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))


def test_a_teacher_with_parts_of_the_student() -> None:
    _, student = pair()
    teacher = nn.Module()
    teacher.add_module("1", nn.LayerNorm(4).requires_grad_(False))
    with torch.no_grad():
        student[1].weight.fill_(3.0)  # type: ignore[index]
    Ema(teacher, student, start=0.5, end=0.5, anneal_updates=0).update(1)
    assert torch.equal(teacher.get_parameter("1.weight"), torch.full((4,), 2.0))


def test_a_teacher_without_a_match_or_in_half_precision_is_refused() -> None:
    teacher, student = pair()
    teacher.add_module("other", nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"other\.weight"):
        Ema(teacher, student, start=0.5, end=0.5, anneal_updates=0)
    teacher, student = pair()
    with pytest.raises(ValueError, match="float32"):
        Ema(teacher.bfloat16(), student, start=0.5, end=0.5, anneal_updates=0)
