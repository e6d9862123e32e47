"""Values that can't be are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.config.run import EmaConfig, OptimConfig, TrainConfig
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio.config import AudioConfig, AudioFinetuneDataConfig, AudioHeadConfig, SpanMaskConfig
from data2vec2.modalities.audio.recipes import ctc_tiny
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageFinetuneDataConfig
from data2vec2.modalities.image.recipes import image_finetune_base

# Configuration, field as the message names it, impossible values
WRONG: list[tuple[type, str, tuple[Any, ...]]] = [
    (ImageConfig, "model.modality.patch_size", (0, -4)),
    (ImageConfig, "model.modality.image_size", (0, 8, 225)),
    (ImageConfig, "model.modality.num_channels", (0, -1)),
    (EncoderConfig, "model.encoder.embed_dim", (0, -12)),
    (EncoderConfig, "model.encoder.mlp_ratio", (0.0, -4.0, float("nan"), float("inf"))),
    (DecoderConfig, "model.decoder.dim", (0, -16)),
    (EncoderConfig, "model.encoder.num_heads", (0, -1, 7)),
    (EncoderConfig, "model.encoder.depth", (0,)),
    (EncoderConfig, "model.encoder.prenet_depth", (-1,)),
    (EncoderConfig, "model.encoder.norm_eps", (0.0,)),
    (EncoderConfig, "model.encoder.dropout", (-0.1, 1.0)),
    (EncoderConfig, "model.encoder.attention_dropout", (-0.1, 1.0, float("nan"))),
    (MaskConfig, "model.masks.num_masks", (0,)),
    (MaskConfig, "model.masks.mask_ratio", (0.0, 1.0, -1.0, float("nan"))),
    (MaskConfig, "model.masks.adjust", (-0.1, 1.0)),
    (MaskConfig, "model.masks.block_length", (0,)),
    (DecoderConfig, "model.decoder.depth", (0,)),
    (DecoderConfig, "model.decoder.kernel", (0, 2, -1)),
    (DecoderConfig, "model.decoder.groups", (0, 7)),
    (DecoderConfig, "model.decoder.projection_depth", (0, 3)),
    (DecoderConfig, "model.decoder.input_dropout", (1.0,)),
    (DecoderConfig, "model.decoder.noise_std", (-0.01,)),
    (TargetConfig, "model.targets.average_layers", (0,)),
    (LossConfig, "model.loss.scale", (0.0, -1.0)),
    (LossConfig, "model.loss.beta", (-1.0,)),
    (LossConfig, "model.loss.cls_loss_weight", (-1.0,)),
    (OptimConfig, "optim.lr", (0.0, -1e-3, float("nan"))),
    (OptimConfig, "optim.lr_batch", (0,)),
    (OptimConfig, "optim.warmup_updates", (-1,)),
    (OptimConfig, "optim.beta1", (1.0, -0.1)),
    (OptimConfig, "optim.beta2", (1.0,)),
    (OptimConfig, "optim.eps", (0.0,)),
    (OptimConfig, "optim.weight_decay", (-0.1,)),
    (OptimConfig, "optim.clip_norm", (0.0,)),
    (EmaConfig, "ema.start", (-0.1, 1.1)),
    (EmaConfig, "ema.end", (-0.1, 1.1)),
    (EmaConfig, "ema.anneal_updates", (-1,)),
    (ImageDataConfig, "data.min_crop", (0.0, 1.1)),
    (ImageDataConfig, "data.eval_crop", (0.0, 1.1)),
    (ImageDataConfig, "data.std", ((0.5,),)),
    (ImageDataConfig, "data.val_fraction", (1.0, -0.1)),
    (ImageDataConfig, "data.max_bad", (-0.1, 1.1)),
    (ImageDataConfig, "data.workers", (-1,)),
    (AudioConfig, "model.modality.num_extra_tokens", (-1,)),
    (AudioHeadConfig, "model.dropout", (-0.1, 1.0)),
    (AudioHeadConfig, "model.activation_dropout", (-0.1, 1.0)),
    (AudioHeadConfig, "model.layer_drop", (-0.1, 1.0)),
    (AudioHeadConfig, "model.freeze_updates", (-1,)),
    (SpanMaskConfig, "masks.time_share", (-0.1, float("inf"), float("nan"))),
    (SpanMaskConfig, "masks.channel_share", (-0.1, float("inf"))),
    (SpanMaskConfig, "masks.time_length", (0,)),
    (SpanMaskConfig, "masks.channel_length", (0,)),
    (SpanMaskConfig, "masks.noise_std", (-0.1,)),
    (AudioFinetuneDataConfig, "data.max_minutes", (0.0, -1.0)),
    (AudioFinetuneDataConfig, "data.labels_per_class", (0,)),
    (TrainConfig, "train.updates", (0, -1)),
    (TrainConfig, "train.batch_size", (0,)),
    (TrainConfig, "train.micro_batch", (0, 512)),
    (TrainConfig, "train.seed", (-1,)),
    (TrainConfig, "train.log_every", (0,)),
    (TrainConfig, "train.eval_every", (-1,)),
    (TrainConfig, "train.save_every", (0,)),
    (TrainConfig, "train.keep", (0,)),
]


@pytest.mark.parametrize(("kind", "field", "values"), WRONG, ids=[field for _, field, _ in WRONG])
def test_a_wrong_value_is_refused_with_field_and_value(kind: type, field: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError) as caught:
            kind(**{field.split(".")[-1]: value})
        message = str(caught.value)
        assert message.startswith(f"{field} is {value!r}; it must be "), message


def _setters(part: Any, value: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """For every number in a part and its parts: the field's name, and what makes the part with `value` there."""
    for field in fields(part):
        own = getattr(part, field.name)
        if isinstance(own, float):
            yield field.name, partial(replace, part, **{field.name: value})
        elif is_dataclass(own):
            for name, make in _setters(own, value):
                yield name, lambda make=make, field=field: replace(part, **{field.name: make()})


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_every_number_is_finite(value: float) -> None:
    """Whichever field it is, in both kinds of configuration."""

    def refused(config: Any) -> Iterator[str]:
        for field in fields(config):
            own = getattr(config, field.name)
            for name, make in _setters(own, value) if is_dataclass(own) else []:
                with pytest.raises(ValueError, match=rf"{re.escape(name)} is {value}; it must be"):
                    replace(config, **{field.name: make()})
                yield name

    assert len(list(refused(get_recipe("image_tiny")))) > 20
    assert len(list(refused(image_finetune_base()))) > 10


