"""The exported model: a folder that Hugging Face Transformers reads, and this package without it.

    config.json               shape of the encoder, in Hugging Face's names
    model.safetensors         the encoder's weights, each name after "encoder." (and a head's: "norm.", "classifier.";
                              of a recogniser "lm_head.")
    vocab.json, tokenizer_config.json    of a recogniser: its letters
    preprocessor_config.json  what makes inputs of pictures or recordings (processors.py); of text: tokenizer.json
    README.md                 the model card

Nothing here imports Transformers: the folder is plain JSON and safetensors, and `config.json` alone says what to build.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data2vec2.config import (
    AudioDataConfig,
    ImageConfig,
    ImageDataConfig,
    ModelConfig,
    TextConfig,
    TextDataConfig,
)
from data2vec2.data.letters import TOKENIZER, VOCAB, Letters
from data2vec2.data.tokenizer import TOKENIZER_FILES, export_tokenizer
from data2vec2.errors import UserError
from data2vec2.interop.fields import MULTI_LABEL, REGRESSION, SINGLE_LABEL, from_fields, to_fields
from data2vec2.interop.processors import from_processor, to_processor
from data2vec2.modalities import build_modality
from data2vec2.models import Classifier, Encoder
from data2vec2.models.classifier import POOLINGS, Pooling
from data2vec2.models.ctc import SpeechRecognizer
from data2vec2.training.run import CONFIG

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md")
PROCESSOR = "processor_config.json"
"""Where Transformers keeps what makes inputs, of a recogniser that it saved."""
CTC = "Data2Vec2AudioForCTC"
"""What `architectures` says of a recogniser."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """What an exported folder says about its encoder."""

    model: ModelConfig
    """`modality` and `encoder` are the model's own; the other parts are placeholders that fit them."""
    data: ImageDataConfig | AudioDataConfig | TextDataConfig
    """How inputs are read and normalised."""
    classes: tuple[str, ...] = ()
    """Names of a classifier's classes, in the order of its outputs; none for an encoder without head."""
    multi_label: bool = False
    """Whether a sample can have several of the classes."""
    pooling: Pooling = "mean"
    """How a classifier's tokens become classes."""
    regression: bool = False
    """Whether the model gives a number, which `classes` names, and no class."""
    letters: Letters | None = None
    """What a recogniser writes; none for another model."""

    @property
    def image(self) -> tuple[ImageConfig, ImageDataConfig]:
        """Modality and reading of a model of pictures; `UserError` for another."""
        if isinstance(self.model.modality, ImageConfig) and isinstance(self.data, ImageDataConfig):
            return self.model.modality, self.data
        raise UserError(f"this is a model of {self.model.modality.kind}, and pictures are asked of it")


def export_encoder(
    encoder: Encoder,
    model: ModelConfig,
    data: ImageDataConfig | AudioDataConfig | TextDataConfig,
    folder: Path,
    card: str,
) -> None:
    """Write `encoder` as a folder for Transformers, in one step: the folder is the old one or the whole new one.

    `data` says how its inputs are read; `card` is the README's text. An earlier export at `folder` is replaced;
    `UserError` if something else is there or the folder can't be written.
    """
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    architecture = f"Data2Vec2{model.modality.kind.capitalize()}Model"
    _write(weights, {"architectures": [architecture]}, ExportInfo(model=model, data=data), folder, card)


def export_classifier(classifier: Classifier, info: ExportInfo, folder: Path, card: str) -> None:
    """Write a fine-tuned classifier as a folder, as `export_encoder` writes an encoder; `info` names its classes."""
    if len(info.classes) != classifier.head.out_features:
        raise ValueError(f"{len(info.classes)} names of classes for {classifier.head.out_features} outputs")
    weights = {
        "classifier." + name.removeprefix("head.") if name.startswith("head.") else name: tensor
        for name, tensor in classifier.state_dict().items()
    }
    kind = info.model.modality.kind.capitalize()
    head = {
        "architectures": [f"Data2Vec2{kind}For{'Sequence' if kind == 'Text' else kind}Classification"],
        "id2label": dict(enumerate(info.classes)),
        "label2id": {name: index for index, name in enumerate(info.classes)},
        "problem_type": REGRESSION if info.regression else MULTI_LABEL if info.multi_label else SINGLE_LABEL,
        **({} if kind == "Image" else {"pooling": info.pooling}),
    }
    _write(weights, head, info, folder, card)


