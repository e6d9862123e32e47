"""Text: BERT, RoBERTa and what has their shape, with their tokenizers.

Shapes: `T` positions, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UserError
from data2vec2.interop.foreign.family import Fields, Foreign, Tensors, encoder_of, translated, without_prefix
from data2vec2.modalities.data import narrow
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import TOKENIZER_FILES, load_tokenizer

NAMES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "xlm-roberta": "XLM-RoBERTa",
    "camembert": "CamemBERT",
    "data2vec-text": "data2vec 1 (text)",
}
"""Families by their `model_type`."""
PREFIXES = ("bert.", "roberta.", "data2vec_text.")
FROM_ZERO = {"bert"}
"""Families whose positions begin at 0; those of the others begin behind the id of padding, as ours."""

# theirs                                             ours
TABLE = (
    ("embeddings.word_embeddings.weight",            "modality.stem.tokens.weight"),
    ("embeddings.position_embeddings.weight",        "modality.stem.positions.weight"),
    ("embeddings.token_type_embeddings.weight",      "types"),  # added to the positions
    ("embeddings.LayerNorm.*",                       "modality.stem.norm.*"),
    ("encoder.layer.#.attention.self.query.*",       "blocks.#.attn.q.*"),
    ("encoder.layer.#.attention.self.key.*",         "blocks.#.attn.k.*"),
    ("encoder.layer.#.attention.self.value.*",       "blocks.#.attn.v.*"),
    ("encoder.layer.#.attention.output.dense.*",     "blocks.#.attn.proj.*"),
    ("encoder.layer.#.attention.output.LayerNorm.*", "blocks.#.norm1.*"),
    ("encoder.layer.#.intermediate.dense.*",         "blocks.#.mlp.fc1.*"),
    ("encoder.layer.#.output.dense.*",               "blocks.#.mlp.fc2.*"),
    ("encoder.layer.#.output.LayerNorm.*",           "blocks.#.norm2.*"),
)  # fmt: skip
DROPPED = ("pooler.*", "cls.*", "lm_head.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")


def read_text(fields: Fields, tensors: Mapping[str, Tensor], folder: Path, processor: Fields | None) -> Foreign:
    """A model of one of `NAMES`; `UserError` for a field that can't be, and without its tokenizer."""
    kind = str(fields.values["model_type"])
    fields.only("hidden_act", "gelu")
    fields.only("position_embedding_type", "absolute")
    for name in ("is_decoder", "add_cross_attention"):
        fields.only(name, False)
    if not (folder / TOKENIZER_FILES[0]).is_file():
        raise UserError(
            f"{folder} has no {TOKENIZER_FILES[0]}, and {NAMES[kind]} needs its own tokenizer; make it with "
            f"transformers.AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    tokenizer, size = load_tokenizer(folder), fields.whole("vocab_size", 30_522)
    pad_id = fields.values.get("pad_token_id", 0 if kind in FROM_ZERO else 1)
    if pad_id not in (None, tokenizer.pad_id):
        raise UserError(
            f"{fields.path}: pad_token_id is {pad_id!r}, and that of the tokenizer beside it {tokenizer.pad_id}"
        )
    if tokenizer.size > size:
        raise UserError(
            f"{fields.path}: vocab_size is {size:,}, and the tokenizer beside it has {tokenizer.size:,} entries"
        )
    eps, places = fields.number("layer_norm_eps", 1e-12, least=0), fields.whole("max_position_embeddings", 512)
    first = 0 if kind in FROM_ZERO else tokenizer.pad_id + 1
    modality = TextConfig(
        vocab_size=size,
        max_tokens=places - first,
        bos_id=tokenizer.bos_id,
        pad_id=tokenizer.pad_id,
        eos_id=tokenizer.eos_id,
        stem_norm_eps=eps,
    )
    encoder = encoder_of(fields, hidden=fields.whole("intermediate_size", 3072), eps=eps)
    # Old files of BERT have TensorFlow's names of norms.
    tensors = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): one for name, one in tensors.items()}
    found, dropped = translated(without_prefix(tensors, PREFIXES), TABLE, DROPPED, folder)
    types = found.pop("types", None)
    notes = ["the positions hold the first token type" if types is not None else ""]
    positions = found.get("modality.stem.positions.weight")
    if positions is not None:
        positions = positions[first:] + (0 if types is None else types[:1])
        before = positions.new_zeros(tokenizer.pad_id + 1, positions.shape[1])
        found["modality.stem.positions.weight"] = torch.cat([before, positions])
    return Foreign(
        family=NAMES[kind],
        model=ArchitectureConfig(modality=modality, encoder=encoder),
        tensors=found,
        data=TextDataConfig(tokenizer=str(folder.absolute())),
        reading=("tokenizer",),
        dropped=dropped,
        notes=tuple(filter(None, notes)),
        adapted=_cut,
    )


def _cut(tensors: Tensors, model: ArchitectureConfig) -> Tensors:
    """With positions for shorter texts, where the model takes no longer ones."""
    name, modality = "modality.stem.positions.weight", narrow(model.modality, TextConfig)
    if name not in tensors:
        return tensors
    return {**tensors, name: tensors[name][: modality.max_tokens + modality.pad_id + 1]}
