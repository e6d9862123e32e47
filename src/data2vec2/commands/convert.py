"""convert CHECKPOINT OUT, and back: convert MODEL OUT.pt --to fairseq."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data2vec2.config import RunConfig
from data2vec2.data.tokenizer import SPECIAL, TOKENIZER_FILES, load_tokenizer, original_tokenizer, save_tokenizer
from data2vec2.errors import UserError
from data2vec2.interop.fairseq.back import original_content
from data2vec2.interop.fairseq.config import run_config
from data2vec2.interop.fairseq.files import write_checkpoint
from data2vec2.interop.fairseq.folder import Weights, write_folder
from data2vec2.interop.fairseq.original import Original, read_original
from data2vec2.recipes import get_recipe
from data2vec2.training.run import write_text

DICTIONARY = "dict.ltr.txt"
GPT2 = ("encoder.json", "vocab.bpe", "dict.txt")
EMBEDDING = "modality_encoders.TEXT.local_encoder.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written."""

    out: Path
    kind: str
    """image, audio or text."""
    what: str
    """encoder, classifier, recognizer, or checkpoint for a file of the original."""
    dropped: tuple[str, ...] = ()
    """What the source has and `out` has not."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: Literal["export", "fairseq"] = "export",
    weights: Weights = "student",
    vocabulary: str | Path | None = None,
    classes: str | Path | None = None,
    pretrained: str | Path | None = None,
    allow: Sequence[str] = (),
) -> Converted:
    """Turn a checkpoint of the original into an exported folder, or a run or exported folder into such a checkpoint.

    Arguments are those of the command. Raises `UserError` for an `out` that exists, and for a source that is damaged,
    of another architecture, incomplete, or holds more than plain values.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise UserError(f"{out} exists; give a new {'file' if to == 'fairseq' else 'folder'}")
    if to == "fairseq":
        return _to_fairseq(source, out)
    original = read_original(source, allow)
    names = _lines(Path(classes)) if classes else None
    place = Path(vocabulary) if vocabulary else source.parent
    dictionary = place / DICTIONARY if place.is_dir() else place
    if original.job == "recognizer" and (vocabulary or dictionary.is_file()):
        letters = (line.rsplit(" ", 1)[0] for line in _lines(dictionary))
        original = replace(original, symbols=(*SPECIAL, *letters))
    with tempfile.TemporaryDirectory() as temporary:
        info = write_folder(
            original,
            source,
            _run_config(original, source, Path(pretrained) if pretrained else None, allow),
            out,
            weights=weights,
            tokenizer=_tokenizer(original, place, Path(temporary)) if original.kind == "text" else None,
            classes=tuple(names) if names else None,
        )
    what = "encoder" if original.job == "pretraining" else original.job
    return Converted(out=out, kind=info.model.modality.kind, what=what, dropped=original.dropped)


def _to_fairseq(source: Path, out: Path) -> Converted:
    content, symbols = original_content(source)
    if symbols:  # first, so that a file that is in the way is found before anything is written
        dictionary = out.with_name(DICTIONARY)
        text = "".join(f"{symbol} 1\n" for symbol in symbols[4:])
        if dictionary.exists() and [line.rsplit(" ", 1)[0] for line in _lines(dictionary)] != list(symbols[4:]):
            raise UserError(f"{dictionary} exists, with other letters; give OUT in another folder")
    write_checkpoint(out, content)
    if symbols and not dictionary.exists():
        write_text(dictionary, text)
    kinds = ("image", "audio", "text")
    kind = next(
        kind for kind in kinds if any(f"modality_encoders.{kind.upper()}." in name for name in content["model"])
    )
    return Converted(out=out, kind=kind, what="checkpoint")


def _run_config(original: Original, source: Path, pretrained: Path | None, allow: Sequence[str]) -> RunConfig:
    """The configuration of pre-training: as the file has it, or the file that it was fine-tuned from; or released."""
    cfg = read_original(pretrained, allow).pretraining_cfg if pretrained else original.pretraining_cfg
    vocab_size = len(original.student[EMBEDDING]) if EMBEDDING in original.student else None
    if cfg is None and original.kind == "text":  # such files don't say; the released sizes are known by their width
        width = original.student[EMBEDDING].shape[1] if vocab_size else None
        recipes = [get_recipe(name) for name in ("text_base", "text_large")]
        if found := [recipe for recipe in recipes if recipe.model.encoder.embed_dim == width]:
            return found[0]
    try:
        if cfg is None:
            raise ValueError("it does not say its model's shape; --pretrained names the file that it was made from")
        return run_config(original.kind, cfg, vocab_size)
    except (ValueError, TypeError) as error:
        raise UserError(f"the configuration in {pretrained or source} can't be used: {error}") from error


def _tokenizer(original: Original, place: Path, temporary: Path) -> Path:
    """Folder of the tokenizer, made in `temporary` where `place` has the original's files."""
    if (place / TOKENIZER_FILES[0]).is_file():
        folder = place
    else:
        if missing := [name for name in GPT2 if not (place / name).is_file()]:
            raise UserError(
                f"a model of text needs its tokenizer: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
                f"in {place}; --vocabulary names the folder with {', '.join(GPT2)}"
            )
        save_tokenizer(original_tokenizer(*(place / name for name in GPT2)), temporary)
        folder = temporary
    size, entries = load_tokenizer(folder).size, len(original.student.get(EMBEDDING, ()))
    if size != entries:
        raise UserError(f"the tokenizer in {place} has {size} entries, and the model {entries}; it is another's")
    return folder


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