def export_recognizer(recognizer: SpeechRecognizer, info: ExportInfo, folder: Path, card: str) -> None:
    """Write a recogniser as a folder, as `export_encoder` writes an encoder; `info` has its letters."""
    if info.letters is None or len(info.letters) != recognizer.head.out_features:
        raise ValueError(f"{len(info.letters or ())} letters for {recognizer.head.out_features} outputs")
    weights = {
        "lm_head." + name.removeprefix("head.") if name.startswith("head.") else name: tensor
        for name, tensor in recognizer.state_dict().items()
    }
    head = {"architectures": [CTC], "vocab_size": len(info.letters), "pad_token_id": 0}
    _write(weights, head, info, folder, card)


def export_of(model: Path) -> Path:
    """The exported folder of a run, or the folder itself; `UserError` for a run that has none yet."""
    if not (model / CONFIG).is_file():
        return model
    if not (model / "exported").is_dir():
        raise UserError(f"the run in {model} has not finished, so there is no model yet; go on with it by --resume")
    return model / "exported"


def load_encoder(folder: Path) -> tuple[Encoder, ExportInfo]:
    """Load the encoder of an exported folder, in eval mode on the CPU in float32, and what belongs to it.

    The head of a classifier is left out. `UserError` if the folder is not an export, or is one of another model type
    or with damaged files.
    """
    info, weights = read_export(folder)
    encoder = Encoder(info.model.encoder, build_modality(info.model))
    own = {name.removeprefix("encoder."): w for name, w in weights.items() if name.startswith("encoder.")}
    _load_weights(encoder, own, folder)
    return encoder.eval(), info


def load_classifier(folder: Path) -> tuple[Classifier, ExportInfo]:
    """Load a fine-tuned classifier as `load_encoder` loads an encoder; `UserError` also if the model has no head."""
    info, weights = read_export(folder)
    if not info.classes:
        found = (
            "an encoder without a head" if info.letters is None else "a recogniser of speech, whose head has letters"
        )
        raise UserError(f"{folder} holds {found}; make a classifier of it with data2vec2 finetune classify")
    encoder = Encoder(info.model.encoder, build_modality(info.model))
    classifier = Classifier(encoder, len(info.classes), pooling=info.pooling)
    own = {"head." + n.removeprefix("classifier.") if n.startswith("classifier.") else n: w for n, w in weights.items()}
    _load_weights(classifier, own, folder)
    return classifier.eval(), info


def load_recognizer(folder: Path) -> tuple[SpeechRecognizer, ExportInfo]:
    """Load a recogniser, as `load_encoder` loads an encoder; `UserError` also for another model."""
    info, weights = read_export(folder)
    if info.letters is None:
        raise UserError(f"{folder} holds no recogniser of speech; make one of it with data2vec2 finetune ctc")
    recognizer = SpeechRecognizer(Encoder(info.model.encoder, build_modality(info.model)), len(info.letters))
    own = {"head." + n.removeprefix("lm_head.") if n.startswith("lm_head.") else n: w for n, w in weights.items()}
    _load_weights(recognizer, own, folder)
    return recognizer.eval(), info


def load_model(folder: Path) -> tuple[Encoder | Classifier | SpeechRecognizer, ExportInfo]:
    """Load what an exported folder holds, with its head if it has one."""
    info, _ = read_export(folder)
    if info.letters is not None:
        return load_recognizer(folder)
    return load_classifier(folder) if info.classes else load_encoder(folder)


