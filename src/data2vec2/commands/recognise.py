"""What commands for speech share: decoders, and a recogniser's texts of many recordings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from data2vec2.config import AudioConfig
from data2vec2.data.letters import Letters
from data2vec2.data.records import BadSample, Records
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import Decoder, beam_search
from data2vec2.evaluation.ngram import NgramDecoder
from data2vec2.evaluation.recognition import Heard, Recognizer, hear, heard_of
from data2vec2.interop.export import ExportInfo

DecoderName = Literal["greedy", "beam", "lm"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How letters are chosen."""

    decoder: DecoderName | None = None
    """None: lm where a language model is given, else greedy."""
    beam: int | None = None
    """Prefixes that are kept; none: 25, with a language model 500."""
    lm: Path | None = None
    """A language model, as an ARPA file."""
    lm_weight: float = 2.0
    word_score: float = 0.0

    def __post_init__(self) -> None:
        if self.decoder not in (None, "greedy", "beam", "lm"):
            raise ValueError(f"--decoder is {self.decoder!r}; it must be greedy, beam or lm")
        if self.beam is not None and self.beam < 1:
            raise ValueError(f"--beam is {self.beam}; it must be at least 1")
        if self.beam is not None and self.name == "greedy":
            raise ValueError("--beam is for --decoder beam or lm; greedy has none")
        if self.name == "lm" and self.lm is None:
            raise ValueError("--decoder lm needs a language model: --lm FILE.arpa")
        if self.name != "lm" and self.lm is not None:
            raise ValueError(f"--lm is for --decoder lm, not for {self.name}")

    @property
    def name(self) -> str:
        """The decoder."""
        return self.decoder or ("lm" if self.lm else "greedy")

    def build(self, letters: Letters) -> Decoder | None:
        """The decoder, none for greedy; `UserError` if the language model can't be used."""
        if self.name == "greedy":
            return None
        if self.name == "beam":
            return partial(beam_search, beam=self.beam or 25)
        assert self.lm is not None
        if not self.lm.is_file():
            raise UserError(f"--lm {self.lm} does not exist")
        return NgramDecoder(self.lm, letters, weight=self.lm_weight, word_score=self.word_score, beam=self.beam or 500)


def score(
    model: Recognizer, info: ExportInfo, records: Records, device: torch.device, decode: Decoder | None = None
) -> tuple[Heard, dict[str, int]]:
    """What is heard in recordings with transcripts, and how many can't be read, by reason."""
    assert isinstance(info.model.modality, AudioConfig) and info.letters is not None
    texts: dict[int, str] = {}
    skipped: Counter[str] = Counter()
    for place in range(len(records)):
        try:
            found = hear(model, info.letters, info.model.modality, partial(records.open, place), device, decode)
            texts[place] = found.text
        except BadSample as error:
            skipped[error.reason] += 1
    return heard_of(records, texts), dict(skipped)
