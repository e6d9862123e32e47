"""Audio: stems, positions, ALiBi, and padding that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data2vec2.config.model import EncoderConfig, MaskConfig
from data2vec2.method.block import AttentionBias, alibi_slopes
from data2vec2.method.encoder import Encoder
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import AudioModality, MelStem, mel_filters
from data2vec2.modalities.audio.tools import AudioTools

WIDTH, HEADS = 32, 4


def config_of(stem: str) -> AudioConfig:
    return AudioConfig(stem=stem, conv_dim=16, position_groups=4, position_depth=2, position_kernel=5)


@pytest.fixture(params=["waveform", "mel"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    shape = EncoderConfig(embed_dim=WIDTH, num_heads=HEADS, prenet_depth=1, depth=2, norm_eps=1e-5)
    return Encoder(shape, AudioModality(config_of(request.param), WIDTH, HEADS)).eval()


@pytest.mark.parametrize("stem", ["waveform", "mel"])
def test_tokens_are_counted_as_the_stem_makes_them(stem: str) -> None:
    config = config_of(stem)
    modality = AudioModality(config, WIDTH, HEADS)
    assert config.hop == 320
    assert config.receptive_field == {"waveform": 400, "mel": 560}[stem]
    for samples in (config.receptive_field, 879, 880, 4_000, 16_000, 24_123):
        tokens = modality.tokens(torch.randn(1, samples))
        assert tokens.tokens_BTD.shape == (1, config.num_tokens(samples), WIDTH)
        assert tokens.grid == (config.num_tokens(samples),)
    with pytest.raises(ValueError, match=f"{config.receptive_field} samples or more"):
        modality.tokens(torch.randn(1, config.receptive_field - 1))


@torch.no_grad()
def test_a_recording_is_the_same_alone_and_in_any_batch(encoder: Encoder) -> None:
    lengths = torch.tensor([9_000, 700, 4_321, 16_000])
    waves = [torch.randn(int(length)) for length in lengths]
    batch = torch.full((4, 16_000), 1e4)  # whatever stands behind a recording
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    together = encoder(batch, lengths_B=lengths)
    pooled = together.pooled()
    for row, wave in enumerate(waves):
        alone = encoder(wave[None])
        count = alone.features_NTD.shape[1]
        assert (together.features_NTD[row, :count] - alone.features_NTD[0]).abs().max() < 1e-5
        assert (pooled[row] - alone.pooled()[0]).abs().max() < 1e-5
        assert (~together.tokens.padding_BT[row]).sum() == count


@torch.no_grad()
def test_a_student_row_sees_its_kept_tokens_alone(encoder: Encoder) -> None:
    tokens = encoder.modality.tokens(torch.randn(2, 16_000))
    masks = MaskConfig(num_masks=3, mask_ratio=0.5, adjust=0.05, block_length=5, inverse=False)
    keep_ids = torch.from_numpy(draw_keep_ids(masks, tokens.grid, 0, np.zeros(2, int), np.arange(2)))
    before = encoder(tokens=tokens, keep_ids_NK=keep_ids).x_NLD
    assert before.shape == (6, keep_ids.shape[1], WIDTH)
    masked = torch.ones(6, tokens.grid[0], dtype=torch.bool).scatter_(1, keep_ids, False)
    for row in range(6):
        changed = tokens.tokens_BTD.clone()
        changed[row // 3, masked[row]] += 10.0
        after = encoder(tokens=replace(tokens, tokens_BTD=changed), keep_ids_NK=keep_ids).x_NLD
        assert torch.equal(after[row], before[row])
    everything = torch.arange(tokens.grid[0]).expand(2, -1)
    kept_all = encoder(tokens=tokens, keep_ids_NK=everything).x_NLD
    assert torch.allclose(kept_all, encoder(tokens=tokens).x_NLD, atol=1e-5)


def test_the_bias_is_symmetric_alibi_of_original_positions() -> None:
    slopes, scale = alibi_slopes(HEADS), torch.tensor([1.0, 2.0, -1.0, 0.5], requires_grad=True)
    positions = torch.tensor([[0, 3, 4, 9]])
    bias = AttentionBias(positions_NL=positions, slopes_H=slopes, scale_H=scale).dense(torch.float32)
    for head, (slope, factor) in enumerate(zip(slopes.tolist(), (1.0, 2.0, 0.0, 0.5), strict=True)):
        expected = [[-slope * factor * abs(i - j) for j in (0, 3, 4, 9)] for i in (0, 3, 4, 9)]
        assert torch.allclose(bias[0, head], torch.tensor(expected))
    bias.sum().backward()
    assert scale.grad is not None
    assert (scale.grad[[0, 1, 3]] != 0).all()
    assert scale.grad[2] == 0  # a negative scale counts as 0


def test_slopes_of_twelve_heads_are_the_authors() -> None:
    expected = [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]
    assert torch.allclose(alibi_slopes(12).log2(), torch.tensor(expected))
    assert torch.allclose(alibi_slopes(16).log2(), -torch.arange(1, 17) / 2)


def test_mel_spectra_find_a_tone() -> None:
    stem = MelStem(AudioConfig(stem="mel"), WIDTH)
    filters = mel_filters(AudioConfig(stem="mel"))
    for hertz in (250.0, 1_000.0, 4_000.0):
        tone = torch.sin(2 * torch.pi * hertz * torch.arange(16_000) / 16_000)[None]
        spectra = stem.spectra(tone)[0]
        assert spectra.shape == (49, 80)
        loudest = spectra.view(49, 2, 40).argmax(-1)
        peak = filters[round(hertz * 400 / 16_000)].argmax()
        assert ((loudest - peak).abs() <= 1).all()


@pytest.mark.parametrize("name", ["audio_tiny", "audio_mel_tiny"])
def test_gradients_reach_every_trained_parameter_and_the_teacher_lacks_the_stem(name: str) -> None:
    torch.manual_seed(0)
    config = get_recipe(name).model
    model = Data2Vec2(config, AudioTools().build(config))
    assert model.teacher.modality.stem is None
    keep_ids = draw_keep_ids(config.masks, (config.modality.num_tokens(12_000),), 0, np.zeros(2, int), np.arange(2))
    out = model(torch.randn(2, 12_000), torch.from_numpy(keep_ids))
    (out.loss / out.num_rows).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without
    assert all(p.grad is None for p in model.teacher.parameters())


def test_layer_drop_leaves_blocks_out_in_training_only() -> None:
    torch.manual_seed(0)
    shape = EncoderConfig(embed_dim=WIDTH, num_heads=HEADS, prenet_depth=0, depth=8, layer_drop=0.5)
    encoder = Encoder(shape, AudioModality(config_of("mel"), WIDTH, HEADS))
    waves = torch.randn(1, 4_000)
    counts = {len(encoder.train()(waves).ffn_outputs) for _ in range(20)}
    assert len(counts) > 1
    assert max(counts) < 9
    assert len(encoder.eval()(waves).ffn_outputs) == 8
