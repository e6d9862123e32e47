"""What a fine-tuned model is compared with on its page: other runs that measured the same on the same samples."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data2vec2.evaluation.scores import MAJORITY, MODEL, RANDOM
from data2vec2.evaluation.verdict import SCRATCH, gain, in_words, rows_of
from data2vec2.files import parse_json
from data2vec2.reporting.scores import RECOGNIZER, SHARES, TUNED, Measure, read_mapping, said_with_bar
from data2vec2.training.run import CONFIG, OTHER_SCORES, SCORES


@dataclass(frozen=True)
class Rivals:
    """What else was measured on the samples that a fine-tuned model was scored on."""

    score: str
    rows: list[tuple[str, list[str]]]
    verdict: list[str]
    """What the rows say in words."""
    commands: list[tuple[str, str]]
    """What was not measured, and the command that does."""
    again: str
    """The command that shows it."""


def rivals(run: Path) -> Rivals | None:
    """Those of a run's main score: of error rates that of words; None if its files don't say."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        scores, about = read_mapping(run / SCORES), read_mapping(run / "environment.json")
        names = TUNED[scores["kind"]]
        key = next(key for key in ("wer", *names) if key in scores)
        model, data = about["model"], about.get("data_path", "DATA")
        commands, measured = list[tuple[str, list[str]]](), dict[str, Measure]()
        if not scores["from_scratch"]:
            measured = dict(_from_scratch(run, key, about))
            if not measured:
                commands.append(("the same from random initialisation", _scratch_command(run, about)))
        if key == "accuracy":
            measured |= (probed := dict(_probed(Path(model), scores)))
            if not probed:
                commands.append(("probes of the frozen features and of raw inputs", ["evaluate", model, data]))
        shares = SHARES | RECOGNIZER
        rows = [("this model", _measure(scores, key)), *measured.items()]
        over = [gain(who, _measure(scores, key), other, key in RECOGNIZER) for who, other in measured.items()]
        return Rivals(
            names[key],
            [(who, [said_with_bar(*score, key in shares)]) for who, score in rows] if measured else [],
            in_words({names[key]: over}) if over and key in shares else [],
            [(what, f"data2vec2 {shlex.join(words)}") for what, words in commands],
            f"data2vec2 report {shlex.quote(str(run))}",
        )
    return None


def _scratch_command(run: Path, about: dict[str, Any]) -> list[str]:
    """What the run was started with, but for its folder and weights."""
    words = [word for word in about["command"] if word not in ("--resume", "--overwrite")]
    if words[:1] != ["finetune"] or "--out" not in words:  # started from Python
        words = ["finetune", about["task"], about["model"], about.get("data_path", "DATA"), "--out", ""]
    words[words.index("--out") + 1] = f"{run}-scratch"
    return [*words, "--from-scratch"]


def _from_scratch(run: Path, key: str, about: dict[str, Any]) -> Iterator[tuple[str, Measure]]:
    """The score of a run beside this one that differs from it in having begun from random initialisation alone."""
    config = read_mapping(run / CONFIG) | {"from_scratch": True}
    for other in sorted(run.resolve().parent.iterdir()):
        with suppress(OSError, ValueError, KeyError):
            where = read_mapping(other / "environment.json").get("data_path")
            if read_mapping(other / CONFIG) == config and where == about.get("data_path"):
                yield SCRATCH, _measure(read_mapping(other / SCORES), key)


def _probed(model: Path, scores: dict[str, Any]) -> Iterator[tuple[str, Measure]]:
    """What linear probes of MODEL, before fine-tuning, and of raw inputs gave on the same part of the same data."""
    found = []
    for file in (SCORES, OTHER_SCORES):
        with suppress(OSError, ValueError):
            value = parse_json((model / file).read_text("utf-8"))
            found += value if isinstance(value, list) else [value]
    for one in found:
        if one.get("kind") == "probes" and all(one.get(key) == scores.get(key) for key in ("data", "part")):
            for row, bar in rows_of(one):
                if row["features"] not in (RANDOM, MAJORITY) and row.get("linear") is not None:
                    of = "the frozen features" if row["features"] == MODEL else row["features"]
                    name = f"a linear probe on {of} ({one['train_samples']:,} labels)"
                    yield name, (row["linear"], bar.get("linear"))


def _measure(scores: dict[str, Any], key: str) -> Measure:
    return scores[key], (scores.get("intervals") or {}).get(key)
