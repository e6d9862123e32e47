"""transcribe, and the flags of decoding that it shares with evaluate."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data2vec2.cli.common import FAILED


@dataclass(kw_only=True)
class Transcribe:
    """Write down what is said in recordings, with a model of finetune ctc."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder of finetune ctc, or its exported model."""
    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES")]
    """Recordings and folders of them."""
    decoder: Literal["greedy", "beam", "lm"] | None = None
    """greedy, beam (without a language model), lm; none: lm where one is given, else greedy."""
    beam: int | None = None
    """Prefixes that are kept; none: 25, with a language model 500."""
    lm: Path | None = None
    """An n-gram model of words, as an ARPA file; needs pip install 'data2vec2[lm]'."""
    lm_weight: float = 2.0
    """Weight of the language model."""
    word_score: float = 0.0
    """Added for each word."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print one JSON object a line: name, text, score, words with times in seconds."""


def run_transcribe(rest: list[str]) -> int:
    """Parse and run `transcribe`; returns the exit code, which is 1 if a file could not be read."""
    args = tyro.cli(Transcribe, args=rest, prog="data2vec2 transcribe")
    from data2vec2.commands.transcribe import transcribe

    options = {name: value for name, value in vars(args).items() if name != "json"}
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names as they are, even where they are no text
    code = 0
    for found in transcribe(**options):
        if found.error:
            print(f"data2vec2: {found.name}: {found.error}", file=sys.stderr)
            code = FAILED
        elif args.json:
            print(json.dumps(found.to_dict(), ensure_ascii=False), flush=True)
        else:
            print(f"{found.name}\t{found.text}", flush=True)
    return code
