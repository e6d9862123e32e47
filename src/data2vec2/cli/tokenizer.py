"""tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(kw_only=True)
class Tokenizer:
    """Make a tokenizer of your own text, or the original's from its files."""

    action: Annotated[tyro.conf.Positional[Literal["train", "original"]], tyro.conf.arg(metavar="{train,original}")]
    """train: a byte-level BPE of the text of DATA. original: GPT-2's BPE with the ids of the released models."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """train: .txt, .jsonl, .csv, .tsv or .parquet files, a folder of them, or hf:NAME. original: a folder with
    encoder.json, vocab.bpe and dict.txt."""
    out: Path
    """Folder to write; a new one."""
    vocab_size: int = 4_000
    """Entries of the vocabulary, special tokens and single bytes (261) among them."""
    text_column: str = "text"
    """Column of tables, or key of .jsonl files, that holds the text."""
    json: bool = False
    """Print the outcome as JSON."""


def run_tokenizer(rest: list[str]) -> int:
    """Parse and run `tokenizer`; returns the exit code."""
    args = tyro.cli(Tokenizer, args=rest, prog="data2vec2 tokenizer")
    from data2vec2.commands.tokenizer import original, train

    if args.action == "train":
        size = train(args.data, args.out, vocab_size=args.vocab_size, text_column=args.text_column)
    else:
        size = original(args.data, args.out)
    print(json.dumps({"tokenizer": str(args.out), "vocab_size": size}) if args.json else f"tokenizer: {args.out}")
    return 0
