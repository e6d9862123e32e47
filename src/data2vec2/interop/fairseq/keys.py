"""Tensors of the original data2vec 2.0 and ours: one table of names, read in both directions.

A pre-trained file holds the student, the decoder and, under `_ema`, the teacher. The fixed image positions are in the
file but not parameters of ours: they are checked, and what stood in the file is kept as it was. EAT's files are those
of an image model that sees spectrograms; emotion2vec's those of an audio model with extra tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.sound.config import SoundConfig
from data2vec2.modalities.text.config import TextConfig

KINDS = ("image", "audio", "text")
CALLED = {"sound": "image"}
"""Kinds of ours by the original's name, where that is another."""
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
OLD_POSITIONS = "positional_encoder.pos_embed"
"""How the name of the positions ends in old files."""
EMBEDDING = "modality_encoders.TEXT.local_encoder.embed_tokens.weight"
STRAY = "encoder_mask"
"""A tensor of old files that means nothing."""

# M: "modality_encoders.IMAGE" or another; E: "student" or "teacher"; #: a number (P: the prenet's depth); *: the rest.
# whose          the original's name                              ours
KEYS = (
    ("image",        "M.extra_tokens",                            "E.modality.cls_token"),
    ("image",        "M.local_encoder.proj.*",                    "E.modality.stem.*"),
    ("sound",        "M.extra_tokens",                            "E.modality.cls_token"),
    ("sound",        "M.local_encoder.proj.*",                    "E.modality.stem.patches.*"),
    ("audio",        "M.alibi_scale",                             "E.modality.alibi_scale_H"),
    ("audio",        "M.extra_tokens",                            "E.modality.extra_tokens_1ED"),
    ("audio",        "M.local_encoder.conv_layers.#.0.weight",    "E.modality.stem.convs.#.weight"),
    ("audio",        "M.local_encoder.conv_layers.#.2.1.*",       "E.modality.stem.norms.#.*"),
    ("audio",        "M.project_features.1.*",                    "E.modality.stem.norm.*"),
    ("audio",        "M.project_features.2.*",                    "E.modality.stem.proj.*"),
    ("audio",        "M.relative_positional_encoder.#+1.0.*",     "E.modality.positions.convs.#.*"),
    ("text",         "M.local_encoder.embed_tokens.*",            "E.modality.stem.tokens.*"),
    ("text",         "M.local_encoder.embed_positions.*",         "E.modality.stem.positions.*"),
    ("text",         "M.local_encoder.layernorm_embedding.*",     "E.modality.stem.norm.*"),
    ("text teacher", "#.*",                                       "E.blocks.#+P.*"),  # it is the trunk alone
    ("",             "M.context_encoder.norm.*",                  "E.norm.*"),
    ("",             "M.context_encoder.blocks.#<P.*",            "E.blocks.#.*"),
    ("",             "blocks.#.*",                                "E.blocks.#+P.*"),
    ("student",      "M.decoder.blocks.#.0.*",                    "decoder.convs.#.*"),
    ("student",      "M.decoder.proj.*",                          "decoder.proj.*"),
    ("image head",   "fc_norm.*",                                 "norm.*"),
    ("image head",   "head.*",                                    "head.*"),
    ("sound head",   "fc_norm.*",                                 "norm.*"),
    ("sound head",   "head.*",                                    "head.*"),
    ("audio head",   "proj.*",                                    "head.*"),
    ("audio letters", "w2v_encoder.proj.*",                       "head.*"),
    ("text head",    "classification_heads.dense.*",              "dense.0.*"),
    ("text head",    "classification_heads.out_proj.*",           "head.*"),
)  # fmt: skip


