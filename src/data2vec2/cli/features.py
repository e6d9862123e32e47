"""Verbs that turn samples into features and classes: embed, predict."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data2vec2.cli.common import FAILED


@dataclass(kw_only=True)
class Embed:
    """Write the features of pictures, recordings or texts to a Parquet file."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DATA")]
    """A data set (folder, arrays, .parquet, .tar, .tsv, hf:NAME), or files and folders of them. Of text: one table
    (.csv, .tsv, .jsonl, .parquet), a folder of them, a .txt file with a text a line, or hf:NAME."""
    out: Path
    """Parquet file to write."""
    layer: int | None = None
    """Block whose output is taken, from 1; 0: the stem's tokens; none: the last."""
    pool: Literal["mean", "none", "cls"] = "mean"
    """Mean over patches or tokens, none (a vector for each), or the CLS token of pictures."""
    part: Literal["train", "val", "test", "all"] = "all"
    """Which part of a data set."""
    size: int | None = None
    """Of pictures: side of the model's input in pixels, a multiple of the patch size; none: the model's own."""
    keep_aspect: bool = False
    """Of pictures: cut nothing off: shorter side to the size, longer one in proportion, in whole patches."""
    batch: int | None = None
    """Samples that go through the model at once; none: 64 pictures, 8 recordings, 32 texts."""
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as one; none: by their usual names."""
    label_column: str | None = None
    """Of tables of text: the column of labels; none: by its usual names."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers in the file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    overwrite: bool = False
    """Replace an existing file."""
    json: bool = False
    """Print the outcome as JSON."""


@dataclass(kw_only=True)
class Predict:
    """Name the classes of pictures, recordings or texts, or numbers of texts, with a fine-tuned model."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder of finetune, or its exported model."""
    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES")]
    """Files and folders of pictures or recordings; of text, tables or .txt files with a text a line."""
    top: int | None = None
    """Classes for each file, most probable first; none: 1, or all above the threshold where there can be several."""
    threshold: float = 0.5
    """Smallest probability to show, for models of pictures that have several classes."""
    batch: int = 64
    """Pictures or texts that go through the model at once."""
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as a pair; none: by their usual names."""
    out: Path | None = None
    """File to write instead of printing."""
    overwrite: bool = False
    """Replace an existing file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print one JSON object a line."""


def run_embed(rest: list[str]) -> int:
    """Parse and run `embed`; returns the exit code."""
    args = tyro.cli(Embed, args=rest, prog="data2vec2 embed")
    from data2vec2.commands.embed import embed

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: without the unfinished file
    options = {name: value for name, value in vars(args).items() if name != "json"}
    result = embed(**options)
    if args.json:
        print(json.dumps({**asdict(result), "out": str(result.out)}))
    else:
        many = {"image": "pictures", "audio": "recordings", "text": "texts"}[result.kind]
        one = "a patch" if result.kind == "image" else "a token"
        each = one if args.pool == "none" else "each"
        print(f"features: {result.out} ({result.rows:,} {many}, {result.dim} numbers {each})")
    return 0


def run_predict(rest: list[str]) -> int:
    """Parse and run `predict`; returns the exit code, which is 1 if a file could not be read."""
    args = tyro.cli(Predict, args=rest, prog="data2vec2 predict")
    from data2vec2.commands.predict import predict

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: without the unfinished file
    options = {name: value for name, value in vars(args).items() if name not in ("json", "out", "overwrite")}
    code = 0
    predictions = predict(**options)
    with _lines(args.out, args.overwrite) as write:
        for prediction in predictions:
            if prediction.error:
                print(f"data2vec2: {prediction.name}: {prediction.error}", file=sys.stderr)
                code = FAILED
                continue
            if args.json:
                write(json.dumps(asdict(prediction)))
                continue
            found = [] if prediction.value is None else [f"{prediction.value:.6g}"]
            found += [f"{name}\t{probability:.4f}" for name, probability in prediction.classes.items()]
            write("\n".join(f"{prediction.name}\t{one}" for one in found or ["\t"]))
    return code


@contextmanager
def _lines(out: Path | None, overwrite: bool) -> Iterator[Callable[[str], object]]:
    """What prints a line, or writes it to a file that is there when all are; file names as they are, even no text."""
    if out is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield print
        return
    from data2vec2.interop.table import check_out, written_whole

    check_out(out, overwrite, "predictions.tsv")
    with written_whole(out, overwrite) as file:
        yield lambda line: file.write(f"{line}\n".encode("utf-8", "surrogateescape"))
