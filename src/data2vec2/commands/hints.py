"""What the command line says to go on with: the next command, and what a misspelled word was meant to be."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection
from typing import Any

NEXT = {
    "demo": "inspect DATA, with a folder of your own",
    "recipes": "estimate RECIPE DATA",
    "estimate": "pretrain {config} {data} --out runs/pretrained {flags}",
    "pretrain": "evaluate {out} {data} (without labels: data2vec2 embed {out} {data} --out features.parquet)",
    "finetune": "{verb} {out} FILES",
    "evaluate": "finetune classify {model} {data} --out runs/finetuned{columns}",
    "inspect": "pretrain {recipe} {data} --out runs/pretrained",
    "embed": "evaluate {model} {data} (needs labels)",
    "predict": "export {model} OUT",
    "transcribe": "evaluate {model} DATA, with transcripts",
    "convert": "evaluate {out} DATA",
    "tokenizer": "pretrain RECIPE {data} --data.tokenizer {out} --out runs/pretrained{columns}",
    "bench": "estimate RECIPE DATA, which also reads",
    "doctor": "demo",
}
"""What follows a verb that has done its work."""
ELSEWHERE = {
    **dict.fromkeys(("num-epochs", "max-epochs"), "--train.epochs"),
    **dict.fromkeys(("steps", "num-steps", "max-steps", "iterations"), "--train.updates"),
    **dict.fromkeys(("gpus", "num-gpus", "nproc", "world-size"), "--train.processes"),
    **dict.fromkeys(("learning-rate", "rate"), "--optim.lr"),
    **dict.fromkeys(("output", "output-dir", "save-dir"), "--out"),
    "num-workers": "--data.workers",
    "fp16": "--train.precision",
    "bf16": "--train.precision",
}
"""Flags of other programs, and ours; all others are found by the last part of their name."""


def next_command(verb: str, /, **values: Any) -> str:
    """The command that makes sense after a verb, filled with its options and with what else it needs."""

    def word(value: Any) -> str:
        return shlex.join(map(str, value)) if isinstance(value, tuple | list) else shlex.quote(str(value))

    if verb == "embed" and len(values["data"]) > 1:  # evaluate takes one
        values["data"] = ("DATA",)
    named = {name: values.get(name) for name in ("text_column", "text_columns", "label_column")}
    columns = (f" --data.{name.replace('_', '-')} {word(value)}" for name, value in named.items() if value)
    filled = {name: word(value) for name, value in values.items()} | {"columns": "".join(columns)}
    return f"next: data2vec2 {NEXT[verb].format_map(filled)}".rstrip()


def near(word: str, known: Collection[str]) -> str:
    """`; did you mean ...?` with the nearest of the known words or flags; nothing if none is near."""
    name = word.removeprefix("--")
    ends = [flag for flag in known if flag.endswith(f".{name}")] if word.startswith("--") else []
    ours = [flag for other, flag in ELSEWHERE.items() if other == name]
    found = ends or ours or difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""
