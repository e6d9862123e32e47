"""transcribe MODEL FILES, and the error rates of a recogniser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data2vec2.commands.files import listed_files
from data2vec2.commands.recognise import DecoderName, Decoding, score
from data2vec2.config import AudioConfig
from data2vec2.data.content import RECORDINGS
from data2vec2.data.records import BadSample, open_data
from data2vec2.data.spoken import with_transcript
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import Word
from data2vec2.evaluation.recognition import hear
from data2vec2.interop.export import export_of, load_recognizer
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console


@dataclass(frozen=True)
class Transcription:
    """What is said in one file."""

    name: str
    """The file, as named or as found in a folder."""
    text: str = ""
    score: float | None = None
    """Log-probability, as the decoder computes it."""
    words: tuple[Word, ...] = ()
    """Words with their times in seconds."""
    error: str | None = None
    """Why the file could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "words": [word._asdict() for word in self.words]}


def transcribe(
    model: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    decoder: DecoderName | None = None,
    beam: int | None = None,
    lm: str | Path | None = None,
    lm_weight: float = 2.0,
    word_score: float = 0.0,
    device: str = "auto",
) -> Iterator[Transcription]:
    """Texts of recordings, and of those below folders, by a recogniser; one a file, in order.

    `model` is a run folder of `finetune ctc` or its export. The decoder is greedy, beam (without a language model) or
    lm, with the n-gram model `lm` (an ARPA file; the default where it is given), which weighs `lm_weight` and adds
    `word_score` for each word. Long recordings are read and recognised in windows, so memory stays bounded.

    Raises, before the first file is read, `UserError` (no recogniser, an empty folder) or `ValueError` (an option).
    """
    decoding = _decoding(decoder, beam, lm, lm_weight, word_score)
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ValueError("there are no FILES; name recordings or folders of recordings")
    recognizer, info = load_recognizer(export_of(Path(model)))
    letters, modality, torch_device = info.letters, info.model.modality, choose_device(device)
    assert letters is not None and isinstance(modality, AudioConfig)
    decode, records = decoding.build(letters), listed_files(paths, RECORDINGS)
    recognizer.to(torch_device)

    def one(place: int) -> Transcription:
        name = records.names[place]
        try:
            found = hear(recognizer, letters, modality, partial(records.open, place), torch_device, decode)
        except BadSample as error:
            return Transcription(name, error=error.reason)
        return Transcription(name, found.text, found.score, found.words)

    return map(one, range(len(records)))


def evaluate_recognizer(
    model: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    max_samples: int = 10_000,
    decoder: DecoderName | None = None,
    beam: int | None = None,
    lm: str | Path | None = None,
    lm_weight: float = 2.0,
    word_score: float = 0.0,
    device: str = "auto",
) -> dict[str, Any]:
    """Word and character error rates of a recogniser, with the edits that make them, on recordings with transcripts.

    They are those of `test`, or of DATA's own test or validation part, or all of DATA; at most `max_samples`, evenly
    spread. Both texts are normalised alike. Options as in `transcribe`. Raises `UserError` or `ValueError`.
    """
    decoding = _decoding(decoder, beam, lm, lm_weight, word_score)
    if max_samples < 1:
        raise ValueError(f"--max-samples is {max_samples}; it must be at least 1")
    recognizer, info = load_recognizer(export_of(Path(model)))
    parts, named = open_data(data if test is None else test, "audio"), "named test" if test else "whole"
    part, records = next(
        (name, found)
        for name, found in (("test", parts.test), ("validation", parts.val), (named, parts.train))
        if found is not None
    )
    spoken, untold = with_transcript(records)
    if not len(spoken):
        raise UserError(f"{test or data} has no transcripts to compare with ({parts.description})")
    if len(spoken) > max_samples:
        spoken = spoken.select(np.arange(max_samples) * len(spoken) // max_samples)
    torch_device = choose_device(device)
    assert info.letters is not None
    decode = decoding.build(info.letters)
    console().print(f"transcribing {len(spoken):,} recordings ({part} part), {decoding.name}")
    heard, skipped = score(recognizer.to(torch_device), info, spoken, torch_device, decode)
    if untold:
        skipped[untold[0].reason] = len(untold)
    found = {"kind": "ctc", "part": part, "samples": len(heard.samples), "decoder": decoding.name}
    return {**found, **heard.scores(), "skipped": skipped}


def format_error_rates(scores: dict[str, Any]) -> str:
    """Error rates in percent, and their edits."""
    lines = [f"{'':<11}  {'error':>6}  {'substituted':>11}  {'inserted':>8}  {'deleted':>7}  {'of':>7}"]
    for key, name in (("wer", "words"), ("cer", "characters")):
        edits = scores[name]
        lines.append(
            f"{name:<11}  {100 * scores[key]:>6.1f}  {edits['substitutions']:>11,}  {edits['insertions']:>8,}  "
            f"{edits['deletions']:>7,}  {edits['length']:>7,}"
        )
    return "\n".join(lines)


def _decoding(
    decoder: DecoderName | None, beam: int | None, lm: str | Path | None, lm_weight: float, word_score: float
) -> Decoding:
    path = None if lm is None else Path(lm)
    return Decoding(decoder=decoder, beam=beam, lm=path, lm_weight=lm_weight, word_score=word_score)
