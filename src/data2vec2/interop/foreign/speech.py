"""Speech: data2vec 1, wav2vec 2.0 and HuBERT, in both orders of norms.

Shapes: `D` width, `G` groups, `K` kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UserError
from data2vec2.interop.foreign.family import Fields, Foreign, Tensors, encoder_of, translated, without_prefix
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig

NAMES = {"wav2vec2": "wav2vec 2.0", "hubert": "HuBERT", "data2vec-audio": "data2vec 1 (speech)"}
"""Families by their `model_type`."""
PREFIXES = ("wav2vec2.", "hubert.", "data2vec_audio.")

# theirs                                                   ours
TABLE = (
    ("feature_extractor.conv_layers.#.conv.*",             "modality.stem.convs.#.*"),
    ("feature_extractor.conv_layers.#.layer_norm.*",       "modality.stem.norms.#.*"),
    ("feature_projection.layer_norm.*",                    "modality.stem.norm.*"),
    ("feature_projection.projection.*",                    "modality.stem.proj.*"),
    ("encoder.pos_conv_embed.layers.#.conv.*",             "modality.positions.convs.#.*"),  # data2vec
    ("encoder.pos_conv_embed.conv.*",                      "modality.positions.convs.0.*"),
    ("encoder.layer_norm.*",                               "norm.*"),
    ("encoder.layers.#.attention.q_proj.*",                "blocks.#.attn.q.*"),
    ("encoder.layers.#.attention.k_proj.*",                "blocks.#.attn.k.*"),
    ("encoder.layers.#.attention.v_proj.*",                "blocks.#.attn.v.*"),
    ("encoder.layers.#.attention.out_proj.*",              "blocks.#.attn.proj.*"),
    ("encoder.layers.#.layer_norm.*",                      "blocks.#.norm1.*"),
    ("encoder.layers.#.feed_forward.intermediate_dense.*", "blocks.#.mlp.fc1.*"),
    ("encoder.layers.#.feed_forward.output_dense.*",       "blocks.#.mlp.fc2.*"),
    ("encoder.layers.#.final_layer_norm.*",                "blocks.#.norm2.*"),
)  # fmt: skip
DROPPED = (
    "masked_spec_embed",
    *("quantizer.*", "project_q.*", "project_hid.*"),  # of pre-training
    *("lm_head.*", "projector.*", "classifier.*", "layer_weights"),  # of fine-tuning
)
POSITION = "encoder.pos_conv_embed.conv."
NORMED = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
"""What a weight-normed convolution has in place of its weight: lengths and directions."""


def read_speech(fields: Fields, tensors: Mapping[str, Tensor], folder: Path, processor: Fields | None) -> Foreign:
    """A model of one of `NAMES`; `UserError` for a field that can't be."""
    kind = str(fields.values["model_type"])
    for name in ("hidden_act", "feat_extract_activation"):
        fields.only(name, "gelu")
    fields.only("add_adapter", False)
    fields.only("adapter_attn_dim", None)
    fields.only("feat_proj_layer_norm", True)
    fields.only("conv_pos_batch_norm", False)
    fields.only("layer_norm_eps", 1e-5)
    own, stable = kind == "data2vec-audio", bool(fields.only("do_stable_layer_norm", False, True))
    group = not own and fields.only("feat_extract_norm", "group", "layer") == "group"
    channels = fields.numbers("conv_dim", (512,) * 7)
    if len(set(channels)) != 1:
        raise UserError(f"{fields.path}: conv_dim is {list(channels)}; all layers must have the same channels")
    rate, notes = 16_000, list[str]()
    if processor is None:
        notes.append(f"no preprocessor_config.json: taken to be made for {rate:,} Hz")
    else:
        rate = processor.whole("sampling_rate", rate)
        processor.only("feature_size", 1)
        if not group:  # that norm takes away what normalising would
            processor.only("do_normalize", True)
    depth = fields.whole("num_conv_pos_embeddings", 5) if own else 1
    if depth > len(tensors):
        few = f"the weights have only {len(tensors):,} tensors"
        raise UserError(f"{fields.path}: num_conv_pos_embeddings is {depth:,}, and {few}")
    one, several = ("num_conv_pos_embeddings", 128), ("conv_pos_kernel_size", 19)
    modality = AudioConfig(
        sample_rate=rate,
        stem_norm="group" if group else "layer",
        conv_dim=channels[0],
        conv_kernels=fields.numbers("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
        conv_strides=fields.numbers("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
        conv_bias=bool(fields.only("conv_bias", False, True)),
        position_depth=depth,
        position_kernel=fields.whole(*(several if own else one)),
        position_groups=fields.whole("num_conv_pos_embedding_groups", 16),
        position_norm=own,
        alibi=False,
    )
    encoder = encoder_of(fields, hidden=fields.whole("intermediate_size", 3072), eps=1e-5, pre_norm=stable)
    plain = _folded(without_prefix(tensors, PREFIXES))
    found, dropped = translated(plain, TABLE, DROPPED, folder)
    return Foreign(
        family=NAMES[kind],
        model=ArchitectureConfig(modality=modality, encoder=encoder),
        tensors=found,
        data=AudioDataConfig(min_seconds=modality.receptive_field / rate),
        dropped=dropped,
        notes=tuple(notes),
    )


def _folded(tensors: Tensors) -> Tensors:
    """With the position's weight itself in place of its lengths `11K` and directions `D x D/G x K`."""
    for names in NORMED:
        g, v = (f"{POSITION}{name}" for name in names)
        if g in tensors and v in tensors:
            tensors = dict(tensors)
            length_11K, direction = tensors.pop(g).float(), tensors.pop(v).float()
            norm_11K = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
            tensors[f"{POSITION}weight"] = direction * (length_11K / norm_11K)
    return tensors
