"""The command line: words to options, results to lines. Only this happens here, so that `--help` needs no torch."""

from __future__ import annotations

import codecs
import dataclasses
import inspect
import json
import os
import pkgutil
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from data2vec2 import api
from data2vec2.commands import completion, flags, options
from data2vec2.commands.hints import NEXT, near, next_command
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.config.tree import to_dict
from data2vec2.errors import Stopped, UsageError, UserError
from data2vec2.modalities import finetune_config, get_recipe, recipes, run_config, specs
from data2vec2.training.progress import catch_stops
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


PRINTED = {"predict": _Written}
"""Options of verbs that say more about their printing than others."""


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    r"""What is printed for what an encoding has not: \u...; bytes of a file's name that are no text as they are."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    as_bytes = (os.fsencode(one) if "\udc80" <= one <= "\udcff" else one.encode("ascii", _ASCII) for one in found)
    return b"".join(as_bytes), error.end


_ESCAPED, _ASCII = "data2vec2", "backslashreplace"
codecs.register_error(_ESCAPED, _escaped)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code, all of which docs/troubleshooting.md lists."""
    words = list(sys.argv[1:] if argv is None else argv)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # that of stderr escapes what it can't print anyway
        reconfigure(errors=_ESCAPED)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in HELP:
        print(_usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else USAGE
    if words[0] in {"-v", "--version"}:
        print(f"data2vec2 {__version__}")
        return 0
    if words[0] not in (*VERBS, "completion"):
        hint = near(words[0], (*VERBS, "completion")) or f"; there are {', '.join(VERBS)}"
        return _fail(f"unknown command {words[0]!r}{hint}", USAGE)
    try:
        with _interruptible():
            return (VERBS[words[0]][1] if words[0] in VERBS else _completion)(words[1:])
    except UserError as error:
        return _fail(str(error), FAILED)
    except UsageError as error:
        if os.environ.get("DATA2VEC2_TRACEBACK"):
            raise
        return _fail(str(error), USAGE)
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        if error.filename is None or os.environ.get("DATA2VEC2_TRACEBACK"):
            raise
        return _fail(f"can't use {error.filename}: {error.strerror}", FAILED)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped", 128 + getattr(stop, "number", signal.SIGINT))


@contextmanager
def _interruptible() -> Iterator[None]:
    """A signal ends a command by `Stopped`, without unfinished files; a further SIGINT at once."""
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if ending and number == signal.SIGINT:
            os._exit(ABORTED)
        ending = True
        raise Stopped(number)

    hook = sys.unraisablehook
    previous = catch_stops(end)
    sys.unraisablehook = lambda lost: None if ending else hook(lost)  # of readers that are ended while they work
    try:
        yield
    finally:
        if not ending:
            sys.unraisablehook = hook
            for number, handler in previous.items():
                signal.signal(number, handler)


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<10} {(kind.__doc__ or '').strip()}" for verb, (kind, _) in VERBS.items())
    more = "data2vec2 help COMMAND shows a command's arguments, data2vec2 --version the version;\n"
    more += f"  data2vec2 completion {'|'.join(completion.SHELLS)} prints a completion script"
    return f"usage: data2vec2 COMMAND [...]\n\n{verbs}\n\n  {more}\n"


def _completion(words: list[str]) -> int:
    """Print what completes words in a shell."""
    if len(words) != 1 or words[0] not in completion.SHELLS:
        raise UsageError(f"name one shell: data2vec2 completion {'|'.join(completion.SHELLS)}")
    verbs = {verb: _with_printing(verb) for verb in VERBS}
    print(completion.script(words[0], verbs, {**first_words(), "tokenizer": ("train", "original")}), end="")
    return 0


def first_words() -> dict[str, Iterable[str]]:
    """What comes right behind a verb."""
    return {"pretrain": recipes(), "estimate": recipes(), "bench": recipes(), "finetune": _tasks(), "demo": _demos()}


def _tasks() -> list[str]:
    """What finetune can be asked for."""
    return list(dict.fromkeys(task for spec in specs().values() for task in spec.finetune))


def _demos() -> dict[str, Any]:
    """Modalities that have a demonstration."""
    return {name: spec.demo for name, spec in specs().items() if spec.demo}


