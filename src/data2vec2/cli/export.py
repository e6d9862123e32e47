"""export."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(kw_only=True)
class Export:
    """Write a model for ONNX Runtime or torch.export, checked against PyTorch."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write, a new one."""
    to: Literal["onnx", "torch"] = "onnx"
    """onnx: model.onnx; needs pip install 'data2vec2[onnx]'. torch: model.pt2, a program of torch.export."""
    data: str | None = None
    """Data to check with, and to measure the drop in score on; none: the bundled samples, which have no score."""
    int8: bool = False
    """Of onnx: also write model_int8.onnx, with matrices of 8 bits, and measure its drop in score; needs --data."""
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as one; none: by their usual names."""
    label_column: str | None = None
    """Of tables of text: the column of labels; none: by its usual names."""
    json: bool = False
    """Print the outcome as JSON."""


def run_export(rest: list[str]) -> int:
    """Parse and run `export`; returns the exit code."""
    args = tyro.cli(Export, args=rest, prog="data2vec2 export")
    from data2vec2.commands.export import export

    done = export(**{name: value for name, value in vars(args).items() if name != "json"})
    if args.json:
        print(json.dumps({**asdict(done), "out": str(done.out)}))
        return 0
    print(f"{done.kind} {done.what}: {done.out} (largest difference from PyTorch {done.largest_difference:.1e})")
    if done.int8:
        print(done.int8.sentence)
    return 0
