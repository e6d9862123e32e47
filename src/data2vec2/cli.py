"""The command line: words to options, results to lines. Only this happens here, so that `--help` needs no torch."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tyro

from data2vec2 import api
from data2vec2.commands import flags, options
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities import (
    finetune_config,
    get_recipe,
    recipes,
    run_config,
    specs,
)
from data2vec2.version import __version__

FAILED, USAGE, ALARM, INTERRUPTED, ABORTED = 1, 2, 3, 75, 130
STATES = {"finished": 0, "planned": 0, "helped": 0, "diverged": ALARM, "collapsed": ALARM, "interrupted": INTERRUPTED}
HELP = {"-h", "--help"}


@dataclasses.dataclass
class _Printed:
    """How a result is printed."""

    _: dataclasses.KW_ONLY
    json: bool = False
    """Print the outcome as JSON."""


@dataclasses.dataclass
class _Written(_Printed):
    """And where to."""

    out: Path | None = None
    """File to write instead of printing."""
    overwrite: bool = False
    """Replace an existing file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (0 done, 1 failed, 2 usage, 3 alarm, 75 interrupted, 130 Ctrl-C)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in HELP:
        print(_usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else USAGE
    if words[0] == "--version":
        print(f"data2vec2 {__version__}")
        return 0
    if words[0] not in VERBS:
        return _fail(f"unknown command {words[0]!r}; there are {', '.join(VERBS)}", USAGE)
    try:
        return VERBS[words[0]][1](words[1:])
    except UserError as error:
        return _fail(str(error), FAILED)
    except UsageError as error:
        if os.environ.get("DATA2VEC2_TRACEBACK"):
            raise
        return _fail(str(error), USAGE)
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return _fail("stopped", ABORTED)


def _usage() -> str:
    lines = [f"  {verb:<10} {(kind.__doc__ or '').strip()}" for verb, (kind, _) in VERBS.items()]
    return (
        "usage: data2vec2 COMMAND [...]\n\n"
        + "\n".join(lines)
        + "\n\n  data2vec2 COMMAND --help shows a command's arguments; data2vec2 --version the version\n"
    )


def _fail(message: str, code: int) -> int:
    """Print a message to stderr; returns the exit code."""
    print(f"data2vec2: {message}", file=sys.stderr)
    return code


def _parsed(kind: type[Any], verb: str, words: Sequence[str], how: type[_Printed] = _Printed, /, **given: Any) -> Any:
    """The options in the words of a command line, with those of printing, and some that are given beside them."""
    names = {field.name for field in dataclasses.fields(kind)}
    found = tyro.cli(_with_printing(kind, how), args=list(words), prog=f"data2vec2 {verb}")
    return kind(**{name: value for name, value in vars(found).items() if name in names} | given), found


def _with_printing(kind: type[Any], how: type[_Printed] = _Printed) -> type[Any]:
    """The options of a verb with those of printing: first what must be given, then the verb's own, then shared ones."""
    both: type[Any] = dataclasses.dataclass(
        type(kind.__name__, (how, kind), {"__doc__": kind.__doc__, "__post_init__": _unchecked})
    )
    owned = inspect.get_annotations(kind)
    both.__dataclass_fields__ = dict(
        sorted(
            both.__dataclass_fields__.items(),
            key=lambda item: (item[1].default is not dataclasses.MISSING, item[0] not in owned),
        )
    )
    return both


def _unchecked(_: Any) -> None:
    """Leave it to the verb's own options to refuse values, whose messages we print."""


def _run(words: list[str], kind: type[Any], verb: str, show: Callable[[Any], str]) -> int:
    """A verb whose result is printed whole."""
    given, printed = _parsed(kind, verb, words)
    result = getattr(api, verb)(**_values(given))
    print(json.dumps(_plain(result)) if printed.json else show(result))
    return 0


def _values(given: Any) -> dict[str, Any]:
    return {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}


def _plain(value: Any) -> Any:
    """A result as JSON has it."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# Verbs that train


def run_pretrain(words: list[str]) -> int:
    """`pretrain RECIPE DATA --out RUN`, with fields of the configuration as flags."""
    first = words[0] if words and not words[0].startswith("-") else None
    if HELP & set(words):
        return _help(options.Pretrain, "pretrain", run_config(first) if first else get_recipe(next(iter(recipes()))))
    if first is None:
        raise UsageError("the recipe comes first: data2vec2 pretrain RECIPE DATA --out RUN [...]")
    set_fields, rest = flags.split(words, RunConfig)
    given, printed = _parsed(options.Pretrain, "pretrain", rest, flags=tuple(set_fields))
    return _trained(api.pretrain(**_values(given)), given.out, printed.json)


def run_finetune(words: list[str]) -> int:
    """`finetune TASK MODEL DATA --out RUN`, once or at several learning rates."""
    tasks = list(dict.fromkeys(task for spec in specs().values() for task in spec.finetune))
    task = words[0] if words and words[0] in tasks else None
    if HELP & set(words):
        named = [word for place, word in enumerate(words) if words[place - 1] == "--recipe"]
        named += [name for spec in specs().values() for name in spec.finetune.get(task or tasks[0], ())]
        return _help(options.Finetune, f"finetune {task or '|'.join(tasks)}", finetune_config(named[0]))
    if task is None:
        found = f", not {words[0]!r}" if words else ""
        raise UsageError(
            f"the task comes first{found}: data2vec2 finetune {'|'.join(tasks)} MODEL DATA --out RUN [...]"
        )
    set_fields, rest = flags.split(words[1:], FinetuneConfig)
    given, printed = _parsed(options.Finetune, f"finetune {task}", rest, flags=tuple(set_fields), task=task)
    if not given.sweep and given.seeds == 1:
        outcome, path = api.finetune(**_values(given)), given.out / "scores.json"
        scores = json.loads(path.read_text()) if outcome.state == "finished" and path.exists() else None
        return _trained(outcome, given.out, printed.json, scores=scores)
    from data2vec2.commands.sweep import format_sweep, sweep

    outcome, rows = sweep(given)
    if printed.json:
        print(json.dumps({"out": str(given.out), **_plain(outcome), "rates": _plain(rows)}))
    elif rows:
        print(format_sweep(rows))
        if rows[0].run:
            print(f"best: rate {rows[0].lr:g}, {given.out / rows[0].run}")
    return STATES[outcome.state]


def run_demo(words: list[str]) -> int:
    """`demo [KIND]`."""
    known = [spec.name for spec in specs().values() if spec.demo]
    kind = words.pop(0) if words and not words[0].startswith("-") else known[0]
    if kind not in known:
        raise UsageError(f"unknown demo {kind!r}; there are: {', '.join(known)}")
    spec = specs()[kind]
    assert spec.demo is not None
    if HELP & set(words):
        return _help(options.Demo, f"demo {kind}", get_recipe(spec.demo.recipe))
    set_fields, rest = flags.split(words, RunConfig)
    given, printed = _parsed(options.Demo, f"demo {kind}", rest, flags=tuple(set_fields), kind=kind)
    result = api.demo(**_values(given))
    if printed.json:
        scores = result.scores.to_dict() if result.scores else None
        print(json.dumps({"run": str(result.run), "scores": scores, **_plain(result.outcome)}))
    elif result.scores:
        from data2vec2.commands.evaluate import format_scores

        print(f"\nAccuracy on {result.scores.test_samples:,} test {spec.words.many}, in percent:\n")
        print(f"{format_scores(result.scores)}\n\nreport: {result.run / 'report.html'}")
    return STATES[result.outcome.state]


def _help(kind: type[Any], verb: str, config: RunConfig | FinetuneConfig) -> int:
    """Print a verb's arguments, and the fields of a configuration that flags can set."""
    with suppress(SystemExit):
        tyro.cli(_with_printing(kind), args=["--help"], prog=f"data2vec2 {verb}")
    print(f"\nFields of the configuration, as {config.recipe} has them:\n")
    flags.print_help(config)
    return 0


def _trained(outcome: Any, out: Path, as_json: bool, **more: Any) -> int:
    """Print how a run ended."""
    if as_json:
        print(json.dumps({"run": str(out), **_plain(outcome), **more}))
    elif outcome.state == "finished":
        print(f"model: {out / 'exported'}\nreport: {out / 'report.html'}")
    return STATES[outcome.state]


# Verbs that use a model


def run_evaluate(words: list[str]) -> int:
    """`evaluate MODEL DATA`: probes, or error rates of a recogniser."""
    given, printed = _parsed(options.Evaluate, "evaluate", words)
    from data2vec2.commands.evaluate import evaluate_any, format_any

    found = evaluate_any(given)
    print(json.dumps(_plain(found)) if printed.json else format_any(found))
    return 0


def run_embed(words: list[str]) -> int:
    """`embed MODEL DATA --out FILE`."""
    given, printed = _parsed(options.Embed, "embed", words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: without the unfinished file
    found = api.embed(**_values(given))
    if printed.json:
        print(json.dumps(_plain(found)))
    else:
        said = specs()[found.kind].words
        each = f"a {said.token}" if given.pool == "none" else "each"
        print(f"features: {found.out} ({found.rows:,} {said.many}, {found.dim} numbers {each})")
    return 0


def run_predict(words: list[str]) -> int:
    """`predict MODEL FILES`; the exit code is 1 if a file could not be read."""
    given, printed = _parsed(options.Predict, "predict", words, _Written)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code, predictions = 0, api.predict(**_values(given))
    with _lines(printed.out, printed.overwrite) as write:
        for prediction in predictions:
            if prediction.error:
                code = _fail(f"{prediction.name}: {prediction.error}", FAILED)
            elif printed.json:
                write(json.dumps(_plain(prediction)))
            else:
                found = [] if prediction.value is None else [f"{prediction.value:.6g}"]
                found += [f"{name}\t{probability:.4f}" for name, probability in prediction.classes.items()]
                write("\n".join(f"{prediction.name}\t{one}" for one in found or ["\t"]))
    return code


def run_transcribe(words: list[str]) -> int:
    """`transcribe MODEL FILES`; the exit code is 1 if a file could not be read."""
    given, printed = _parsed(options.Transcribe, "transcribe", words)
    code = 0
    with _lines(None, False):
        for found in api.transcribe(**_values(given)):
            if found.error:
                code = _fail(f"{found.name}: {found.error}", FAILED)
            else:
                line = f"{found.name}\t{found.text}"
                print(json.dumps(found.to_dict(), ensure_ascii=False) if printed.json else line, flush=True)
    return code


@contextmanager
def _lines(out: Path | None, overwrite: bool) -> Iterator[Callable[[str], object]]:
    """What prints a line, or writes it to a file that is there when all are; file names as they are, even no text."""
    if out is None:
        if reconfigure := getattr(sys.stdout, "reconfigure", None):
            reconfigure(errors="surrogateescape")
        yield print
        return
    from data2vec2.files import whole_file
    from data2vec2.interop.table import check_out

    check_out(out, overwrite, "predictions.tsv")
    with whole_file(out, exclusive=not overwrite) as file:
        yield lambda line: file.write(f"{line}\n".encode("utf-8", "surrogateescape"))


def _said_of_convert(found: Any) -> str:
    dropped = f"; dropped: {', '.join(found.dropped)}" if found.dropped else ""
    return f"{found.kind} {found.what}: {found.out}{dropped}"


def _said_of_export(found: Any) -> str:
    line = f"{found.kind} {found.what}: {found.out} (largest difference from PyTorch {found.largest_difference:.1e})"
    return f"{line}\n{found.int8.sentence}" if found.int8 else line


def _said_of_doctor(found: dict[str, Any]) -> str:
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found.items())


def run_tokenizer(words: list[str]) -> int:
    """`tokenizer train|original DATA --out FOLDER`."""
    given, printed = _parsed(options.Tokenizer, "tokenizer", words)
    size = api.tokenizer(**_values(given))
    print(json.dumps({"tokenizer": str(given.out), "vocab_size": size}) if printed.json else f"tokenizer: {given.out}")
    return 0


VERBS: dict[str, tuple[type[Any], Callable[[list[str]], int]]] = {
    "demo": (options.Demo, run_demo),
    "pretrain": (options.Pretrain, run_pretrain),
    "finetune": (options.Finetune, run_finetune),
    "evaluate": (options.Evaluate, run_evaluate),
    "embed": (options.Embed, run_embed),
    "predict": (options.Predict, run_predict),
    "transcribe": (options.Transcribe, run_transcribe),
    "convert": (options.Convert, lambda words: _run(words, options.Convert, "convert", _said_of_convert)),
    "export": (options.Export, lambda words: _run(words, options.Export, "export", _said_of_export)),
    "report": (options.Report, lambda words: _run(words, options.Report, "report", str)),
    "tokenizer": (options.Tokenizer, run_tokenizer),
    "doctor": (options.Doctor, lambda words: _run(words, options.Doctor, "doctor", _said_of_doctor)),
}
"""Each verb's options and what runs it."""
