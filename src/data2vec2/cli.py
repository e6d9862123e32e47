"""The command line: words to options, results to lines. Only this happens here, so that `--help` needs no torch."""

from __future__ import annotations

import codecs
import dataclasses
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from data2vec2 import api
from data2vec2.commands import flags, options
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities import finetune_config, get_recipe, recipes, run_config, specs
from data2vec2.version import __version__

FAILED, USAGE, ALARM, INTERRUPTED, ABORTED = 1, 2, 3, 75, 130
STATES = {"finished": 0, "planned": 0, "helped": 0, "diverged": ALARM, "collapsed": ALARM, "interrupted": INTERRUPTED}
HELP = {"-h", "--help"}


@dataclasses.dataclass
class _Printed:
    _: dataclasses.KW_ONLY
    json: bool = False
    """Print the outcome as JSON."""


@dataclasses.dataclass
class _Written(_Printed):
    out: Path | None = None
    """File to write instead of printing."""
    overwrite: bool = False
    """Replace an existing file."""


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    r"""What is printed for what an encoding has not: \u...; bytes of a file's name that are no text as they are."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    as_bytes = (os.fsencode(one) if "\udc80" <= one <= "\udcff" else one.encode("ascii", _ASCII) for one in found)
    return b"".join(as_bytes), error.end


_ESCAPED, _ASCII = "data2vec2", "backslashreplace"
codecs.register_error(_ESCAPED, _escaped)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (0 done, 1 failed, 2 usage, 3 alarm, 75 interrupted, 130 Ctrl-C)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # that of stderr escapes what it can't print anyway
        reconfigure(errors=_ESCAPED)
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
    verbs = "\n".join(f"  {verb:<10} {(kind.__doc__ or '').strip()}" for verb, (kind, _) in VERBS.items())
    more = "data2vec2 COMMAND --help shows a command's arguments; data2vec2 --version the version"
    return f"usage: data2vec2 COMMAND [...]\n\n{verbs}\n\n  {more}\n"


def _fail(message: str, code: int) -> int:
    """Print a message to stderr; returns the exit code."""
    print(f"data2vec2: {message}", file=sys.stderr)
    return code


def _parsed(verb: str, words: Sequence[str], how: type[_Printed] = _Printed, prog: str = "", **given: Any) -> Any:
    """The options in the words of a command line, with those of printing, and some that are given beside them."""
    kind = VERBS[verb][0]
    found = tyro.cli(_with_printing(kind, how), args=list(words), prog=f"data2vec2 {prog or verb}")
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in vars(found).items() if name in names} | given), found


def _with_printing(kind: type[Any], how: type[_Printed] = _Printed) -> type[Any]:
    """The options of a verb with those of printing: first what must be given, then the verb's own, then shared ones."""
    unchecked = {
        "__doc__": kind.__doc__,
        "__post_init__": lambda _: None,
    }  # the verb's own refuse values, as we print it
    both: type[Any] = dataclasses.dataclass(type(kind.__name__, (how, kind), unchecked))
    own, fields = inspect.get_annotations(kind), both.__dataclass_fields__.values()
    ordered = sorted(fields, key=lambda field: (field.default is not dataclasses.MISSING, field.name not in own))
    both.__dataclass_fields__ = {field.name: field for field in ordered}
    return both


def _json(result: Any, **how: Any) -> str:
    return json.dumps(result, default=_plain, **how)


def _plain(value: Any) -> Any:
    """What JSON has no word for: a path, or a result."""
    if isinstance(value, Path):
        return str(value)
    return value.to_dict() if hasattr(value, "to_dict") else vars(value)


# Verbs that train


def _pretrain(words: list[str]) -> int:
    first = words[0] if words and not words[0].startswith("-") else None
    if HELP & set(words):
        return _help(options.Pretrain, "pretrain", run_config(first) if first else get_recipe(next(iter(recipes()))))
    if first is None:
        raise UsageError("the recipe comes first: data2vec2 pretrain RECIPE DATA --out RUN [...]")
    set_fields, rest = flags.split(words, RunConfig)
    given, printed = _parsed("pretrain", rest, flags=tuple(set_fields))
    return _trained(api.pretrain(**vars(given)), given.out, printed.json)


