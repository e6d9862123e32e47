"""Recordings in windows: all tokens once, normalised as the whole, little of the file at a time, and their classes.

And the collapse figures of features whose rank is known.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from data2vec2.config.model import EncoderConfig
from data2vec2.data.source import BadSample
from data2vec2.evaluation.classification import long_logits
from data2vec2.evaluation.features import effective_rank, mean_std, token_features, window_features
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.audio.waveform import Windows, normalise

CONFIG, CPU = AudioConfig(stem="mel", position_depth=2, position_groups=4), torch.device("cpu")
RATE = CONFIG.sample_rate


def wave_of(seconds: float) -> NDArray[np.float32]:
    """Noise whose loudness and mean change."""
    noise = np.random.default_rng(1).standard_normal(round(RATE * seconds))
    return (noise * np.linspace(0.02, 0.1, len(noise)) + 0.05).astype(np.float32)


def windows_of(wave: NDArray[np.float32], window_s: float, overlap_s: float = 2.5) -> Windows:
    file = BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="FLOAT")
    return Windows(CONFIG, lambda: BytesIO(file.getvalue()), window_s, overlap_s)


def model_of(pooling: str) -> Classifier:
    torch.manual_seed(0)
    shape = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2, norm_eps=1e-5)
    model = Classifier(Encoder(shape, AudioModality(CONFIG, 16, 2)), 3, pooling=pooling)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.mark.parametrize(("seconds", "window_s"), [(21.3, 8.0), (24.0, 8.0), (8.02, 8.0), (13.7, 6.0), (5.0, 8.0)])
def test_windows_cover_the_recording(seconds: float, window_s: float) -> None:
    wave, hop = wave_of(seconds), CONFIG.hop
    whole, tokens, at = normalise(wave), CONFIG.num_tokens(len(wave)), 0
    for part, kept in windows_of(wave, window_s):
        assert len(part) <= (window_s + 0.1) * RATE
        count = len(range(CONFIG.num_tokens(len(part)))[kept])
        begin = at - (kept.start or 0)
        expected = whole[begin * hop : begin * hop + len(part)]
        np.testing.assert_allclose(part[: len(expected)], expected, atol=1e-4)
        assert begin == 0 or kept.start == 125  # tokens: 2.5 s of context
        at += count
    assert at == tokens


@pytest.mark.parametrize("pooling", ["mean", "linear_softmax"])
def test_classes_are_pooled_over_all_windows(pooling: str) -> None:
    model, wave = model_of(pooling), wave_of(21.3)
    with torch.no_grad():
        whole = model(torch.from_numpy(normalise(wave))[None])[0]
        first = model(torch.from_numpy(normalise(wave[: 8 * RATE]))[None])[0]
    torch.testing.assert_close(long_logits(model, windows_of(wave, 30.0), CPU), whole, atol=1e-4, rtol=1e-4)
    found = long_logits(model, windows_of(wave, 8.0), CPU)
    assert (found - whole).abs().max() < 0.2 * (first - whole).abs().max()


def test_tokens_are_those_of_the_whole() -> None:
    encoder, wave = model_of("mean").encoder, wave_of(21.3)
    (whole_TD,) = token_features(encoder, torch.from_numpy(normalise(wave))[None], None)
    found_TD = np.concatenate(list(window_features(encoder, windows_of(wave, 8.0), CPU)))
    assert found_TD.shape == whole_TD.shape
    errors_T = np.linalg.norm(found_TD - whole_TD, axis=1) / np.linalg.norm(whole_TD, axis=1)
    assert np.median(errors_T) < 0.05
    (stem_TD,) = token_features(encoder, torch.from_numpy(normalise(wave))[None], None, stem=True)
    found_TD = np.concatenate(list(window_features(encoder, windows_of(wave, 8.0), CPU, stem=True)))
    np.testing.assert_allclose(found_TD, stem_TD, atol=1e-2)


@pytest.mark.parametrize(("seconds", "reason"), [(20.0, "silent"), (0.5, "silent"), (0.02, "too short")])
def test_what_can_not_be_used(seconds: float, reason: str) -> None:
    wave = wave_of(seconds) * (reason != "silent")
    with pytest.raises(BadSample) as caught:
        windows_of(wave, 8.0)
    assert caught.value.reason == reason


def test_a_full_spectrum_has_full_rank() -> None:
    x = torch.randn(2_000, 16, generator=torch.Generator().manual_seed(0))
    assert 15.5 < effective_rank(x) <= 16
    assert effective_rank(x.view(20, 100, 16)) == pytest.approx(effective_rank(x))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_equal_directions_are_counted(rank: int) -> None:
    directions = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q[:rank]
    signs = torch.cat([torch.eye(rank), -torch.eye(rank)]).double()
    assert effective_rank(signs @ directions + 7) == pytest.approx(rank, rel=1e-4)  # the mean does not count


def test_it_is_the_entropy_of_the_singular_values() -> None:
    x = torch.randn(50, 6, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 0.1, 5.0, 0.5])
    singular = torch.linalg.svdvals(x - x.mean(0))
    p = singular / singular.sum()
    assert effective_rank(x) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-6)


def test_collapse_and_what_is_not_finite() -> None:
    assert effective_rank(torch.full((10, 8), 3.0)) == 1.0
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("inf")], [0.0, 1.0]])))
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("nan")], [0.0, 1.0]])))


def test_few_rows_are_looked_at() -> None:
    x = torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x, limit=100) == pytest.approx(effective_rank(x), rel=0.05)


def test_mean_std() -> None:
    x = torch.randn(5_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]) + 10
    assert mean_std(x) == pytest.approx(2, rel=0.05)
    assert mean_std(x.view(50, 100, 3)) == pytest.approx(mean_std(x), rel=1e-6)
    assert mean_std(torch.ones(10, 3)) == pytest.approx(1e-3)
