"""What tasks on recordings share."""

from __future__ import annotations

from dataclasses import replace

from data2vec2.commands.kinds import Log
from data2vec2.config import AudioConfig, AudioFinetuneConfig, ModelConfig
from data2vec2.data.audio import AudioReader, survey_audio
from data2vec2.data.skipped import Skipped
from data2vec2.interop.export import ExportInfo
from data2vec2.models import Encoder
from data2vec2.models.encoder import prepare_finetuning


def audio_config(shape: ModelConfig) -> AudioConfig:
    """The modality's own."""
    assert isinstance(shape.modality, AudioConfig)
    return shape.modality


def checked(config: AudioFinetuneConfig, info: ExportInfo) -> AudioFinetuneConfig:
    """The configuration, in which nothing is frozen that was never trained; `ValueError` if masks are too wide."""
    width, length = info.model.encoder.embed_dim, config.masks.channel_length
    if config.masks.channel_share and length > width:
        raise ValueError(f"masks.channel_length is {length}; it must be at most {width}, the model's width")
    if config.from_scratch:
        return replace(config, model=replace(config.model, freeze_updates=0, freeze_stem=False))
    return config


def prepare(config: AudioFinetuneConfig, encoder: Encoder) -> Encoder:
    """The encoder with the dropouts of fine-tuning, and a frozen stem."""
    model = config.model
    prepare_finetuning(
        encoder,
        layer_drop=model.layer_drop,
        activation_dropout=model.activation_dropout,
        freeze_stem=model.freeze_stem,
    )
    return encoder


def survey(reader: AudioReader, skipped: Skipped, log: Log) -> None:
    """Say how much there is, and note what can't be used."""
    found = survey_audio(reader)
    log(f"data: {60 * found.hours:.1f} minutes; recordings of {found.shortest_s:.1f} to {found.longest_s:.1f} s")
    skipped.leave_out(found.left_out)
    if skipped.add(found.bad, found.checked):
        log(f"data: {len(found.bad)} of {found.checked} looked at can't be used: {skipped.summary()}")
