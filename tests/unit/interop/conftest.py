"""A small encoder with weights that no initialiser would give it, and its exported folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data2vec2.config.model import DecoderConfig, EncoderConfig, ModelConfig, TargetConfig
from data2vec2.interop.folder import export_model
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig


def small_config(num_channels: int = 3) -> ModelConfig:
    return ModelConfig(
        modality=ImageConfig(image_size=24, patch_size=8, num_channels=num_channels),
        encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=1, depth=2, norm_eps=1e-5),
        decoder=DecoderConfig(dim=16, groups=4),
        targets=TargetConfig(average_layers=2),
    )


def make_encoder(config: ModelConfig) -> Encoder:
    """An encoder in eval mode whose every parameter is N(0.3, 1)."""
    encoder = build_encoder(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0.3, 1, generator=generator)
    return encoder


def export(
    encoder: Encoder, config: ModelConfig, folder: Path, card: str = "# A model\n", eval_crop: float = 0.875
) -> None:
    channels = config.modality.channels
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    data = ImageDataConfig(mean=mean, std=std, eval_crop=eval_crop)
    export_model(encoder, ModelInfo(model=config, data=data), folder, card)


@pytest.fixture
def config() -> ModelConfig:
    return small_config()


@pytest.fixture
def encoder(config: ModelConfig) -> Encoder:
    return make_encoder(config)


@pytest.fixture
def exported(encoder: Encoder, config: ModelConfig, tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    export(encoder, config, folder)
    return folder


@pytest.fixture
def pictures(config: ModelConfig) -> torch.Tensor:
    return torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def garbage_in_new_tensors():
    """Fill memory that nobody has initialised with NaN, so that whoever reads it is found out."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