def _translate(name: str, kind: str, part: str, prenet_depth: int, *, source: int) -> str:
    """The name in the other column; `part`: student, teacher, head (classes) or letters.

    `KeyError` if the table has no place for it.
    """
    shifts = {"#": 0, "#<P": 0, "#+1": 1, "#+P": prenet_depth}
    groups = {"*": "(?P<rest>.+)", **dict.fromkeys(shifts, r"(?P<number>\d+)")}
    for whose, *columns in KEYS:
        words = {kind, part} if part in ("head", "letters") else set(whose.split())
        if words != set(whose.split()) or not words <= {kind, part}:
            continue
        full = [re.sub(r"^M\.", f"modality_encoders.{CALLED.get(kind, kind).upper()}.", c) for c in columns]
        pieces = [re.split(r"(#(?:\+1|\+P|<P)?|\*)", re.sub(r"^E\.", f"{part}.", c)) for c in full]
        match = re.fullmatch("".join(groups.get(piece, re.escape(piece)) for piece in pieces[source]), name)
        if match is None:
            continue
        found = match.groupdict()
        number = int(found.get("number") or 0) - next((shifts[p] for p in pieces[source] if p in shifts), 0)
        if number < 0 or ("#<P" in pieces[0] and number >= prenet_depth):
            continue
        filled = {"*": found.get("rest", ""), **{sign: str(number + shift) for sign, shift in shifts.items()}}
        return "".join(filled.get(piece, piece) for piece in pieces[1 - source])
    raise KeyError(f"unknown key {name!r} in a data2vec 2.0 model")


our_name, original_name = partial(_translate, source=0), partial(_translate, source=1)


def our_tensors(
    model: ArchitectureConfig, student: Mapping[str, Tensor], ema: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict for `Data2Vec2` from an original file's `model` entries and its nested `_ema`, and leftovers.

    Leftovers have no place in our model, but belong into a file of the original: `student.NAME` and `teacher.NAME`.
    `KeyError` for a key that has no place, `ValueError` for stored positions that are not the ones we compute.
    """
    ours, left = {}, {}
    for part, tensors in (("student", student), ("teacher", ema)):
        for name, tensor in tensors.items():
            if name == POSITIONS or name.endswith(OLD_POSITIONS):
                _check_positions(model, name, tensor)
                left[f"{part}.{POSITIONS}"] = tensor
            elif not name.endswith(STRAY):
                ours_name = our_name(name, model.modality.kind, part, model.encoder.prenet_depth)
                ours[ours_name] = tensor.flatten() if ours_name.endswith("alibi_scale_H") else tensor
    return ours, left


def original_tensors(
    model: ArchitectureConfig, ours: Mapping[str, Tensor], left: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Undo `our_tensors`: the `model` entries, and the teacher's for `_ema`.

    `left` is none for a model that was never the original's: it gets what belongs into a file. `ValueError` for
    positions that the original has not.
    """
    modality, encoder = model.modality, model.encoder
    parts: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}}
    for name, tensor in ours.items():
        if name.endswith("alibi_scale_H"):
            tensor = tensor.view(1, 1, -1, 1, 1)
        elif name == "student.modality.stem.tokens.weight" and isinstance(modality, TextConfig):
            tensor = tensor * modality.token_scale  # the original has no factor beside the embeddings
        part = "teacher" if name.startswith("teacher.") else "student"
        parts[part][original_name(name, modality.kind, part, encoder.prenet_depth)] = tensor
    if left is None and isinstance(modality, ImageConfig):
        if modality.position_grid != modality.grid:
            raise ValueError("it sees pictures of another size than it was pre-trained with")
        positions = sincos_2d(encoder.embed_dim, modality.grid)[None]
        left = {f"{part}.{POSITIONS}": positions.clone() for part, found in parts.items() if found}
    for name, tensor in (left or {}).items():
        part, _, original = name.partition(".")
        parts[part][original] = tensor
    return parts["student"], parts["teacher"]


def _check_positions(model: ArchitectureConfig, name: str, tensor: Tensor) -> None:
    """`ValueError` for positions that are not ours, as far as half precision shows."""
    if not isinstance(model.modality, ImageConfig | SoundConfig):
        raise ValueError(f"{name} in a model of {model.modality.kind}")
    if isinstance(model.modality, SoundConfig):  # of clips of one length, while ours may have any
        bands = model.modality.bands
        expected = sincos_2d(model.encoder.embed_dim, (tensor.shape[1] // bands, bands))
    else:
        expected = sincos_2d(model.encoder.embed_dim, model.modality.position_grid)
    if tensor.shape[1:] != expected.shape or not (tensor[0].float() - expected).abs().max() <= 2e-3:
        raise ValueError(f"{name} is not the 2-D sine-cosine table for its grid of patches")
