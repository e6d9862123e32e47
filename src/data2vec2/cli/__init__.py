"""The command line: verb to command. Only parsing happens here, so that `--help` needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from data2vec2.cli.common import ABORTED, FAILED, USAGE, fail
from data2vec2.cli.convert import Convert, run_convert
from data2vec2.cli.export import Export, run_export
from data2vec2.cli.features import Embed, Predict, run_embed, run_predict
from data2vec2.cli.finetune import Finetune, run_finetune
from data2vec2.cli.report import Report, run_report
from data2vec2.cli.speech import Transcribe, run_transcribe
from data2vec2.cli.tokenizer import Tokenizer, run_tokenizer
from data2vec2.cli.train import Demo, Pretrain, run_demo, run_pretrain
from data2vec2.cli.use import Doctor, Evaluate, run_doctor, run_evaluate
from data2vec2.errors import UserError
from data2vec2.version import __version__

VERBS = {
    "demo": (run_demo, Demo),
    "pretrain": (run_pretrain, Pretrain),
    "finetune": (run_finetune, Finetune),
    "evaluate": (run_evaluate, Evaluate),
    "embed": (run_embed, Embed),
    "predict": (run_predict, Predict),
    "transcribe": (run_transcribe, Transcribe),
    "convert": (run_convert, Convert),
    "export": (run_export, Export),
    "report": (run_report, Report),
    "tokenizer": (run_tokenizer, Tokenizer),
    "doctor": (run_doctor, Doctor),
}
"""Each verb's function, and the class whose docstring says what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (0 done, 1 failed, 2 usage, 3 alarm, 75 interrupted, 130 Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"data2vec2 {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        return fail(f"unknown command {verb!r}; there are {', '.join(VERBS)}", USAGE)
    try:
        return VERBS[verb][0](rest)
    except UserError as error:
        return fail(str(error), FAILED)
    except ValueError as error:
        if os.environ.get("DATA2VEC2_TRACEBACK"):
            raise
        return fail(str(error), USAGE)
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return fail("stopped", ABORTED)


def _usage() -> str:
    lines = [f"  {verb:<10} {(kind.__doc__ or '').strip()}" for verb, (_, kind) in VERBS.items()]
    return (
        "usage: data2vec2 COMMAND [...]\n\n"
        + "\n".join(lines)
        + ("\n\n  data2vec2 COMMAND --help shows a command's arguments; data2vec2 --version the version\n")
    )
