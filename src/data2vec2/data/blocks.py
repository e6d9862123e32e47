"""Text as records: blocks of a tokenised corpus, and their reader.

Shapes: `B` samples, `T` tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.config import TextConfig, TextDataConfig
from data2vec2.data.reader import ReadBatch
from data2vec2.data.records import Parts, Records
from data2vec2.data.sampler import GlobalBatches, Plan
from data2vec2.data.shards import BlockNames, Blocks, Progress, cut_blocks, tokenised
from data2vec2.data.text import find_text
from data2vec2.data.tokenizer import TextTokenizer
from data2vec2.errors import UserError


def open_text(
    path: str | Path, tokenizer: TextTokenizer, model: TextConfig, data: TextDataConfig, progress: Progress
) -> Parts:
    """Tokenise what `path` holds, unless that was done before, and cut it into blocks.

    Where the data name no validation part, the end of the corpus is held out. Raises `UserError` if there is no text,
    or too little of it for one block.
    """
    texts = find_text(path)
    used = [part for part in ("train", "val") if part in texts]
    corpora = {part: tokenised(texts[part], tokenizer, data.text_column, data.unit, progress) for part in used}
    width, train = model.max_tokens - 1, corpora["train"]
    fraction = 0.0 if "val" in corpora else data.val_fraction
    blocks = {part: cut_blocks(corpus, model.eos_id, width, 0.0)[0] for part, corpus in corpora.items()}
    blocks["train"], held = cut_blocks(train, model.eos_id, width, fraction)
    if len(held.starts):
        blocks["val"] = held
    if not len(blocks["train"].starts):
        remarks = f" ({train.remarks})" if train.remarks else ""
        raise UserError(f"{path} has {train.num_tokens:,} tokens of text{remarks}, and a block takes {width:,}")
    units = train.counts.get("units", 0)
    sources = "1 source" if len(texts["train"]) == 1 else f"{len(texts['train']):,} sources"
    number = f"{train.num_tokens:,} tokens in {units:,} {data.unit}s of {sources}"
    description = "; ".join(filter(None, (f"text: {number}", train.remarks)))
    return Parts(_records(blocks["train"]), _records(blocks["val"]) if "val" in blocks else None, None, description)


class TextReader:
    """Batches of token ids `BT`: the start-of-text token, then a block of the stream. Can be pickled."""

    in_memory = True
    """Blocks are mapped, so reading them costs next to nothing."""

    def __init__(self, records: Records, config: TextConfig, seed: int) -> None:
        self.records = records
        self.config = config
        self.seed = seed

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Whole blocks."""
        return self.eval_batch(plan.samples_B)

    def eval_batch(self, samples_B: NDArray[np.int64]) -> ReadBatch:
        """Whole blocks."""
        blocks = self.records.source
        assert isinstance(blocks, Blocks)
        ids_BT = np.full((len(samples_B), self.config.max_tokens), self.config.bos_id, dtype=np.int64)
        for row_T, sample in zip(ids_BT, samples_B.tolist(), strict=True):
            row_T[1:] = blocks.block(sample)
        return ReadBatch(ids_BT, self.records.labels[samples_B], (), samples_B)

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """At most 16 at once, in their order."""
        return [samples_B[start : start + 16] for start in range(0, len(samples_B), 16)]

    def order(self, batch_size: int) -> GlobalBatches:
        """Global batches of so many blocks."""
        return GlobalBatches(len(self.records), batch_size, self.seed)

    def grid(self, plan: Plan) -> tuple[int, ...]:
        """All blocks are full."""
        return (self.config.max_tokens,)

    def size(self, plan: Plan) -> float:
        """One."""
        return 1.0


def _records(blocks: Blocks) -> Records:
    labels = np.full(len(blocks.starts), -1, dtype=np.int64)
    return Records("text", BlockNames(blocks.starts), labels, (), {}, blocks)