def test_parts_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.targets\.average_layers is 5; it must be at most .* \(4\)"):
        ModelConfig(modality=ImageConfig(), encoder=EncoderConfig(depth=4), targets=TargetConfig(average_layers=5))
    with pytest.raises(ValueError, match=r"model\.decoder\.groups is 16; it must be a divisor of .* \(60\)"):
        ModelConfig(modality=ImageConfig(), encoder=EncoderConfig(embed_dim=60), decoder=DecoderConfig(groups=16))


def test_data_of_another_modality_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.kind is 'audio'; it must be 'image', as model\.modality\.kind"):
        replace(get_recipe("image_tiny"), data=AudioFinetuneDataConfig())
    with pytest.raises(ValueError, match=r"data\.kind is 'image'; it must be 'audio', as task\.kind"):
        replace(ctc_tiny(), data=ImageFinetuneDataConfig())


def test_pictures_are_mixed_in_pairs() -> None:
    with pytest.raises(
        ValueError, match=r"train\.batch_size is 6; it must be a multiple of 4, because .* mixed in pairs"
    ):
        replace(image_finetune_base(), train=TrainConfig(batch_size=6, processes=2))


def test_a_batch_of_audio_has_room_for_the_longest_recording() -> None:
    with pytest.raises(ValueError, match=r"train\.batch_size is 32; it must be at least 40 seconds"):
        replace(ctc_tiny(), train=TrainConfig(batch_size=32, processes=2))


def test_a_configuration_can_not_be_changed_by_accident() -> None:
    with pytest.raises(AttributeError):
        get_recipe("image_base").train.updates = 3  # type: ignore[misc]


def test_grid() -> None:
    assert ImageConfig(image_size=224, patch_size=16).grid == (14, 14)
    assert ImageConfig(image_size=28, patch_size=28).grid == (1, 1)