def _fail(message: str, code: int) -> int:
    """Print a message to stderr; returns the exit code."""
    print(f"data2vec2: {message}", file=sys.stderr)
    return code


def _parsed(verb: str, words: Sequence[str], prog: str = "", **given: Any) -> Any:
    """The options in the words of a command line, with those of printing, and some that are given beside them.

    What sets fields of a configuration, where the verb has one, is the option `flags`.
    """
    kind, both = VERBS[verb][0], _with_printing(verb)
    names = {field.name for field in dataclasses.fields(kind)}
    if "flags" in names:
        config = FinetuneConfig if verb == "finetune" else RunConfig
        set_fields, words = flags.split(words, config, flags.own_flags(both))
        given["flags"] = tuple(set_fields)
    found = tyro.cli(both, args=list(words), prog=f"data2vec2 {prog or verb}", registry=options.WHOLE_NUMBERS)
    return kind(**{name: value for name, value in vars(found).items() if name in names} | given), found


def _with_printing(verb: str) -> type[Any]:
    """The options of a verb with those of printing: first what must be given, then the verb's own, then shared ones."""
    kind = VERBS[verb][0]  # whose own check refuses values, as we print it
    unchecked = {"__doc__": kind.__doc__, "__post_init__": lambda _: None}
    both: type[Any] = dataclasses.dataclass(type(kind.__name__, (PRINTED.get(verb, _Printed), kind), unchecked))
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


def _first(words: list[str]) -> str | None:
    """What comes right behind a verb, if that is no option."""
    return words[0] if words and not words[0].startswith("-") else None


def _pretrain(words: list[str]) -> int:
    if HELP & set(words):
        return _help_on_recipe("pretrain", words)
    if _first(words) is None:
        raise UsageError("the recipe comes first: data2vec2 pretrain RECIPE DATA --out RUN [...]")
    given, printed = _parsed("pretrain", words)
    return _trained(api.pretrain(**vars(given)), given, printed, ["pretrain", *words])


def _finetune(words: list[str]) -> int:
    tasks = _tasks()
    task, known = words[0] if words and words[0] in tasks else None, "|".join(tasks)
    if HELP & set(words):
        named = [word for place, word in enumerate(words) if words[place - 1] == "--recipe"]
        named += [name for spec in specs().values() for name in spec.finetune.get(task or tasks[0], ())]
        return _help(f"finetune {task or known}", finetune_config(named[0]))
    if task is None:
        found = f", not {words[0]!r}" if words else ""
        raise UsageError(f"the task comes first{found}: data2vec2 finetune {known} MODEL DATA --out RUN [...]")
    given, printed = _parsed("finetune", words[1:], prog=f"finetune {task}", task=task)
    outcome = api.finetune(**vars(given))
    if not given.sweep and given.seeds == 1:
        return _trained(outcome, given, printed, ["finetune", *words])
    from data2vec2.commands.sweep import format_sweep

    if printed.json:
        print(_json({"out": given.out, **vars(outcome), "rates": outcome.scores.get("rates", [])}))
    elif outcome.scores:
        print(format_sweep(outcome.scores))
        if outcome.run:
            print(f"best: rate {outcome.scores['rates'][0]['lr']:g}, {outcome.run}")
            _say_next(printed, "finetune", verb=_verb_of(task), out=outcome.run)
    return STATES[outcome.state]


def _demo(words: list[str]) -> int:
    demos = _demos()
    kind = words.pop(0) if _first(words) else next(iter(demos))
    if kind not in demos:
        raise UsageError(f"unknown demo {kind!r}; there are: {', '.join(demos)}")
    if HELP & set(words):
        return _help(f"demo {kind}", get_recipe(demos[kind].recipe))
    given, printed = _parsed("demo", words, prog=f"demo {kind}", kind=kind)
    result = api.demo(**vars(given))
    if printed.json:
        scores = {"scores": result.scores, **({"longer": result.longer} if result.longer else {})}
        print(_json({**vars(result.outcome), "run": result.run, **scores}))
    elif result.scores:
        from data2vec2.commands.evaluate import format_scores

        print(f"\nAccuracy on {result.scores.test_samples:,} test {specs()[kind].words.many}, in percent:\n")
        print(format_scores(result.scores))
        if result.longer:
            print(f"\nThe same of a bundled model of {demos[kind].recipe}, trained for {result.how_long}:\n")
            print(format_scores(result.longer))
        print(f"\nreport: {result.run / 'report.html'}")
        _say_next(printed, "demo")
    return STATES[result.outcome.state]


