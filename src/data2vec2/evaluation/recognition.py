"""What a recogniser hears in recordings of any length, and how wrong it is.

Long recordings go through the model in windows. Shapes: `S` samples, `T` tokens, `V` symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config import AudioConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.letters import BLANK_ID, SPACE, UNKNOWN, Letters, normalise
from data2vec2.data.records import Records
from data2vec2.data.windows import OVERLAP_S, Windows
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import Decoder, Transcript, Word, greedy, transcribe
from data2vec2.evaluation.error_rate import ErrorRate, error_rate
from data2vec2.evaluation.features import readable_batches
from data2vec2.models.ctc import Recognized

Recognizer = Callable[..., Recognized]
"""A model: scores of inputs, and of their lengths where these differ."""
WINDOW_S = 30.0
"""Seconds of a window."""
SEGMENT_TOKENS = 1_500
"""Longer recordings are decoded in parts, cut where it is silent between words."""


@dataclass(frozen=True)
class Heard:
    """References and hypotheses of recordings, both normalised."""

    samples: tuple[int, ...]
    """Places in the records."""
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]

    def rates(self) -> tuple[ErrorRate, ErrorRate]:
        """Of words and of characters."""
        words = error_rate(self.references, self.hypotheses)
        return words, error_rate(self.references, self.hypotheses, "character")

    def scores(self) -> dict[str, Any]:
        """`wer` and `cer`, and the edits in `words` and `characters`."""
        words, characters = self.rates()
        return {"wer": words.rate, "cer": characters.rate, "words": asdict(words), "characters": asdict(characters)}


def rows_of(heard: Heard, records: Records) -> list[dict[str, Any]]:
    """Name, reference, hypothesis and character error rate of each recording."""
    rows = zip(heard.samples, heard.references, heard.hypotheses, strict=True)
    return [
        {
            "name": records.names[sample],
            "reference": reference,
            "hypothesis": hypothesis,
            "cer": error_rate([reference], [hypothesis], "character").rate,
        }
        for sample, reference, hypothesis in rows
    ]


@torch.no_grad()
def recognise_all(
    model: Recognizer,
    letters: Letters,
    reader: AudioReader,
    samples: NDArray[np.int64],
    device: torch.device,
    note: Callable[[Tensor, Tensor, list[int]], None] = lambda *_: None,
) -> Heard:
    """Greedy texts of recordings that fit the memory, some at once; `note` sees logits, tokens and places.

    The model should be in eval mode. What can't be read is left out; `UserError` if nothing can.
    """
    places: list[int] = []
    texts = []
    for batch in readable_batches(reader, samples):
        lengths_B = None if batch.lengths_B is None else batch.lengths_B.to(device)
        logits_BTV, num_tokens_B = model(batch.inputs.to(device), lengths_B)
        note(logits_BTV, num_tokens_B, batch.samples_B.tolist())
        places += batch.samples_B.tolist()
        logits_BTV[..., letters.ids[UNKNOWN]] = -torch.inf  # a letter that nobody can read is never written
        for row_TV, count in zip(logits_BTV.float().cpu().numpy(), num_tokens_B.tolist(), strict=True):
            texts.append(letters.decode(greedy(row_TV[:count])[0].tolist()))
    return heard_of(reader.records, dict(zip(places, texts, strict=True)))


def heard_of(records: Records, texts: dict[int, str]) -> Heard:
    """Beside the records' transcripts, by their places; `UserError` if there is none."""
    if not texts:
        raise UserError(f"none of {len(records)} recordings of the {records.kind} can be used")
    samples = tuple(sorted(texts))
    references = tuple(normalise((records.texts or ())[sample] or "") for sample in samples)
    return Heard(samples, references, tuple(normalise(texts[sample]) for sample in samples))


def hear(
    model: Recognizer,
    letters: Letters,
    config: AudioConfig,
    open_file: Callable[[], BinaryIO],
    device: torch.device,
    decode: Decoder | None = None,
) -> Transcript:
    """The text of a recording of any length; greedy without a decoder. Raises `BadSample`."""
    log_probs_TV = log_probs(model, config, open_file, device)
    log_probs_TV[:, letters.ids[UNKNOWN]] = -np.inf  # a letter that nobody can read is never written
    seconds, parts, start = config.hop / config.sample_rate, [], 0
    for stop in cuts(log_probs_TV, letters):
        parts.append((start, transcribe(log_probs_TV[start:stop], letters, seconds, decode)))
        start = stop
    words = [
        Word(word.text, word.start_s + begin * seconds, word.end_s + begin * seconds)
        for begin, part in parts
        for word in part.words
    ]
    text = " ".join(part.text for _, part in parts if part.text)
    return Transcript(text, sum(part.score for _, part in parts), tuple(words))


@torch.no_grad()
def log_probs(
    model: Recognizer,
    config: AudioConfig,
    open_file: Callable[[], BinaryIO],
    device: torch.device,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
) -> NDArray[np.float32]:
    """Log-probabilities `TV` of a recording, which is read a window at a time; raises `BadSample`."""
    windows = Windows(config, open_file, window_s, overlap_s)
    return np.concatenate([_window(model, config, wave_S, device)[kept] for wave_S, kept in windows])


def cuts(log_probs_TV: NDArray[np.float32], letters: Letters, limit: int = SEGMENT_TOKENS) -> list[int]:
    """Where parts of at most `limit` tokens end: in the longest gaps between words, as late as half of the limit."""
    best_T = log_probs_TV.argmax(axis=1)
    quiet_T, stops = np.isin(best_T, (BLANK_ID, letters.ids[SPACE])), [0]
    while len(best_T) - stops[-1] > limit:
        start, stop = stops[-1] + limit // 2, stops[-1] + limit
        edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet_T[start:stop], [0]])))
        gaps = edges.reshape(-1, 2) + start
        spoken = [gap for gap in gaps if (best_T[gap[0] : gap[1]] == letters.ids[SPACE]).any()]
        among = spoken or list(gaps)
        longest = max(among, key=lambda gap: gap[1] - gap[0], default=(stop, stop))
        stops.append(int(sum(longest) // 2))
    return [*stops[1:], len(best_T)]


def _window(
    model: Recognizer, config: AudioConfig, wave_S: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """Log-probabilities of the tokens of a part."""
    try:
        logits_BTV = model(torch.from_numpy(wave_S)[None].to(device)).logits_BTV
    except torch.OutOfMemoryError as error:
        seconds = len(wave_S) / config.sample_rate
        raise UserError(f"out of memory on {device} with {seconds:.0f} s of audio at once; use --device cpu") from error
    return logits_BTV[0].float().log_softmax(dim=-1).cpu().numpy()
