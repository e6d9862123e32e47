"""The verbs as Python functions, with the options of the command line. Nothing heavy is imported before a call.

What a function does is done by that of the same name in `commands`; here are its arguments, result and description.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

import ast
import functools
import inspect as python_inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from data2vec2.commands import options

if TYPE_CHECKING:
    from data2vec2.commands.bench import Speed
    from data2vec2.commands.convert import Converted
    from data2vec2.commands.demo import DemoResult
    from data2vec2.commands.embed import Embedded
    from data2vec2.commands.estimate import Plan, RecipeFacts
    from data2vec2.commands.export import Exported
    from data2vec2.commands.inspect import Inspection
    from data2vec2.commands.load import Model
    from data2vec2.commands.predict import Prediction
    from data2vec2.commands.transcribe import Transcription
    from data2vec2.evaluation.scores import Scores
    from data2vec2.training.task import Outcome

P = ParamSpec("P")
R = TypeVar("R")


def verb(kind: Callable[P, Any], home: str = "") -> Callable[[Callable[[], R]], Callable[P, R]]:
    """Make a verb's function of its options and a description; `home` is its module where that has another name."""

    def decorate(described: Callable[[], R]) -> Callable[P, R]:
        name = described.__name__

        @functools.wraps(described)
        def call(*values: P.args, **named: P.kwargs) -> R:
            from data2vec2.data import objects

            with objects.named(kind(*values, **named)) as given:
                found: R = pkgutil.resolve_name(f"data2vec2.commands.{home or name}:{name}")(given)
            return found

        call.__signature__ = python_inspect.signature(kind)  # type: ignore[attr-defined]
        named = "\n".join(f"    {name}: {text}" for name, text in descriptions(kind).items())
        about = textwrap.dedent(f"    {described.__doc__}").strip()
        call.__doc__ = f"{about}\n\nArgs:\n{named}\n" if named else about
        return call

    return decorate


