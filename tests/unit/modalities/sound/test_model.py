"""Sounds: spectrograms as Kaldi has them, patches of any length, padding, positions, masks, and files of EAT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import ASTFeatureExtractor
from transformers.models.audio_spectrogram_transformer import feature_extraction_audio_spectrogram_transformer as ast

from data2vec2.config.model import ArchitectureConfig, EncoderConfig, ModelConfig, TargetConfig
from data2vec2.errors import UsageError
from data2vec2.method.encoder import Encoder
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.sound.config import SoundConfig
from data2vec2.modalities.sound.model import STEPS, SoundModality, SpectrogramStem

FILES = sorted((english_prompts() / "test" / "digits").iterdir())[:2]
SMALL = SoundConfig(num_mels=32, patch_size=8)


def encoder_of(modality: SoundConfig = SMALL) -> Encoder:
    config = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=1, depth=2)
    return build_encoder(ArchitectureConfig(modality=modality, encoder=config)).eval()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_spectrograms_are_those_of_kaldi(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As AST's extractor has them, which is tested against Kaldi's own; in its variant without torchaudio."""
    monkeypatch.setattr(ast, "is_speech_available", lambda: False)
    wave, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    extractor = ASTFeatureExtractor(do_normalize=False, max_length=1024)
    expected = extractor(wave, sampling_rate=rate, return_tensors="np")["input_values"][0]
    stem = SpectrogramStem(SoundConfig(spectrum_mean=0.0, spectrum_std=1.0), 8)
    [found] = stem.spectra(torch.from_numpy(wave)[None]).numpy()
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-3)
    assert not expected[len(found) :].any()


@pytest.mark.parametrize(("seconds", "steps"), [(0.1749, 0), (0.175, 1), (0.3349, 1), (0.335, 2), (10.0, 62)])
def test_tokens_of_a_length(seconds: float, steps: int) -> None:
    """A step is 16 frames of 10 ms, of which the last sees 15 ms more."""
    config, samples = SoundConfig(), round(seconds * 16_000)
    assert config.num_steps(samples) == steps
    assert config.num_tokens(samples) == steps * 8
    assert config.grid_of(samples) == (steps, 8)
    if steps:
        tokens = SoundModality(config, 16).tokens(torch.randn(1, samples))
        assert (tokens.tokens_BTD.shape[1], tokens.grid) == (steps * 8, (steps, 8))
    else:
        with pytest.raises(UsageError, match="2800 samples or more"):
            SoundModality(config, 16).tokens(torch.randn(1, samples))


def test_padding_changes_nothing() -> None:
    """Of features, their mean, and the CLS token, whatever stands behind."""
    encoder, wave, length = encoder_of(), torch.randn(1, 16_000), 9_000
    alone, filled = encoder(wave[:, :length]), encoder(wave, lengths_B=torch.tensor([length]))
    real = alone.features_NTD.shape[1]
    torch.testing.assert_close(filled.features_NTD[:, :real], alone.features_NTD)
    torch.testing.assert_close(filled.first(), alone.first())
    torch.testing.assert_close(filled.pooled(), alone.pooled())


def test_positions_go_on_as_long_as_the_sound() -> None:
    """Those of kept and of more steps are one table."""
    modality = SoundModality(SMALL, 16)
    steps = STEPS + 3
    table_TD = sincos_2d(16, (steps, SMALL.bands))
    assert torch.equal(modality.positions_TD, table_TD[: STEPS * SMALL.bands])
    tokens = modality.tokens(torch.zeros(1, SMALL.receptive_field + (steps - 1) * SMALL.hop))
    torch.testing.assert_close(modality.arrange(tokens).rows_NLD[0, 1:] - tokens.tokens_BTD[0], table_TD)


def test_the_student_does_not_hear_what_is_masked() -> None:
    """Sound that only masked patches see; frames overlap, so both neighbours in time are masked too."""
    encoder, wave = encoder_of(), torch.randn(1, SMALL.receptive_field + 5 * SMALL.hop)
    other = wave.clone()
    other[:, 2 * SMALL.hop + 400 : 3 * SMALL.hop] = 9 * torch.randn(1, SMALL.hop - 400)
    kept = torch.tensor([[0, 1, 2, 3, 4 * SMALL.bands, 4 * SMALL.bands + 3, 5 * SMALL.bands + 1]])
    first, second = (encoder(sound, keep_ids_NK=kept).x_NLD for sound in (wave, other))
    assert torch.equal(first, second)
    heard = kept.clone()
    heard[0, 4] = 2 * SMALL.bands
    assert not torch.equal(encoder(wave, keep_ids_NK=heard).x_NLD, encoder(other, keep_ids_NK=heard).x_NLD)