def _finetune(words: list[str]) -> int:
    tasks = list(dict.fromkeys(task for spec in specs().values() for task in spec.finetune))
    task, known = words[0] if words and words[0] in tasks else None, "|".join(tasks)
    if HELP & set(words):
        named = [word for place, word in enumerate(words) if words[place - 1] == "--recipe"]
        named += [name for spec in specs().values() for name in spec.finetune.get(task or tasks[0], ())]
        return _help(options.Finetune, f"finetune {task or known}", finetune_config(named[0]))
    if task is None:
        found = f", not {words[0]!r}" if words else ""
        raise UsageError(f"the task comes first{found}: data2vec2 finetune {known} MODEL DATA --out RUN [...]")
    set_fields, rest = flags.split(words[1:], FinetuneConfig)
    given, printed = _parsed("finetune", rest, prog=f"finetune {task}", flags=tuple(set_fields), task=task)
    if not given.sweep and given.seeds == 1:
        outcome, path = api.finetune(**vars(given)), given.out / "scores.json"
        scores = json.loads(path.read_text()) if outcome.state == "finished" and path.exists() else None
        return _trained(outcome, given.out, printed.json, scores=scores)
    from data2vec2.commands.sweep import format_sweep, sweep

    outcome, rows = sweep(given)
    if printed.json:
        print(_json({"out": given.out, **vars(outcome), "rates": rows}))
    elif rows:
        print(format_sweep(rows))
        if rows[0].run:
            print(f"best: rate {rows[0].lr:g}, {given.out / rows[0].run}")
    return STATES[outcome.state]


def _demo(words: list[str]) -> int:
    demos = {name: spec.demo for name, spec in specs().items() if spec.demo}
    kind = words.pop(0) if words and not words[0].startswith("-") else next(iter(demos))
    if kind not in demos:
        raise UsageError(f"unknown demo {kind!r}; there are: {', '.join(demos)}")
    if HELP & set(words):
        return _help(options.Demo, f"demo {kind}", get_recipe(demos[kind].recipe))
    set_fields, rest = flags.split(words, RunConfig)
    given, printed = _parsed("demo", rest, prog=f"demo {kind}", flags=tuple(set_fields), kind=kind)
    result = api.demo(**vars(given))
    if printed.json:
        print(_json({"run": result.run, "scores": result.scores, **vars(result.outcome)}))
    elif result.scores:
        from data2vec2.commands.evaluate import format_scores

        print(f"\nAccuracy on {result.scores.test_samples:,} test {specs()[kind].words.many}, in percent:\n")
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
    if as_json:
        print(_json({"run": out, **vars(outcome), **more}))
    elif outcome.state == "finished":
        print(f"model: {out / 'exported'}\nreport: {out / 'report.html'}")
    return STATES[outcome.state]


# Verbs that use a model, and others


def _evaluate(words: list[str]) -> int:
    given, printed = _parsed("evaluate", words)
    from data2vec2.commands.evaluate import evaluate_any

    found, said = evaluate_any(given)
    print(_json(found) if printed.json else said)
    return 0


def _tokenizer(words: list[str]) -> int:
    given, printed = _parsed("tokenizer", words)
    size = api.tokenizer(**vars(given))
    print(_json({"tokenizer": given.out, "vocab_size": size}) if printed.json else f"tokenizer: {given.out}")
    return 0


def _predict(words: list[str]) -> int:
    given, printed = _parsed("predict", words, _Written)
    predictions = api.predict(**vars(given))
    with _lines(printed.out, printed.overwrite) as write:
        return _each(predictions, write, _json if printed.json else _said_of_prediction)