def _help(verb: str, config: RunConfig | FinetuneConfig) -> int:
    """Print a verb's arguments, and the fields of a configuration that flags can set."""
    with suppress(SystemExit):
        tyro.cli(_with_printing(verb.split()[0]), args=["--help"], prog=f"data2vec2 {verb}")
    print(f"\nFields of the configuration, as {config.recipe} has them:\n")
    flags.print_help(config)
    return 0


def _help_on_recipe(verb: str, words: list[str]) -> int:
    """The same of a verb that takes a recipe first; without one, with the fields of the first recipe."""
    return _help(verb, run_config(_first(words) or next(iter(recipes()))))


def _trained(outcome: Any, given: Any, printed: _Printed, words: list[str]) -> int:
    if outcome.plan and not printed.json:
        print(_said_of_plan(outcome.plan, given))
    if printed.json:
        found = {name: value for name, value in vars(outcome).items() if name != "plan"} | {"run": given.out}
        print(_json(found | ({"plan": outcome.plan} if outcome.plan else {})))
    elif outcome.state == "finished":
        print(f"model: {given.out / 'exported'}\nreport: {given.out / 'report.html'}")
        several = {"data": "DATA"} if isinstance(given.data, tuple) and len(given.data) > 1 else {}
        _say_next(printed, words[0], **{**vars(given), **several}, verb=_verb_of(words[1]))
    elif outcome.state in ("interrupted", "planned"):
        resume = ["--resume"] if outcome.state == "interrupted" else []
        gone = {"--dry-run", *resume, *(["--overwrite"] if resume else [])}
        again = [word for word in words if word.replace("_", "-") not in gone]
        print(f"next: data2vec2 {shlex.join([*again, *resume])}", file=sys.stderr)
    return STATES[outcome.state]


def _verb_of(task: str) -> str:
    """What a model of a task of fine-tuning is for."""
    return "transcribe" if task == "ctc" else "predict"


def _say_next(printed: _Printed, verb: str, /, **values: Any) -> None:
    """Say which command makes sense now, to those who read and not to programs."""
    if not printed.json:
        print(next_command(verb, **values), file=sys.stderr)


# Verbs that use a model, and others


def _evaluate(words: list[str]) -> int:
    given, printed = _parsed("evaluate", words)
    from data2vec2.commands.evaluate import evaluate_any

    found, said = evaluate_any(given)
    print(_json(found) if printed.json else said)
    if isinstance(found, dict) or found.own:  # of a fine-tuned model's own output
        verb = "transcribe" if isinstance(found, dict) and "cer" in found else "predict"
        _say_next(printed, "finetune", out=given.model, verb=verb)
    else:
        _say_next(printed, "evaluate", **vars(given))
    return 0


def _tokenizer(words: list[str]) -> int:
    given, printed = _parsed("tokenizer", words)
    size = api.tokenizer(**vars(given))
    print(_json({"tokenizer": given.out, "vocab_size": size}) if printed.json else f"tokenizer: {given.out}")
    _say_next(printed, "tokenizer", **vars(given))
    return 0


def _predict(words: list[str]) -> int:
    given, printed = _parsed("predict", words)
    predictions = api.predict(**vars(given))
    with _lines(printed.out, printed.overwrite) as write:
        code = _each(predictions, write, _json if printed.json else _said_of_prediction)
    if not code:
        _say_next(printed, "predict", **vars(given))
    return code


def _transcribe(words: list[str]) -> int:
    given, printed = _parsed("transcribe", words)
    said = partial(_json, ensure_ascii=False) if printed.json else lambda found: f"{_cell(found.name)}\t{found.text}"
    code = _each(api.transcribe(**vars(given)), partial(print, flush=True), said)
    if not code:
        _say_next(printed, "transcribe", **vars(given))
    return code