def test_loudness_counts_where_waveforms_keep_it() -> None:
    assert SoundConfig().unit_variance
    loud, quiet = (encoder_of(SMALL)(gain * torch.randn(1, 16_000)).pooled() for gain in (1.0, 0.1))
    assert not torch.allclose(loud, quiet, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"num_mels": 100}, {"patch_size": 0}, {"spectrum_std": 0.0}, {"num_mels": 8}, {"sample_rate": 1}),
        *({"num_frames": 24}, {"num_frames": -16}),
    ],
)
def test_what_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SoundConfig(**wrong)


def eat_file(path: Path, model: Data2Vec2, **image: Any) -> dict[str, Tensor]:
    """A file as EAT saves it, of the model's weights: names of its tensors, and its configuration."""
    encoder = model.config.encoder
    positions = sincos_2d(encoder.embed_dim, (64, 8))[None]
    tensors: dict[str, Tensor] = {}
    for prefix, part in (("", model.student), ("_ema.", model.teacher)):
        own = part.modality
        found = {
            "modality_encoders.IMAGE.extra_tokens": own.cls_token,
            "modality_encoders.IMAGE.local_encoder.proj.weight": own.stem.patches.weight,
            "modality_encoders.IMAGE.local_encoder.proj.bias": own.stem.patches.bias,
            "modality_encoders.IMAGE.fixed_positional_encoder.positions": positions,
            "modality_encoders.IMAGE.context_encoder.norm.weight": part.norm.weight,
            "modality_encoders.IMAGE.context_encoder.norm.bias": part.norm.bias,
            **{f"blocks.{name}": tensor for name, tensor in part.blocks.state_dict().items()},
        }
        tensors |= {f"{prefix}{name}": tensor.detach().clone() for name, tensor in found.items()}
    for place, conv in enumerate(model.decoder.convs):
        for name, tensor in conv.state_dict().items():
            tensors[f"modality_encoders.IMAGE.decoder.blocks.{place}.0.{name}"] = tensor.clone()
    for name, tensor in model.decoder.proj.state_dict().items():
        tensors[f"modality_encoders.IMAGE.decoder.proj.{name}"] = tensor.clone()
    student = {name: tensor for name, tensor in tensors.items() if not name.startswith("_ema.")}
    teacher = {name.removeprefix("_ema."): tensor for name, tensor in tensors.items() if name.startswith("_ema.")}
    decoder = {"decoder_dim": 16, "decoder_groups": 4, "decoder_kernel": 3, "decoder_layers": 2, "input_dropout": 0}
    own = {
        "type": "IMAGE",
        "in_chans": 1,
        "target_length": 1024,
        "inverse_mask": True,
        "mask_prob": 0.8,
        "mask_prob_adjust": 0.07,
        "mask_length": 5,
        "prenet_depth": 0,
        "num_extra_tokens": 1,
        "decoder": decoder,
        **image,
    }
    shape = {"embed_dim": 16, "num_heads": 2, "depth": 2, "norm_eps": 1e-6, "average_top_k_layers": 2}
    norms = {"instance_norm_target_layer": True, "layer_norm_targets": True}
    model_cfg = {"_name": "data2vec_multi", "clone_batch": 16, "cls_loss": 1, "supported_modality": "IMAGE"}
    cfg = {
        "model": {**model_cfg, **shape, **norms, "modalities": {"image": own}},
        "task": {"_name": "mae_image_pretraining", "audio_mae": True, "target_length": 1024},
        "dataset": {"batch_size": 12},
    }
    torch.save({"cfg": cfg, "model": {**student, "_ema": teacher}}, path)
    return student