def _transcribe(words: list[str]) -> int:
    given, printed = _parsed("transcribe", words)
    said = partial(_json, ensure_ascii=False) if printed.json else lambda found: f"{_cell(found.name)}\t{found.text}"
    with _lines(None, False) as write:
        return _each(api.transcribe(**vars(given)), partial(write, flush=True), said)


def _each(results: Iterable[Any], write: Callable[[str], object], said: Callable[[Any], str]) -> int:
    """Write what is said of each file, or to stderr why it could not be read; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: without an unfinished file
    code = 0
    for found in results:
        if found.error:
            code = _fail(f"{found.name}: {found.error}", FAILED)
        else:
            write(said(found))
    return code


@contextmanager
def _lines(out: Path | None, overwrite: bool) -> Iterator[Callable[..., object]]:
    """What prints a line, or writes it to a file that is there when all are."""
    if out is None:
        yield print
        return
    from data2vec2.files import whole_file
    from data2vec2.interop.table import check_out

    check_out(out, overwrite, "predictions.tsv")
    with whole_file(out, exclusive=not overwrite) as file:
        yield lambda line: file.write(f"{line}\n".encode("utf-8", "surrogateescape"))


def _run(verb: str, said: Callable[[Any, Any], str], words: list[str]) -> int:
    """A verb whose result is printed whole: what is `said` of it and of what was asked for."""
    given, printed = _parsed(verb, words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = getattr(api, verb)(**vars(given))
    print(_json(result) if printed.json else said(result, given))
    return 0


def _said_of_embed(found: Any, given: options.Embed) -> str:
    said = specs()[found.kind].words
    each = f"a {said.token}" if given.pool == "none" else "each"
    return f"features: {found.out} ({found.rows:,} {said.many}, {found.dim} numbers {each})"


def _said_of_inspect(found: Any, _: Any) -> str:
    from data2vec2.commands.inspect import format_inspection

    return format_inspection(found)


def _said_of_prediction(found: Any) -> str:
    lines = [] if found.value is None else [f"{found.value:.6g}"]
    lines += [f"{_cell(name)}\t{probability:.4f}" for name, probability in found.classes.items()]
    return "\n".join(f"{_cell(found.name)}\t{line}" for line in lines or ["\t"])


def _cell(text: str) -> str:
    r"""A name in a line of cells with tabs between them: \t, \n and \r for what would end it."""
    return text.translate({ord(sign): repr(sign)[1:-1] for sign in "\t\n\r"})


def _said_of_convert(found: Any, _: Any) -> str:
    dropped = f"; dropped: {', '.join(found.dropped)}" if found.dropped else ""
    return f"{found.kind} {found.what}: {found.out}{dropped}"


def _said_of_export(found: Any, _: Any) -> str:
    line = f"{found.kind} {found.what}: {found.out} (largest difference from PyTorch {found.largest_difference:.1e})"
    return f"{line}\n{found.int8.sentence}" if found.int8 else line


def _said_of_doctor(found: dict[str, Any], _: Any) -> str:
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found.items())


VERBS: dict[str, tuple[type[Any], Callable[[list[str]], int]]] = {
    "demo": (options.Demo, _demo),
    "pretrain": (options.Pretrain, _pretrain),
    "finetune": (options.Finetune, _finetune),
    "evaluate": (options.Evaluate, _evaluate),
    "inspect": (options.Inspect, partial(_run, "inspect", _said_of_inspect)),
    "embed": (options.Embed, partial(_run, "embed", _said_of_embed)),
    "predict": (options.Predict, _predict),
    "transcribe": (options.Transcribe, _transcribe),
    "convert": (options.Convert, partial(_run, "convert", _said_of_convert)),
    "export": (options.Export, partial(_run, "export", _said_of_export)),
    "report": (options.Report, partial(_run, "report", lambda page, _: str(page))),
    "tokenizer": (options.Tokenizer, _tokenizer),
    "doctor": (options.Doctor, partial(_run, "doctor", _said_of_doctor)),
}
"""Each verb's options and what runs it."""
