"""What a recogniser hears in recordings, and how wrong it is: word and character error rates.

Shapes: `S` samples, `T` tokens, `V` symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jiwer import CharacterOutput, WordOutput, process_characters, process_words
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.data import letters
from data2vec2.data.letters import UNKNOWN, Letters
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import greedy
from data2vec2.evaluation.features import Inputs, Normalise, Note, over_batches
from data2vec2.evaluation.intervals import of_ratio
from data2vec2.method.heads import Recognized
from data2vec2.training.parallel import ALONE, World

Unit = Literal["word", "character"]


class Edit(NamedTuple):
    """One step from reference to hypothesis."""

    op: str
    """equal, substitute, insert or delete."""
    reference: str
    """Word or character of the reference; empty where one is inserted."""
    hypothesis: str
    """Word or character of the hypothesis; empty where one is deleted."""


@dataclass(frozen=True)
class ErrorRate:
    """Edits over all texts, and how many words or characters the references have."""

    substitutions: int
    insertions: int
    deletions: int
    length: int

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors by length; above 1 where much is inserted, and infinite if there is nothing in the references."""
        return self.errors / self.length if self.length else float("inf") if self.errors else 0.0


def error_rate(references: Iterable[str], hypotheses: Iterable[str], unit: Unit = "word") -> ErrorRate:
    """The rate over all texts, each reference against its hypothesis; of characters, spaces count too.

    Texts are compared as they are, so both should be normalised alike (`data.letters.normalise`).
    """
    return _rate_of(_compared(references, hypotheses, unit))


def align_texts(reference: str, hypothesis: str, unit: Unit = "word") -> list[Edit]:
    """The fewest edits from reference to hypothesis, in order, kept words or characters among them."""
    found = _compared([reference], [hypothesis], unit)
    a, b = found.references[0], found.hypotheses[0]
    return [
        Edit(part.type, *edit)
        for part in found.alignments[0]
        for edit in zip_longest(
            a[part.ref_start_idx : part.ref_end_idx], b[part.hyp_start_idx : part.hyp_end_idx], fillvalue=""
        )
    ]


def _compared(references: Iterable[str], hypotheses: Iterable[str], unit: Unit) -> WordOutput | CharacterOutput:
    pairs = [[" ".join(text.split()) for text in pair] for pair in zip(references, hypotheses, strict=True)]
    compare = process_words if unit == "word" else process_characters
    return compare([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])


def _rate_of(found: WordOutput | CharacterOutput) -> ErrorRate:
    length = found.hits + found.substitutions + found.deletions
    return ErrorRate(found.substitutions, found.insertions, found.deletions, length)


def _errors_and_lengths(found: WordOutput | CharacterOutput) -> tuple[list[int], list[int]]:
    """Edits of each text, and how long its reference is."""
    errors = [
        sum(max(p.ref_end_idx - p.ref_start_idx, p.hyp_end_idx - p.hyp_start_idx) for p in parts if p.type != "equal")
        for parts in found.alignments
    ]
    return errors, list(map(len, found.references))


Recognizer = Callable[..., Recognized]
"""A model: scores of inputs, and of their lengths where these differ."""


@dataclass(frozen=True)
class Recognition:
    """References and hypotheses of recordings, both normalised."""

    samples: tuple[int, ...]
    """Places in the records."""
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]

    def scores(self) -> dict[str, Any]:
        """`wer` and `cer`, their 95 % `intervals` over recordings, and the edits in `words` and `characters`."""
        compared = [_compared(self.references, self.hypotheses, unit) for unit in get_args(Unit)]
        words, characters = map(_rate_of, compared)
        wer, cer = (of_ratio(*_errors_and_lengths(found)) for found in compared)
        rates = {"wer": words.rate, "cer": characters.rate, "intervals": {"wer": wer, "cer": cer}}
        return {**rates, "words": asdict(words), "characters": asdict(characters)}


def rows_of(heard: Recognition, records: Records) -> list[dict[str, Any]]:
    """Name, reference, hypothesis and character error rate of each recording."""
    return [
        {
            "name": records.names[sample],
            "reference": reference,
            "hypothesis": hypothesis,
            "cer": error_rate([reference], [hypothesis], "character").rate,
        }
        for sample, reference, hypothesis in zip(heard.samples, heard.references, heard.hypotheses, strict=True)
    ]


@torch.no_grad()
def recognise_all(
    model: Recognizer,
    letters: Letters,
    reader: Reader,
    samples: NDArray[np.int64],
    normalise: Normalise,
    device: torch.device,
    note: Callable[[Tensor, Tensor, list[int]], None] = lambda *_: None,
    unread: Note = lambda _: None,
    world: World = ALONE,
) -> Recognition:
    """Greedy texts of recordings, by a model in eval mode; `note` sees logits, tokens and places of some at once.

    What can't be read is left out, and `unread` hears of it; `UserError` if nothing can.
    """

    def heard(batch: Inputs) -> dict[str, NDArray[Any]]:
        logits_BTV, num_tokens_B = model(*batch.given(normalise, device))
        places = batch.samples_B.tolist()
        note(logits_BTV, num_tokens_B, places)
        logits_BTV[..., letters.ids[UNKNOWN]] = -torch.inf  # a letter that nobody can read is never written
        rows = zip(logits_BTV.float().cpu().numpy(), num_tokens_B.tolist(), strict=True)
        return {"texts": np.array([letters.decode(greedy(row_TV[:count])[0].tolist()) for row_TV, count in rows])}

    found = over_batches(heard, reader, samples, unread, world)
    return recognition_of(reader.records, dict(zip(found["samples_N"].tolist(), found["texts"].tolist(), strict=True)))


def recognition_of(records: Records, texts: dict[int, str]) -> Recognition:
    """Beside the records' transcripts, by their places; `UserError` if there is none."""
    if not texts:
        raise UserError(f"none of {len(records)} recordings of the {records.kind} can be used")
    samples = tuple(sorted(texts))
    references = tuple(letters.normalise((records.texts or ())[sample] or "") for sample in samples)
    return Recognition(samples, references, tuple(letters.normalise(texts[sample]) for sample in samples))