def _each(results: Iterable[Any], write: Callable[[str], object], said: Callable[[Any], str]) -> int:
    """Write what is said of each file, or to stderr why it could not be read; returns the exit code."""
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
    if verb in ("estimate", "bench") and HELP & set(words):
        return _help_on_recipe(verb, words)
    given, printed = _parsed(verb, words)
    result = getattr(api, verb)(**vars(given))
    print(_json(result) if printed.json else said(result, given))
    if verb in NEXT and getattr(given, "to", "") != "fairseq":
        of_kind = {"recipe": next(iter(specs()[result.kind].recipes))} if hasattr(result, "kind") else {}
        _say_next(printed, verb, **vars(given), **of_kind)
    return 0


def _said_of_embed(found: Any, given: options.Embed) -> str:
    said = specs()[found.kind].words
    each = f"a {said.token}" if given.pool == "none" else "each"
    return f"features: {found.out} ({found.rows:,} {said.many}, {found.dim} numbers {each})"


def _said_of_plan(plan: Any, given: Any) -> str:
    """Ten lines, and where it was asked for the configuration."""
    from data2vec2.commands.estimate import format_plan

    if not given.show_config:
        return format_plan(plan)
    import yaml

    return f"{format_plan(plan)}\n\n{yaml.safe_dump(to_dict(plan.config), sort_keys=False).rstrip()}"


def _said_by(function: str) -> Callable[[Any, Any], str]:
    """What a function of `commands` says of a result; it is imported when there is one."""
    return lambda found, _: pkgutil.resolve_name(f"data2vec2.commands.{function}")(found)


def _said_of_prediction(found: Any) -> str:
    lines = [] if found.value is None else [f"{found.value:.6g}"]
    lines += [f"{_cell(name)}\t{probability:.4f}" for name, probability in found.classes.items()]
    parts = ((f"{v:.4f}" if isinstance(v, float) else _cell(str(v)) for v in one.values()) for one in found.parts)
    lines += map("\t".join, parts)
    return "\n".join(f"{_cell(found.name)}\t{line}" for line in lines or ["\t"])


def _cell(text: str) -> str:
    r"""A name in a line of cells with tabs between them: \t, \n and \r for what would end it."""
    return text.translate({ord(sign): repr(sign)[1:-1] for sign in "\t\n\r"})


def _said_of_convert(found: Any, _: Any) -> str:
    dropped = f"; dropped: {', '.join(found.dropped)}" if found.dropped else ""
    return f"{found.kind} {found.what}: {found.out}{dropped}"


def _said_of_export(found: Any, _: Any) -> str:
    line = f"{found.kind} {found.what}: {found.out} (largest difference from PyTorch {found.largest_difference:.1e})"
    line += f"\n{found.int8.sentence}" if found.int8 else ""
    return f"{line}\nuploaded: {found.pushed}" if found.pushed else line


def _said_of_doctor(found: dict[str, Any], _: Any) -> str:
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found.items())


VERBS: dict[str, tuple[type[Any], Callable[[list[str]], int]]] = {
    "demo": (options.Demo, _demo),
    "recipes": (options.Recipes, partial(_run, "recipes", _said_by("estimate:format_recipes"))),
    "estimate": (options.Estimate, partial(_run, "estimate", _said_of_plan)),
    "pretrain": (options.Pretrain, _pretrain),
    "finetune": (options.Finetune, _finetune),
    "evaluate": (options.Evaluate, _evaluate),
    "inspect": (options.Inspect, partial(_run, "inspect", _said_by("inspect:format_inspection"))),
    "embed": (options.Embed, partial(_run, "embed", _said_of_embed)),
    "predict": (options.Predict, _predict),
    "transcribe": (options.Transcribe, _transcribe),
    "convert": (options.Convert, partial(_run, "convert", _said_of_convert)),
    "export": (options.Export, partial(_run, "export", _said_of_export)),
    "report": (options.Report, partial(_run, "report", lambda page, _: str(page))),
    "tokenizer": (options.Tokenizer, _tokenizer),
    "bench": (options.Bench, partial(_run, "bench", _said_by("bench:format_speeds"))),
    "doctor": (options.Doctor, partial(_run, "doctor", _said_of_doctor)),
}
"""Each verb's options and what runs it."""