def test_files_of_eat(tmp_path: Path) -> None:
    """Such a file becomes an export whose features are the model's; it hears spectrograms as EAT does."""
    from data2vec2.interop.folder import load_encoder
    from tests.integration.helpers import run_here

    modality = SoundConfig(spectrum_mean=-4.268, spectrum_std=9.138, unit_variance=False)
    shape = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2, norm_eps=1e-6)
    config = ModelConfig(modality=modality, encoder=shape, targets=TargetConfig(average_layers=2))
    config = ModelConfig(
        **{**{name: getattr(config, name) for name in ("modality", "encoder", "targets", "masks", "loss")}},
        decoder=type(config.decoder)(depth=2, dim=16, groups=4),
    )
    model = Data2Vec2(config, SoundModality.of(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    eat_file(tmp_path / "eat.pt", model)
    assert run_here(["convert", tmp_path / "eat.pt", tmp_path / "out"]) == 0
    encoder, info = load_encoder(tmp_path / "out")
    assert info.model.modality == modality
    wave, _ = soundfile.read(FILES[0], dtype="float32")
    waves = torch.from_numpy(wave)[None]
    assert torch.equal(encoder(waves).x_NLD, model.student(waves).x_NLD)
    assert run_here(["convert", tmp_path / "eat.pt", tmp_path / "teacher", "--weights", "teacher"]) == 0
    teacher, _ = load_encoder(tmp_path / "teacher")
    assert torch.equal(teacher(waves).x_NLD, model.teacher(waves).x_NLD)


def test_files_of_eat_that_are_not_as_they_should_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.integration.helpers import run_here

    config = ModelConfig(
        modality=SoundConfig(),
        encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2),
        targets=TargetConfig(average_layers=2),
    )
    model = Data2Vec2(config, SoundModality.of(config))
    eat_file(tmp_path / "colour.pt", model, in_chans=3)
    assert run_here(["convert", tmp_path / "colour.pt", tmp_path / "out"]) == 1
    assert "in_chans is 3, and only 1 can be converted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_features_of_patches_and_of_the_whole(tmp_path: Path) -> None:
    """All patches, their mean, and the CLS token; also of what is longer than a window."""
    import pyarrow.parquet as pq

    import data2vec2
    from data2vec2.interop.folder import export_model
    from data2vec2.modalities.data import ModelInfo
    from data2vec2.modalities.sound.config import SoundDataConfig

    encoder, sounds = encoder_of(), tmp_path / "sounds"
    sounds.mkdir()
    wave, _ = soundfile.read(FILES[0], dtype="float32")
    soundfile.write(sounds / "a.wav", wave, 16_000)
    soundfile.write(sounds / "long.wav", np.tile(wave, 70 * 16_000 // len(wave) + 1), 16_000)
    shape = ArchitectureConfig(modality=SMALL, encoder=encoder.config)
    export_model(encoder, ModelInfo(model=shape, data=SoundDataConfig()), tmp_path / "m", "")
    rows = {}
    for pool in ("mean", "none", "cls"):
        data2vec2.embed(tmp_path / "m", sounds, out=tmp_path / f"{pool}.parquet", pool=pool, device="cpu")
        rows[pool] = pq.read_table(tmp_path / f"{pool}.parquet").to_pylist()
    short = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-5))[None]
    seen = encoder(short)
    for pool, expected in (
        ("mean", seen.pooled()[0]),
        ("none", seen.features_NTD[0].flatten()),
        ("cls", seen.first()[0]),
    ):
        np.testing.assert_allclose(rows[pool][0]["features"], expected.detach(), atol=1e-4)
    patches = np.reshape(rows["none"][1]["features"], (-1, 16))
    assert len(patches) == SMALL.num_tokens(70 * 16_000 // len(wave) * len(wave) + len(wave))
    np.testing.assert_allclose(rows["mean"][1]["features"], patches.mean(0), atol=1e-4)
    assert np.isfinite(rows["cls"][1]["features"]).all()


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs; no note is in both parts, and the bundled parts are what their page says."""
    import json

    import pyarrow.parquet as pq

    from data2vec2.modalities.sound import instrument_notes
    from tests.integration.helpers import SMALL, run_here, words

    train, test = (pq.read_table(instrument_notes() / f"{part}.parquet") for part in ("train", "test"))
    assert (len(train), len(test)) == (405, 208)
    names = [{row["path"] for row in part["audio"].to_pylist()} for part in (train, test)]
    assert not names[0] & names[1]
    assert (
        set(train["label"].to_pylist()) == set(test["label"].to_pylist()) and len(set(test["label"].to_pylist())) == 12
    )
    run = tmp_path / "run"
    assert run_here(["demo", "sound", "--out", run, *SMALL, *words("--train.updates 3 --train.eval-every 0")]) == 0
    assert "208 test sounds" in capsys.readouterr().out
    scores = json.loads((run / "scores.json").read_text())
    assert scores["test_samples"] == 208 and (run / "report.html").exists()