def descriptions(kind: Any) -> dict[str, str]:
    """What each option of a verb is, by name, in the order of the signature."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(python_inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return {name: found[name] for name in python_inspect.signature(kind).parameters if name in found}


@verb(options.Pretrain)
def pretrain() -> Outcome:
    """Pre-train on DATA into the run folder `out`; the folder then holds checkpoints, metrics, an export and a report.

    `config` is a recipe's name or a complete configuration. Returns how the run ended. Raises `UserError` (data or
    folder can't be used) or `UsageError`, a `ValueError` (configuration).
    """


@verb(options.Estimate, "pretrain")
def estimate() -> Plan:
    """Say what pre-training would take, from a few measured updates; writes nothing.

    Raises `UserError` (data can't be used) or `UsageError`, a `ValueError` (configuration).
    """


@verb(options.Recipes, "estimate")
def recipes() -> list[RecipeFacts]:
    """All recipes of pre-training with their sizes and times, computed."""


@verb(options.Finetune, "sweep")
def finetune() -> Outcome:
    """Train a pre-trained encoder with a head on the labels of DATA, into the run folder `out`.

    The model that is exported is the best on the validation part: `val`, or DATA's own, or a part of DATA that is held
    out. It is scored on DATA's test part if there is one (scores.json; mistakes.npz or transcripts.jsonl). Returns how
    the run ended, of a sweep with the run of the best rate and the scores of all, and raises as `pretrain` does.
    """


@verb(options.Demo)
def demo() -> DemoResult:
    """Pre-train on bundled data without their labels, then score the features on data that were not seen.

    Pictures are 1,895 drawings of 11 classes, scored on 510 others; recordings 15 minutes of one voice's prompts,
    scored on the phones of 9 other minutes; sounds 405 notes of instruments, scored on 208 others; texts 110,806
    WordNet glosses, scored on what 6,222 others are about, with all labels, and with 100 and 1,000 in all, also
    fine-tuned.
    """


@verb(options.Evaluate)
def evaluate() -> Scores:
    """Accuracy of kNN, linear, attentive and phone probes on frozen features, beside three baselines.

    Of a fine-tuned classifier also `own`, the scores of its own answers, if it knows DATA's classes.

    Probes learn from the labels of DATA's training part and are scored on `test`, or DATA's own test or validation
    part, or what the run held out of DATA, or a fifth split off by `seed`. The folder of a pre-training run gets the
    scores as scores.json, pictures of what the features know as gallery.npz, and both in its report. The probe of
    phones needs a phones.csv in DATA: columns `file_name` and `phones` ("PHONE:FRAMES ..." in frames of 10 ms).

    Raises `UserError` if model or data can't be used, or there are no labels.
    """


@verb(options.Evaluate, home="transcribe")
def evaluate_recognizer() -> dict[str, Any]:
    """Word and character error rates of a recogniser, with the edits that make them, on recordings with transcripts.

    They are those of `test`, or of DATA's own test or validation part, or all of DATA. Both texts are normalised alike.
    """


@verb(options.Evaluate, home="classified")
def evaluate_classifier() -> dict[str, Any]:
    """Scores of what a fine-tuned model says of whole samples, their classes or numbers, as in scores.json of its run.

    They are those of `test`, or of DATA's own test or validation part, or all of DATA. Raises `UserError` for classes
    that the model has not.
    """


@verb(options.Evaluate, home="dense")
def evaluate_dense() -> dict[str, Any]:
    """Scores of a model of classes of words, frames or pixels, or of answers, beside baselines, as in scores.json.

    They are those of `test`, or of DATA's own test or validation part, or all of DATA, which then leaves nothing for
    baselines to learn from. Raises `UserError` for classes that the model has not.
    """


@verb(options.Inspect)
def inspect() -> Inspection:
    """What DATA holds: its account, classes, sizes, duplicates across parts, and what recipes would make of it.

    All samples are read once. `out` is a page with what the first samples look like to the model, or a JSON file.
    Raises `UserError` for data in which no modality finds samples.
    """


@verb(options.Embed)
def embed() -> Embedded:
    """Write the features of all pictures, recordings or texts of DATA to the table `out` (interop/table.py).

    Pictures are cut to the central square that evaluation sees, unless `keep_aspect`. Recordings are encoded whole,
    those above a minute in windows of a minute that overlap. Texts are cut to the model's length. Raises `UserError`
    (model, data or file can't be used, or no sample can be read) or `UsageError` (an option).
    """


@verb(options.Load)
def load() -> Model:
    """A model in memory, with `embed`, `predict` and `transcribe` for paths, arrays, pictures, waveforms and texts.

    Raises `UserError` for a folder that holds no model.
    """


@verb(options.Predict)
def predict() -> Iterator[Prediction]:
    """Classes of samples, and of those below folders, by a fine-tuned model; one a file (of tables: a text), in order.

    Recordings above a minute go through the model in windows of a minute that overlap, and are pooled over all of them.
    Raises, before the first file is read, `UserError` (no classifier, an empty folder) or `UsageError` (an option).
    """


@verb(options.Transcribe)
def transcribe() -> Iterator[Transcription]:
    """Texts of recordings, and of those below folders, by a recogniser; one a file, in order.

    Long recordings are read and recognised in windows, so memory stays bounded. Raises as `predict` does.
    """


@verb(options.Convert)
def convert() -> Converted:
    """Turn a checkpoint of the original into an exported folder, or a run or exported folder into such a checkpoint.

    Raises `UserError` for an `out` that exists, and for a source that is damaged, of another architecture, incomplete,
    or holds more than plain values.
    """


@verb(options.Export)
def export() -> Exported:
    """Write a model as `out`/model.onnx or model.pt2, with what makes its inputs beside it.

    The file takes any number of samples, of audio and text any length, with an `attention_mask` where a batch is filled
    up. Before `out` appears, it is compared with PyTorch on samples of `data`, or on bundled ones. Raises `UserError`
    for an `out` that exists, a difference above 1e-4, a missing extra onnx, and a model or data that can't be used.
    """


@verb(options.Report)
def report() -> Path:
    """Write the page of a run again, or one that compares several; returns the page's path.

    A run's own report.html is always written anew, any other existing file only with `overwrite`. Raises `UserError`
    for a folder that holds no run, or if the page can't be written.
    """


@verb(options.Tokenizer)
def tokenizer() -> int:
    """Make a tokenizer as a folder that `AutoTokenizer` loads; returns the size of its vocabulary.

    It is made of 100 million characters at most, evenly spread over longer texts. Raises `UserError` if there is no
    text, or `out` is no new or empty folder.
    """


@verb(options.Bench)
def bench() -> list[Speed]:
    """Measure updates of pre-training on made-up samples; one result for each recipe.

    A process's share of a batch is measured, or less of it where that would take long. Raises `UsageError`, a
    `ValueError`, for a configuration that can't be.
    """


@verb(options.Doctor)
def doctor() -> dict[str, Any]:
    """Versions, device, measured speed of bfloat16, free memory and disk, extras, modalities: name to finding."""
