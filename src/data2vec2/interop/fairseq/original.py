"""The original's `.pt` files: read without running what a stranger may have put into them, recognised, and written."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data2vec2.errors import UserError
from data2vec2.files import parse_yaml, whole_file
from data2vec2.interop.fairseq.keys import CALLED, EMBEDDING, KINDS, STRAY
from data2vec2.modalities.text.tokenizer import SPECIAL

DICTIONARY = "fairseq.data.dictionary.Dictionary"
"""The class of the vocabulary in files that were fine-tuned for speech; only its list of symbols is looked at."""
Stage = Literal["pretraining", "classifier", "recognizer"]
EMOTION2VEC = "d2v_model."
"""And in FunASR's classifiers of emotions."""
# stage            of what               before the encoder's names
PREFIXES: tuple[tuple[Stage, tuple[str, ...], str], ...] = (
    ("pretraining", KINDS,               ""),
    ("classifier",  ("image", "text"),   "model."),
    ("classifier",  ("audio",),          EMOTION2VEC),
    ("recognizer",  ("audio",),          "w2v_encoder.w2v_model."),
)  # fmt: skip
PRETRAINED_AS = {"classifier": "pretrained_model_args", "recognizer": "w2v_args"}
"""Where in the model's configuration that of its pre-training stands."""
HEADS = "classification_heads."
LETTERS = "dict.ltr.txt"
"""A recogniser's letters, in a file beside its own."""
FUNASR, EMOTIONS = "config.yaml", "tokens.txt"
"""Beside files of emotion2vec, as FunASR has them: a model's configuration, and the names of its classes."""
FIRST_VERSION = ("data2vec_audio", "data2vec_text", "data2vec_vision", "beit", "data2vec_image")

_SCALAR = np.float64(0).__reduce__()[0]
# What a file may hold beside tensors and plain containers.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqefd"},
]


