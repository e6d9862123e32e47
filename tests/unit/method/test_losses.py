"""The regression loss against the obvious double loop, CTC against PyTorch's for each sample."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from data2vec2.data.labels import IGNORED
from data2vec2.method.losses import ctc, dense, regression, spans, upsampled


def slow(prediction: torch.Tensor, target: torch.Tensor, scale: float, beta: float) -> float:
    total = 0.0
    width = target.shape[-1]
    for p_row, t_row in zip(prediction.reshape(-1, width), target.reshape(-1, width), strict=True):
        for p, t in zip(p_row.tolist(), t_row.tolist(), strict=True):
            difference = abs(p - t)
            if beta == 0:
                total += difference**2
            elif difference < beta:
                total += 0.5 * difference**2 / beta
            else:
                total += difference - 0.5 * beta
    return scale * total


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_regression_is_the_double_loop(beta: float) -> None:
    prediction, target = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1)).unbind()
    loss = regression(prediction, target, 0.25, beta)
    assert loss.item() == pytest.approx(slow(prediction, target, 0.25, beta), rel=1e-5)


def test_one_target_serves_many_rows() -> None:
    prediction = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(2))
    target = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(3))
    loss = regression(prediction, target, 1.0)
    assert loss.item() == pytest.approx(slow(prediction, target.expand(2, 4, 8), 1.0, 0.0), rel=1e-5)


def test_half_precision_is_summed_in_float32() -> None:
    loss = regression(torch.ones(100, 100, dtype=torch.bfloat16), torch.zeros(100, 100), 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == 10_000


def test_ctc_is_the_sum_over_samples() -> None:
    logits = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(4))
    num_tokens, lengths = torch.tensor([12, 7, 9]), torch.tensor([4, 2, 0])
    targets = torch.tensor([[1, 2, 2, 3], [4, 4, 9, 9], [7, 7, 7, 7]])  # behind its end, anything may stand
    each = [
        F.ctc_loss(logits[row, :tokens].log_softmax(-1)[:, None], targets[row : row + 1, :length], [tokens], [length])
        * max(1, length)  # "mean" divides by the letters
        for row, (tokens, length) in enumerate(zip(num_tokens.tolist(), lengths.tolist(), strict=True))
    ]
    out = ctc(logits, num_tokens, targets % 5, lengths)
    assert out.loss.item() == pytest.approx(sum(loss.item() for loss in each), rel=1e-5)
    assert out.num_impossible == 0


def test_impossible_targets_are_counted_and_change_nothing() -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(5)).requires_grad_()
    num_tokens, lengths = torch.tensor([3, 3, 2, 3]), torch.tensor([2, 3, 2, 3])
    targets = torch.tensor([[1, 1, 0], [1, 1, 2], [2, 2, 2], [1, 2, 1]])  # the second and third need a frame more
    out = ctc(logits, num_tokens, targets, lengths)
    assert out.num_impossible == 2
    possible = ctc(logits[[0, 3]], num_tokens[[0, 3]], targets[[0, 3]], lengths[[0, 3]])
    assert out.loss.item() == pytest.approx(possible.loss.item(), rel=1e-6)
    out.loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1:3].any()
    assert logits.grad[0].any()


def test_ctc_in_half_precision_is_computed_in_float32() -> None:
    logits = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(6)).bfloat16()
    args = torch.tensor([20, 20]), torch.tensor([[1, 2], [3, 4]]), torch.tensor([2, 2])
    assert ctc(logits, *args).loss.item() == pytest.approx(ctc(logits.float(), *args).loss.item(), rel=1e-6)


def test_dense_is_the_mean_over_known_places_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(3, 7, 4, generator=generator)
    classes = torch.randint(4, (3, 7), generator=generator)
    classes[0, 3:], classes[1] = -100, -100
    slow = sum(
        F.cross_entropy(row[known], of[known]).item()
        for row, of in zip(logits, classes, strict=True)
        if (known := of >= 0).any()
    )
    assert dense(logits, classes).item() == pytest.approx(slow, rel=1e-5)
    parts = [dense(logits[n : n + 1], classes[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(dense(logits, classes), torch.stack(parts).sum())


def test_dense_of_pixels_sees_the_logits_of_patches_in_their_size() -> None:
    logits = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(7))
    classes = torch.randint(3, (2, 8, 6), generator=torch.Generator().manual_seed(8))
    large = upsampled(logits, (8, 6))
    assert large.shape == (2, 3, 8, 6)
    torch.testing.assert_close(large[:, :, 0, 0], logits[:, :, 0, 0])  # corners are their patch's own
    torch.testing.assert_close(dense(logits, classes) / 2, F.cross_entropy(large, classes))
    same = upsampled(logits, (2, 2))
    torch.testing.assert_close(same, logits)


def test_spans_against_both_ends_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(5)
    lengths, places = (7, 4, 5), ((2, 5), (0, 0), None)
    logits = torch.randn(3, 7, 2, generator=generator, requires_grad=True)
    marks, expected = torch.full((3, 7, 2), IGNORED), 0.0
    for sample, (length, ends) in enumerate(zip(lengths, places, strict=True)):
        marks[sample, :length] = 0
        for side in (0, 1) if ends else ():
            marks[sample, ends[side], side] = 1
            expected += F.cross_entropy(logits[sample, :length, side], torch.tensor(ends[side])).item() / 2
    loss = spans(logits, marks)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1, 4:].any(), "padding counts nothing"
    assert not logits.grad[2].any(), "nor does a sample without a span"
    assert logits.grad[0].all()
