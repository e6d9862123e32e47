"""A checkpoint of the original as one object: which model it is, and its parts by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from data2vec2.errors import UserError
from data2vec2.interop.fairseq.files import DICTIONARY, StandIn, read_checkpoint
from data2vec2.interop.fairseq.keys import STRAY, Kind

Job = Literal["pretraining", "classifier", "recognizer"]
PREFIXES: dict[Job, str] = {"pretraining": "", "classifier": "model.", "recognizer": "w2v_encoder.w2v_model."}
"""What stands before the encoder's names."""
HEADS = "classification_heads."
FIRST_VERSION = ("data2vec_audio", "data2vec_text", "data2vec_vision", "beit", "data2vec_image")


@dataclass(frozen=True, kw_only=True)
class Original:
    """What a `.pt` file of the original holds."""

    kind: Kind
    job: Job
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
        model = _of(self.cfg, "model")
        if self.job == "pretraining":
            return self.cfg
        found = _of(model, "pretrained_model_args" if self.job == "classifier" else "w2v_args")
        if found is not None and _of(found, "model") is None:  # the model's part alone
            found = {"model": found}
        return found


def read_original(path: Path, allow: Sequence[str] = ()) -> Original:
    """Read a file; `UserError` if it is damaged, dangerous or no data2vec 2.0 model of one kind of input."""
    content = read_checkpoint(path, allow)
    tensors = _tensors(content.get("model"), path)
    ema = _tensors(tensors.pop("_ema", {}), path)
    job, kind = _recognise(tensors, content.get("cfg"), path)
    prefix = PREFIXES[job]
    of_encoder = {name for name in tensors if name.startswith(prefix)}
    student = {name.removeprefix(prefix): tensors[name] for name in tensors if name in of_encoder}
    head, names = {}, set()
    for name in tensors.keys() - of_encoder:
        if named := re.fullmatch(rf"{re.escape(HEADS)}([^.]+)\.(.+)", name):
            names.add(named[1])
        head[f"{HEADS}{named[2]}" if named else name] = tensors[name]
    if len(names) > 1:
        raise UserError(f"{path} has several heads ({', '.join(sorted(names))}); only files with one are converted")
    strays = [name for name in (*tensors, *ema) if name.endswith(STRAY)]
    kept = {"cfg", "model"} | ({"task_state"} if job == "recognizer" else set())
    return Original(
        kind=kind,
        job=job,
        cfg=content.get("cfg"),
        student=student,
        ema=ema,
        head=head,
        head_name=names.pop() if names else "",
        symbols=_symbols(content.get("task_state")),
        dropped=(*sorted(name for name in content.keys() - kept if content[name]), *strays),
    )


def _tensors(value: Any, path: Path) -> dict[str, Any]:
    """A copy of a flat state dict; `UserError` for another thing."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path} holds no `model` with named tensors, so it is not a checkpoint of data2vec 2.0")
    others = [name for name, tensor in value.items() if name != "_ema" and not isinstance(tensor, Tensor)]
    if others:
        raise UserError(f"{path} holds no tensor under {others[0]}, so it is not a checkpoint of data2vec 2.0")
    return dict(value)


def _recognise(tensors: Mapping[str, Any], cfg: Any, path: Path) -> tuple[Job, Kind]:
    """What a file is, by the names of its tensors."""
    found = {(m[1], m[2].lower()) for name in tensors if (m := re.match(r"(.*?)modality_encoders\.([A-Z]+)\.", name))}
    jobs: dict[str, Job] = {prefix: job for job, prefix in PREFIXES.items()}
    known = {(jobs[prefix], kind) for prefix, kind in found if prefix in jobs and kind in get_args(Kind)}
    if len(found) == len(known) == 1:
        job, kind = known.pop()
        return job, kind  # type: ignore[return-value]
    if found:
        which = ", ".join(sorted(f"{prefix}{kind}" for prefix, kind in found))
        raise UserError(f"{path} holds encoders of {which}; only models of one of image, audio and text are converted")
    name = str(_of(_of(cfg, "model"), "_name") or "")
    if name in FIRST_VERSION:
        name = f"{name} (version 1 of data2vec)"
    elif any(".feature_extractor.conv_layers" in f".{tensor}" for tensor in tensors):
        name = f"{name or 'wav2vec'} (wav2vec 2.0, HuBERT or version 1 of data2vec)"
    says = f"its architecture is {name}" if name else f"its first tensor is {next(iter(tensors), 'missing')}"
    raise UserError(f"{path} is no model of data2vec 2.0, the only one that is converted: {says}")


def _symbols(task_state: Any) -> tuple[str, ...] | None:
    """The symbols of the dictionary in a file that was fine-tuned for speech."""
    dictionary = _of(task_state, "target_dictionary")
    if not (isinstance(dictionary, StandIn) and dictionary.of == DICTIONARY):
        return None
    symbols = dictionary.state.get("symbols")
    return tuple(map(str, symbols)) if isinstance(symbols, list) else None


def _of(value: Any, name: str) -> Any:
    """An entry of a mapping or namespace, if there is one."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