class StandIn:
    """What is read in place of an object of another program: its state, and nothing that could act."""

    of: str
    """The object's class."""
    state: dict[str, Any]

    def __new__(cls, *arguments: Any) -> StandIn:
        """Keep what the object would have been made of."""
        made = super().__new__(cls)
        made.state = {"arguments": list(arguments)} if arguments else {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state |= state if isinstance(state, dict) else {"state": state}


@dataclass(frozen=True, kw_only=True)
class Original:
    """What a `.pt` file of the original holds."""

    kind: str
    stage: Stage
    cfg: Any
    """The whole configuration, as it stands in the file; none where there is none."""
    student: dict[str, Tensor]
    """The encoder that was trained (in a pre-trained file with the decoder), without `PREFIXES`."""
    ema: dict[str, Tensor]
    """The teacher; empty where the file has none."""
    head: dict[str, Tensor]
    """What fine-tuning put on top, without the name that a head of text has."""
    head_name: str = ""
    """That name."""
    symbols: tuple[str, ...] | None = None
    """What a recogniser writes, in the order of its outputs, if the file says so."""
    dropped: tuple[str, ...] = ()
    """What else is in the file."""

    @property
    def pretraining_cfg(self) -> Any:
        """The configuration that the encoder was pre-trained with; none where the file has none."""
        return _pretrained(self.stage, self.cfg)

    @property
    def of_funasr(self) -> bool:
        """Whether this is a classifier of emotion2vec, which FunASR saves with other files."""
        return prefix_of(self.stage, self.kind) == EMOTION2VEC

    @property
    def lacks_decoder(self) -> bool:
        """Whether this is a pre-trained file of which only the encoder is left."""
        return self.stage == "pretraining" and not any(".decoder." in name for name in self.student)

    @property
    def vocabulary(self) -> tuple[int, ...] | None:
        """Entries and width of the vocabulary of a model that reads text."""
        found = self.student.get(EMBEDDING)
        return tuple(found.shape) if found is not None and found.ndim == 2 else None


def _pretrained(stage: Stage, cfg: Any) -> Any:
    """The configuration of pre-training in that of a file."""
    if stage == "pretraining" or get(cfg, "model.modalities") is not None:
        return cfg
    found = get(cfg, f"model.{PRETRAINED_AS[stage]}")
    return found if found is None or get(found, "model") is not None else {"model": found}  # the model's part alone


def get(values: Any, path: str, default: Any = None) -> Any:
    """What stands at a path of nested mappings or namespaces, else `default`."""
    for name in path.split("."):
        values = values if isinstance(values, Mapping) else getattr(values, "__dict__", {})
        if name not in values:
            return default
        values = values[name]
    return values


def read_checkpoint(path: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """The content of an original `.pt` file: tensors, plain values, and a `StandIn` for each object of `allow`.

    `UserError` if it can't be read, is not a dictionary, or holds objects of other classes.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a .pt file of the original")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise UserError(f"{path} is empty, so it can't be read as a checkpoint; it is damaged or cut short")
    if start.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page, not a checkpoint; download it again")
    stand_ins = [(type(name.rpartition(".")[2], (StandIn,), {"of": name}), name) for name in (DICTIONARY, *allow)]
    try:
        with torch.serialization.safe_globals([*_ALLOWED, *stand_ins]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below
            # Mapped into memory, so that the optimiser's part of the file is not read.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise UserError(_reason(path, str(error) or type(error).__name__)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the dictionary of a checkpoint")
    return content


def _reason(path: Path, message: str) -> str:
    """Why a file was not read, in the user's words."""
    named = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message)
    if named is None:
        # PyTorch's own message may advise to read it in a way that runs whatever is in it.
        why = "" if "weights_only" in message else f" ({message.splitlines()[0].partition('. ')[0]})"
        return f"{path} can't be read as a checkpoint; it may be damaged or cut short, or another kind of file{why}"
    if "is blocked" in message:
        return f"{path} calls {named[1]}: it is a program in disguise and is not read"
    name = named[1] if "." in named[1] else f"builtins.{named[1]}"  # as PyTorch's message shortens it
    return (
        f"{path} can't be read as a checkpoint: it holds an object of {name}, and files are read only if they hold "
        "tensors and plain values, because others could run a program; data2vec2 convert --allow "
        f"{name} reads its state as plain values, and runs nothing of it"
    )


def read_original(path: Path, allow: Sequence[str] = ()) -> Original:
    """Read a file; `UserError` if it is damaged, dangerous or no data2vec 2.0 model of one kind of input."""
    content = read_checkpoint(path, allow)
    tensors = _tensors(content.get("model"), path)
    ema = _tensors(tensors.pop("_ema", {}), path)
    stage, kind = _recognise(tensors, content.get("cfg"), path)
    prefix = prefix_of(stage, kind)
    student = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    head = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    names = {name.split(".")[1] for name in head if name.startswith(HEADS)}
    if len(names) > 1:
        raise UserError(f"{path} has several heads ({', '.join(sorted(names))}); only files with one are converted")
    letters = get(content, "task_state.target_dictionary")
    symbols = letters.state.get("symbols") if isinstance(letters, StandIn) and letters.of == DICTIONARY else None
    strays = [name for name in (*tensors, *ema) if name.endswith(STRAY)]
    kept = {"cfg", "model"} | ({"task_state"} if stage == "recognizer" else set())
    return Original(
        kind=kind,
        stage=stage,
        cfg=content.get("cfg"),
        student=student,
        ema=ema,
        head={re.sub(rf"^{re.escape(HEADS)}[^.]+\.", HEADS, name): tensor for name, tensor in head.items()},
        head_name="".join(names),
        symbols=tuple(map(str, symbols)) if isinstance(symbols, list) else None,
        dropped=(*sorted(name for name in content.keys() - kept if content[name]), *strays),
    )


def prefix_of(stage: Stage, kind: str) -> str:
    """What stands before the names of the encoder's tensors."""
    return next(prefix for of, kinds, prefix in PREFIXES if of == stage and CALLED.get(kind, kind) in kinds)


def read_description(path: Path, allow: Sequence[str] = ()) -> Any:
    """The configuration of pre-training in a `.pt` file, or in FunASR's `config.yaml`; `UserError` as of these."""
    if path.suffix != Path(FUNASR).suffix:
        return read_original(path, allow).pretraining_cfg
    try:
        text = re.sub(r"(?m): (\d+)e(-?\d+)\s*$", r": \1.0e\2", path.read_text("utf-8"))  # which YAML takes for words
        model = get(parse_yaml(text), "model_conf")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if model is None:
        raise UserError(f"{path} has no model_conf, so it does not describe a model of FunASR")
    return {"model": model, "task": {"normalize": get(model, "normalize", True)}}


def _tensors(value: Any, path: Path) -> dict[str, Any]:
    """A copy of a flat state dict; `UserError` for another thing."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path} holds no `model` with named tensors, so it is not a checkpoint of data2vec 2.0")
    if others := [name for name, tensor in value.items() if name != "_ema" and not isinstance(tensor, Tensor)]:
        raise UserError(f"{path} holds no tensor under {others[0]}, so it is not a checkpoint of data2vec 2.0")
    return dict(value)


def _recognise(tensors: Mapping[str, Any], cfg: Any, path: Path) -> tuple[Stage, str]:
    """What a file is, by the names of its tensors."""
    found = {(m[1], m[2].lower()) for name in tensors if (m := re.match(r"(.*?)modality_encoders\.([A-Z]+)\.", name))}
    known = [(stage, kind) for stage, kinds, prefix in PREFIXES for kind in kinds if (prefix, kind) in found]
    if len(found) == len(known) == 1:
        stage, kind = known[0]
        if get(_pretrained(stage, cfg), f"model.modalities.{kind}.target_length") is None:  # which only EAT's have
            return stage, kind
        return stage, next(ours for ours, theirs in CALLED.items() if theirs == kind)
    if found:
        which = ", ".join(sorted(f"{prefix}{kind}" for prefix, kind in found))
        raise UserError(f"{path} holds encoders of {which}; only models of one of image, audio and text are converted")
    name = str(get(cfg, "model._name") or "")
    if name in FIRST_VERSION:
        name = f"{name} (version 1 of data2vec)"
    elif any(".feature_extractor.conv_layers" in f".{tensor}" for tensor in tensors):
        name = f"{name or 'wav2vec'} (wav2vec 2.0, HuBERT or version 1 of data2vec)"
    says = f"its architecture is {name}" if name else f"its first tensor is {next(iter(tensors), 'missing')}"
    raise UserError(f"{path} is not a data2vec 2.0 model, so it can't be converted: {says}")


def write_original(path: Path, original: Original, step: int = 0) -> None:
    """Write a file as the original's tools read it, whole or not at all, and a recogniser's letters beside it.

    It has what the original's loader looks at besides; its optimiser starts anew. `UserError` if it can't be written.
    """
    dictionary, letters = path.with_name(LETTERS), list((original.symbols or ())[len(SPECIAL) :])
    if letters and dictionary.exists() and read_letters(dictionary) != letters:  # found before anything is written
        raise UserError(f"{dictionary} exists, with other letters; give OUT in another folder")
    heads, history = f"{HEADS}{original.head_name}.", {"criterion_name": "ModelCriterion", "num_updates": step}
    prefix = prefix_of(original.stage, original.kind)
    model: dict[str, Any] = {prefix + name: tensor for name, tensor in original.student.items()}
    model |= {name.replace(HEADS, heads, 1): tensor for name, tensor in original.head.items()}
    content = {
        "args": None,
        "cfg": original.cfg,
        "model": model | ({"_ema": original.ema} if original.ema else {}),
        "criterion": None,
        "optimizer_history": [{**history, "optimizer_name": "FairseqOptimizer", "lr_scheduler_state": {}}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "previous_training_time": 0},
        "last_optimizer_state": None,
    }
    with whole_file(path, exclusive=True) as file:
        torch.save(content, file)
    if letters and not dictionary.exists():
        with whole_file(dictionary) as file:
            file.writelines(f"{letter} 1\n".encode() for letter in letters)


def read_letters(dictionary: Path) -> list[str]:
    """The symbols of a dictionary of the original, which has one and a count on each line."""
    return [line.rsplit(" ", 1)[0] for line in read_lines(dictionary)]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def to_json(value: Any) -> Any:
    """Nested plain values as JSON has them, from which `from_json` makes the same; objects as their state."""
    if isinstance(value, argparse.Namespace):
        return {"<type>": "Namespace", "value": to_json(vars(value))}
    if isinstance(value, StandIn):
        return {"<type>": value.of, "value": to_json(value.state)}
    if isinstance(value, tuple):
        return {"<type>": "tuple", "value": to_json(list(value))}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {"<type>": "items", "value": [to_json([key, item]) for key, item in value.items()]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def from_json(value: Any) -> Any:
    """Undo `to_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if make := _MADE_OF.get(value.get("<type>", "")):
        return make(from_json(value["value"]))
    return {key: from_json(item) for key, item in value.items()}


_MADE_OF: dict[str, Any] = {"Namespace": lambda found: argparse.Namespace(**found), "tuple": tuple, "items": dict}
