"""The exported folder of an audio encoder as a Transformers model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from data2vec2.config.model import EncoderConfig, ModelConfig
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.method.encoder import Encoder
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.transformers import Data2Vec2AudioConfig, Data2Vec2AudioModel
from data2vec2.modalities.data import ModelInfo
from tests.unit.interop.conftest import make_encoder


def small_config(stem: str) -> ModelConfig:
    tiny = get_recipe("audio_tiny").model
    return replace(
        tiny,
        modality=AudioConfig(stem=stem, conv_dim=8, position_groups=4),
        encoder=EncoderConfig(embed_dim=16, num_heads=4, prenet_depth=1, depth=2, norm_eps=1e-5, layer_drop=0.1),
        decoder=replace(tiny.decoder, dim=16, groups=4),
        targets=replace(tiny.targets, average_layers=2),
    )


@pytest.fixture(params=["waveform", "mel"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make_encoder(small_config(request.param))


@pytest.fixture
def exported(encoder: Encoder, tmp_path: Path) -> Path:
    model = small_config(encoder.modality.config.stem)
    export_model(encoder, ModelInfo(model=model, data=AudioDataConfig()), tmp_path / "exported", "# A model\n")
    return tmp_path / "exported"


@pytest.fixture
def garbage_in_new_tensors() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def clips() -> list[np.ndarray]:
    """Two recordings of unlike length, neither of them normalised."""
    draw = np.random.default_rng(0)
    return [0.3 + draw.standard_normal(9_000).astype(np.float32), 5 * draw.standard_normal(4_321).astype(np.float32)]


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_auto_model_gives_the_exported_encoder(encoder: Encoder, exported: Path, tmp_path: Path) -> None:
    model, report = AutoModel.from_pretrained(exported, output_loading_info=True)
    assert isinstance(model, Data2Vec2AudioModel)
    assert isinstance(AutoConfig.from_pretrained(exported), Data2Vec2AudioConfig)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    theirs = dict(model.encoder.named_parameters()) | dict(model.encoder.named_buffers())
    ours = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert again.config.to_model_config().modality == encoder.modality.config


def test_a_padded_batch_gives_what_the_recordings_give_alone(encoder: Encoder, exported: Path) -> None:
    extractor, model = AutoFeatureExtractor.from_pretrained(exported), AutoModel.from_pretrained(exported)
    batch = extractor(clips(), sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
        for row, clip in enumerate(clips()):
            waveform = torch.from_numpy((clip - clip.mean()) / np.sqrt(clip.var() + 1e-7))[None]
            alone = encoder(waveform)
            tokens = alone.features_NTD.shape[1]
            assert (output.last_hidden_state[row, :tokens] - alone.features_NTD[0]).abs().max() < 1e-5
            assert (output.pooler_output[row] - alone.pooled()[0]).abs().max() < 1e-5
    assert len(output.hidden_states) == 4


def test_another_rate_is_refused(exported: Path) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(exported)
    with pytest.raises(ValueError, match="sampling rate"):
        extractor(clips(), sampling_rate=8_000)


def test_load_encoder_gives_the_same(encoder: Encoder, exported: Path) -> None:
    loaded, info = load_encoder(exported)
    assert (info.model.modality, info.model.encoder) == (encoder.modality.config, encoder.config)
    assert isinstance(info.data, AudioDataConfig)
    waveforms = torch.randn(2, 5_000)
    with torch.no_grad():
        assert torch.equal(loaded(waveforms).x_NLD, encoder(waveforms).x_NLD)
