"""convert CHECKPOINT OUT, and back: convert MODEL OUT.pt --to fairseq."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data2vec2.commands.options import Convert, refuse
from data2vec2.errors import UserError
from data2vec2.interop.fairseq.config import config_of_file
from data2vec2.interop.fairseq.folder import read_folder, write_folder
from data2vec2.interop.fairseq.original import FUNASR, get, read_description, read_original, write_original

OF_ORIGINALS = ("weights", "vocabulary", "classes", "pretrained", "allow")
"""Options without a use for `--to fairseq`."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written."""

    out: Path
    kind: str
    """The modality's name."""
    what: str
    """encoder, classifier, recognizer, or checkpoint for a file of the original."""
    dropped: tuple[str, ...] = ()
    """What the source has and `out` has not."""


def convert(given: Convert) -> Converted:
    """Turn a checkpoint of the original into an exported folder, or a run or exported folder into such a checkpoint."""
    source, out = Path(given.source), Path(given.out)
    if out.exists():
        raise UserError(f"{out} exists; give a new {'file' if given.to == 'fairseq' else 'folder'}")
    if given.to == "fairseq":
        refuse(given, OF_ORIGINALS, "is for checkpoints of the original, and --to fairseq takes a run or an export")
        original, step = read_folder(source)
        write_original(out, original, step)
        return Converted(out=out, kind=original.kind, what="checkpoint")
    original = read_original(source, given.allow)
    if original.stage != "classifier":
        refuse(given, ("classes",), f"is for classifiers, and {source} is none")
    if original.stage != "recognizer" and original.vocabulary is None:
        refuse(given, ("vocabulary",), f"is for models of text and speech recognisers, and {source} is neither")
    cfg, described, funasr = original.pretraining_cfg, source, source.with_name(FUNASR)
    if given.pretrained or (original.of_funasr and get(cfg, "model") is None and funasr.is_file()):
        described = Path(given.pretrained or funasr)
        cfg = read_description(described, given.allow)
    try:
        config = config_of_file(original, cfg)
    except (ValueError, TypeError) as error:
        raise UserError(f"the configuration in {described} can't be used: {error}") from error
    asked = {"vocabulary": given.vocabulary, "classes": given.classes}
    beside = {name: Path(path) if path else None for name, path in asked.items()}
    write_folder(original, source, config, out, weights=given.weights, **beside)
    what = "encoder" if original.stage == "pretraining" else original.stage
    return Converted(out=out, kind=original.kind, what=what, dropped=original.dropped)
