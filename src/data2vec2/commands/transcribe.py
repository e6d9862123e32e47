"""transcribe MODEL FILES, and the error rates of a recogniser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec2.commands.options import OF_FEATURES, OF_TABLES, Evaluate, Transcribe, paths_of, refuse
from data2vec2.commands.runner import say_account, say_skipped, where_is
from data2vec2.data.account import PartAccount, counted
from data2vec2.data.records import Parts, Records, listed_files, open_data
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import Decoding, Word
from data2vec2.interop.folder import export_of, load_recognizer
from data2vec2.method.heads import SpeechRecognizer
from data2vec2.modalities.audio.config import AudioConfig, AudioFinetuneDataConfig
from data2vec2.modalities.audio.manifests import MANIFESTS
from data2vec2.modalities.audio.reader import RECORDINGS
from data2vec2.modalities.audio.speech import hear, remarks_on, scorable, score, with_transcript
from data2vec2.modalities.data import ModelInfo, narrow
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


def transcribe(given: Transcribe) -> Iterator[Transcription]:
    """Texts of recordings, one a file, in order; what is wrong with the rest is said at once."""
    paths = paths_of(given.files, "are no FILES; name recordings or folders of recordings")
    given.check_decoding()
    recognizer, info = load_recognizer(export_of(Path(given.model), *paths))
    records, device = listed_files(paths, RECORDINGS), choose_device(given.device)
    return transcriptions(recognizer.to(device), info, records, device, given)


def transcriptions(
    recognizer: SpeechRecognizer, info: ModelInfo, records: Records, device: torch.device, how: Decoding
) -> Iterator[Transcription]:
    """What a model on a device hears in each of the records, in order."""
    assert info.letters is not None
    decode = how.decode(info.letters)

    def one(place: int) -> Transcription:
        name = records.names[place]
        try:
            found = hear(recognizer, info, partial(records.open, place), device, decode)
        except BadSample as error:
            return Transcription(name, error=error.reason)
        return Transcription(name, found.text, found.score, found.words)

    return map(one, range(len(records)))


def evaluate_recognizer(given: Evaluate) -> dict[str, Any]:
    """Word and character error rates of a recogniser, with the edits that make them."""
    given.check_decoding()
    test, data, max_samples = given.test, given.data, given.max_samples
    recognizer, info = load_recognizer(export_of(Path(given.model), Path(given.data)))
    refuse(given, OF_FEATURES, f"is for the features of an encoder, and {given.model} is a speech recogniser")
    refuse(given, OF_TABLES, f"is for tables of text, and {given.model} is a speech recogniser")
    torch_device, say = choose_device(given.device), console().print
    parts = open_data(data if test is None else test, RECORDINGS, MANIFESTS)
    part, records = scored_part(parts, "named test" if test else "whole")
    spoken, left_out = with_transcript(records)
    if not len(spoken):
        raise UserError(f"{test or data} has no transcripts to compare with ({parts.description})")
    modality = narrow(info.model.modality, AudioConfig)
    spoken, unaligned, unread = scorable(at_most(max_samples, spoken), modality, AudioFinetuneDataConfig(), given.seed)
    if not len(spoken):
        why = counted(reason for _, reason in (*left_out, *unaligned, *unread))
        raise UserError(f"none of {len(records):,} recordings of {test or data} can be scored: {why}")
    assert info.letters is not None
    decode = given.decode(info.letters)
    parts.account.remarks += remarks_on(part, records)
    say_account(parts.account, say)
    say(f"transcribing {len(spoken):,} recordings ({part} part), {given.decoder_name}: {test or data}")
    heard, not_heard = score(recognizer.to(torch_device), info, spoken, torch_device, decode)
    skipped = PartAccount(bad=dict((*left_out, *unaligned, *unread, *not_heard)))
    counts = say_skipped(skipped, "recordings", say)
    found = {"kind": "ctc", "data": where_is(test or data), "part": part, "samples": len(heard.samples)}
    return {**found, "decoder": given.decoder_name, **heard.scores(), "skipped": counts}


def scored_part(parts: Parts, whole: str = "whole") -> tuple[str, Records]:
    """The part to score on and its name: of test or validation, if labelled as training is; else the `whole`.

    `UserError` for a test part of which no sample can be used, unless there are only no labels and a validation part.
    """
    known, needed = (("test", parts.test), ("validation", parts.val)), parts.train.taught
    usable = [(name, found) for name, found in known if found is not None and (found.taught or not needed)]
    of_test = parts.account.part("test") if parts.test is not None and not len(parts.test) else PartAccount()
    if unused := of_test.bad or (not usable and of_test.left_out):
        why = f"{counted(unused.values())}; the first is {next(iter(unused))}"
        raise UserError(f"no sample of the test part can be used ({why}); mend or remove that part")
    return usable[0] if usable else (whole, parts.train)


def at_most(limit: int, records: Records) -> Records:
    """So many of the records, evenly spread, or all."""
    return records if len(records) <= limit else records.select(np.arange(limit) * len(records) // limit)


def format_error_rates(scores: dict[str, Any]) -> str:
    """Error rates in percent with their 95 % intervals, and their edits."""
    lines = [f"{'':<11}  {'error':>6}  {'95 %':>14}  {'substituted':>11}  {'inserted':>8}  {'deleted':>7}  {'of':>7}"]
    for key, name in (("wer", "words"), ("cer", "characters")):
        edits, (low, high) = scores[name], scores["intervals"][key]
        lines.append(
            f"{name:<11}  {100 * scores[key]:>6.1f}  {f'{100 * low:.1f} to {100 * high:.1f}':>14}  "
            f"{edits['substitutions']:>11,}  {edits['insertions']:>8,}  "
            f"{edits['deletions']:>7,}  {edits['length']:>7,}"
        )
    return "\n".join(lines)