def _write(weights: Mapping[str, Tensor], head: Mapping[str, Any], info: ExportInfo, folder: Path, card: str) -> None:
    """Write an export's files to a new folder, which then takes the place of `folder`."""
    processor = None if isinstance(info.data, TextDataConfig) else to_processor(info.model.modality, info.data)
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    _check_replaceable(folder)
    with new_folder(folder, replace=True) as new:
        new.mkdir(parents=True)
        _write_json(new / "config.json", {**head, "dtype": dtype, **to_fields(info.model)})
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        if isinstance(info.data, TextDataConfig):
            assert isinstance(info.model.modality, TextConfig)
            export_tokenizer(Path(info.data.tokenizer or folder), new, info.model.modality.max_tokens)
        elif processor:
            _write_json(new / "preprocessor_config.json", processor)
        if info.letters is not None:
            info.letters.save(new)
        (new / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a folder to make, which becomes `folder` when nothing failed; else it is deleted.

    `folder` must not be there, unless it is to be replaced. `UserError` where it can't be written.
    """
    folder = folder.resolve()
    new = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    try:
        yield new
        if replace:
            _swap_in(new, folder)
        else:
            new.rename(folder)
    except OSError as error:
        raise UserError(f"can't write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_export(folder: Path) -> tuple[ExportInfo, dict[str, Tensor]]:
    """What an exported folder says, and its weights as named in the file."""
    fields = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    of_text = fields.get("model_type") == "data2vec2-text"
    for name in (*FILES[:2], TOKENIZER_FILES[0] if of_text else FILES[2]):
        if not (folder / name).is_file() and not (name == FILES[2] and (folder / PROCESSOR).is_file()):
            inner = folder / "exported"
            hint = f"; did you mean {inner}?" if inner.is_dir() else "; give a folder that data2vec2 exported"
            raise UserError(f"{folder} is not an exported model: {name} is missing{hint}")
    try:
        model, classes = from_fields(fields), _classes(fields)
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not of a model that can be loaded here: {error}") from error
    try:
        if of_text:
            data: ImageDataConfig | AudioDataConfig | TextDataConfig = TextDataConfig(tokenizer=str(folder.absolute()))
        else:
            data = from_processor(model.modality, _processor(folder))
    except ValueError as error:
        raise UserError(f"{folder / FILES[2]} can't be used: {error}") from error
    multi_label = fields.get("problem_type") == MULTI_LABEL
    letters = Letters.load(folder) if fields.get("architectures") == [CTC] else None
    pooling: Pooling = next((name for name in POOLINGS if name == fields.get("pooling")), "mean")
    info = ExportInfo(
        model=model,
        data=data,
        classes=classes,
        multi_label=multi_label,
        pooling=pooling,
        regression=fields.get("problem_type") == REGRESSION,
        letters=letters,
    )
    try:
        return info, load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise UserError(f"{folder / 'model.safetensors'} is damaged: {error}") from error


def _processor(folder: Path) -> dict[str, Any]:
    """What makes the inputs: a file of its own, or with a tokenizer in one of Transformers'."""
    if (folder / FILES[2]).is_file():
        return _read_json(folder / FILES[2])
    return dict(_read_json(folder / PROCESSOR).get("feature_extractor") or {})


def _classes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, if the model has a head; `ValueError` where they are not numbered from 0."""
    if not fields.get("problem_type"):  # Transformers may write id2label for a model without a head
        return ()
    names = fields.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise ValueError("id2label must name the classes from 0 on")
    return tuple(str(names[str(index)]) for index in range(len(names)))


def _load_weights(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Put weights into a module, all of them; `UserError` if they don't fit."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder / 'model.safetensors'} does not hold what config.json describes: {error}") from error


def _check_replaceable(folder: Path) -> None:
    """Refuse a target that holds anything but an earlier export: replacing it would delete that."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder to export to")
    own = {*FILES, VOCAB, TOKENIZER, *TOKENIZER_FILES}
    if folder.is_dir() and (others := sorted({entry.name for entry in folder.iterdir()} - own)):
        raise UserError(f"{folder} holds other files ({', '.join(others[:3])}); export to a folder of its own")


def _swap_in(new: Path, folder: Path) -> None:
    """Give `new` the name `folder`; what was there is moved aside first, and back if that fails."""
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; it must hold an object")
    return value
