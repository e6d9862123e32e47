"""Verbs that use a model, and doctor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(kw_only=True)
class Evaluate:
    """Score frozen features beside random initialisation, raw input and the majority class; error rates of speech."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Data with labels; for a model of finetune ctc, recordings with transcripts."""
    test: Path | None = None
    """Data to score on; none: DATA's own test or validation part, what the run held out of it, or a fifth."""
    max_samples: int = 10_000
    """Samples of each part to use, evenly spread."""
    probes: str = "knn,linear"
    """Which of knn, linear and attentive to use, with commas."""
    labels: str = ""
    """Labels a class of low-label curves, with commas, as in 10,100,1000; empty: no curves."""
    seeds: int = 3
    """Draws of labels for each point of the curves."""
    finetune: str | None = None
    """Add curves of fine-tuning by this recipe (image_finetune_tiny, audio_classify_tiny) or config.yaml."""
    seed: int = 0
    """Decides the split and the random initialisation."""
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as one; none: by their usual names."""
    label_column: str | None = None
    """Of tables of text: the column of labels; none: by its usual names."""
    decoder: Literal["greedy", "beam", "lm"] | None = None
    """Of speech, as in transcribe; likewise the next four."""
    beam: int | None = None
    """Prefixes that are kept."""
    lm: Path | None = None
    """An n-gram model of words, as an ARPA file."""
    lm_weight: float = 2.0
    """Weight of the language model."""
    word_score: float = 0.0
    """Added for each word."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print the scores as JSON."""


@dataclass(kw_only=True)
class Doctor:
    """Say what this machine can do."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print JSON."""


def run_evaluate(rest: list[str]) -> int:
    """Parse and run `evaluate`; returns the exit code."""
    args = tyro.cli(Evaluate, args=rest, prog="data2vec2 evaluate")
    if _is_recognizer(args.model):
        return _error_rates(args)
    for name in ("decoder", "beam", "lm"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} is for models of finetune ctc, and {args.model} holds another")
    try:
        labels = tuple(int(count) for count in args.labels.split(",") if args.labels)
    except ValueError:
        raise ValueError(f"--labels is {args.labels!r}; it must be whole numbers with commas, as in 10,100") from None
    from data2vec2.commands.evaluate import evaluate, format_scores

    scores = evaluate(
        args.model,
        args.data,
        test=args.test,
        max_samples=args.max_samples,
        probes=args.probes.split(","),
        labels=labels,
        seeds=args.seeds,
        finetune=args.finetune,
        seed=args.seed,
        device=args.device,
        text_columns=args.text_columns,
        label_column=args.label_column,
    )
    print(json.dumps(scores.to_dict()) if args.json else format_scores(scores))
    return 0


def _is_recognizer(model: Path) -> bool:
    """Whether a folder says that it is one; what is wrong with it is said later."""
    for folder in (model / "exported", model):
        try:
            return "Data2Vec2AudioForCTC" in json.loads((folder / "config.json").read_text())["architectures"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _error_rates(args: Any) -> int:
    """Word and character error rates of a recogniser."""
    from data2vec2.commands.transcribe import evaluate_recognizer, format_error_rates

    names = ("test", "max_samples", "decoder", "beam", "lm", "lm_weight", "word_score", "device")
    scores = evaluate_recognizer(args.model, args.data, **{name: getattr(args, name) for name in names})
    print(json.dumps(scores) if args.json else format_error_rates(scores))
    return 0


def run_doctor(rest: list[str]) -> int:
    """Parse and run `doctor`; returns the exit code."""
    args = tyro.cli(Doctor, args=rest, prog="data2vec2 doctor")
    from data2vec2.commands.doctor import doctor

    found = doctor(args.device)
    width = max(map(len, found))
    print(json.dumps(found) if args.json else "\n".join(f"{name:<{width}}  {value}" for name, value in found.items()))
    return 0
