"""convert."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(kw_only=True)
class Convert:
    """Turn a checkpoint of the original data2vec 2.0 into an exported model, or a model into such a checkpoint."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """A .pt file of the original, pre-trained or fine-tuned; with --to fairseq a run folder or an exported model."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write, a new one; with --to fairseq a .pt file."""
    to: Literal["export", "fairseq"] = "export"
    """export: a folder that every command reads, and Transformers. fairseq: a checkpoint of the original."""
    weights: Literal["student", "teacher"] = "student"
    """Whose encoder to export. What the teacher has not (the stem of audio and text) is the student's."""
    vocabulary: Path | None = None
    """Of text: a folder with encoder.json, vocab.bpe and dict.txt. Of recognisers of speech: dict.ltr.txt. None: beside
    the checkpoint; letters also from the checkpoint itself."""
    classes: Path | None = None
    """Of classifiers: a text file with the name of a class on each line; none: numbers."""
    pretrained: Path | None = None
    """Of a fine-tuned file that doesn't say its model's shape: the pre-trained file that it was made from."""
    allow: tuple[str, ...] = ()
    """Classes whose objects are read as plain values where a file holds such; nothing of them is run."""
    json: bool = False
    """Print the outcome as JSON."""


def run_convert(rest: list[str]) -> int:
    """Parse and run `convert`; returns the exit code."""
    args = tyro.cli(Convert, args=rest, prog="data2vec2 convert")
    from data2vec2.commands.convert import convert

    done = convert(
        args.source,
        args.out,
        to=args.to,
        weights=args.weights,
        vocabulary=args.vocabulary,
        classes=args.classes,
        pretrained=args.pretrained,
        allow=args.allow,
    )
    if args.json:
        print(json.dumps({"out": str(done.out), "kind": done.kind, "what": done.what, "dropped": done.dropped}))
    else:
        dropped = f"; dropped: {', '.join(done.dropped)}" if done.dropped else ""
        print(f"{done.kind} {done.what}: {done.out}{dropped}")
    return 0
