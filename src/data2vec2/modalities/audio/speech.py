"""Speech to text: whole recordings with transcripts, and what a recogniser hears in recordings of any length.

Shapes: `B` samples of a batch, `N` records, `S` samples, `T` tokens, `V` symbols.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.account import Bad
from data2vec2.data.letters import BLANK_ID, SPACE, UNKNOWN, Letters, lost_signs, normalise
from data2vec2.data.reader import ReadBatch
from data2vec2.data.records import Records
from data2vec2.data.sampler import LENGTH_STEP, Plan, WholeBatches
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import Decode, Transcript, Word, transcribe
from data2vec2.evaluation.recognition import Recognition, Recognizer, recognition_of
from data2vec2.modalities.audio.config import AudioConfig, AudioFinetuneDataConfig
from data2vec2.modalities.audio.reader import AudioReader
from data2vec2.modalities.audio.waveform import OVERLAP_S, OpenFile, Windows
from data2vec2.modalities.data import ModelInfo


class SpokenReader(AudioReader):
    """Batches of whole recordings, such as `trainable` gives: all samples are places in the records."""

    def order(self, batch_size: int) -> WholeBatches:
        """Global batches of so many seconds."""
        return WholeBatches(self.pieces.lengths_N, batch_size, self.seed, self.rate)

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Whole recordings; a bad one is replaced by another one that is not longer than the batch's longest."""
        limit = plan.length + LENGTH_STEP * self.rate

        def read(sample: int, _: int) -> NDArray[np.float32]:
            wave = self.whole(sample)
            if len(wave) > limit:  # headers may say less than there is
                raise BadSample("longer than its header says")
            return wave

        return self.batch(plan.samples_B, read, np.flatnonzero(self.pieces.lengths_N <= plan.length))


def with_transcript(records: Records) -> tuple[Records, tuple[Bad, ...]]:
    """The records whose transcripts have letters, with these spelled as they are learned, and the others."""
    spelled_N = tuple(normalise(text or "") for text in records.texts or (None,) * len(records))
    untold = tuple(Bad(name, "no transcript") for name, text in zip(records.names, spelled_N, strict=True) if not text)
    records = replace(records, texts=spelled_N)
    return records.select(np.flatnonzero(list(map(bool, spelled_N)))) if untold else records, untold


def remarks_on(part: str, records: Records) -> list[str]:
    """What the user should know of a part's transcripts."""
    if not (lost := lost_signs(records.texts or ())):
        return []
    text = next(text or "" for text in records.texts or () if lost_signs([text]))
    signs = ", ".join(f"{sign} ({count:,})" for sign, count in lost.most_common(10))
    what = f"symbols in transcripts of the {part} part that are dropped: {signs}"
    return [f'{what}; "{text[:80]}" becomes "{normalise(text)[:80]}"']


UNALIGNED = "too short for its transcript"
"""Why a recording is left out that has more letters than CTC can align."""


def alignable(spelled: str, num_tokens: int) -> bool:
    """Whether CTC can align a spelled text: with a token for each letter, and one between two that are the same."""
    return len(spelled) + sum(map(str.__eq__, spelled, spelled[1:])) <= num_tokens


def scorable(
    records: Records, config: AudioConfig, data: AudioFinetuneDataConfig, seed: int
) -> tuple[Records, tuple[Bad, ...], tuple[Bad, ...]]:
    """Records with transcripts that can be aligned; those left out, and those that can't be read."""
    records, untold = with_transcript(records)
    pieces = AudioReader(records, config, data, seed).pieces
    unaligned_N, left_out = _unaligned(records, config, pieces.lengths_N)
    places = np.flatnonzero((pieces.lengths_N > 0) & ~unaligned_N)
    return records.select(places), (*untold, *left_out), pieces.unreadable


def trainable(
    records: Records, config: AudioConfig, data: AudioFinetuneDataConfig, seed: int
) -> tuple[Records, tuple[Bad, ...], tuple[Bad, ...]]:
    """As `scorable`, and of lengths that a batch can take.

    With `data.max_minutes`, as many as are that long, drawn by `seed`; those that are not drawn are not listed.
    """
    records, untold = with_transcript(records)
    pieces, rate = AudioReader(records, config, data, seed).pieces, config.sample_rate
    lengths_N = pieces.lengths_N
    unaligned_N, unaligned = _unaligned(records, config, lengths_N)
    long_N = (lengths_N > round(data.max_seconds * rate)) & ~unaligned_N
    places, too_long = np.unique(pieces.records_P), [records.names[place] for place in np.flatnonzero(long_N).tolist()]
    places = places[~(long_N | unaligned_N)[places]]
    if data.max_minutes is not None:
        places = drawn(places, lengths_N, data.max_minutes, rate, seed)
    left_out = (*untold, *unaligned, *pieces.short, *(Bad(name, "too long") for name in too_long))
    return records if len(places) == len(records) else records.select(places), left_out, pieces.unreadable


def drawn(
    places: NDArray[np.int64], lengths_N: NDArray[np.int64], minutes: float, rate: int, seed: int
) -> NDArray[np.int64]:
    """As many of some records as are so long, drawn by `seed`, in order; `UserError` for none."""
    shuffled = places[rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(places))]
    kept = np.sort(shuffled[lengths_N[shuffled].cumsum() <= minutes * 60 * rate])
    if not len(kept):
        raise UserError(f"--data.max-minutes {minutes:g} is too little for the first recording drawn")
    return kept


def _unaligned(
    records: Records, config: AudioConfig, lengths_N: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], tuple[Bad, ...]]:
    """Which records have more letters than can be aligned, of those that can be read."""
    unaligned_N = np.array(
        [
            length >= config.receptive_field and not alignable(text or "", config.num_tokens(length))
            for text, length in zip(records.texts or (), lengths_N.tolist(), strict=True)
        ],
        dtype=np.bool_,
    )
    return unaligned_N, tuple(Bad(records.names[place], UNALIGNED) for place in np.flatnonzero(unaligned_N).tolist())


WINDOW_S = 30.0  # of sound that goes through the model at once
SEGMENT_TOKENS = 1_500  # longer recordings are decoded in parts


def hear(
    model: Recognizer, info: ModelInfo, open_file: OpenFile, device: torch.device, decode: Decode | None = None
) -> Transcript:
    """The text of a recording of any length; greedy without a decoder. Raises `BadSample`."""
    config, letters = info.model.modality, info.letters
    assert isinstance(config, AudioConfig) and letters is not None
    log_probs_TV = log_probs(model, config, open_file, device)
    log_probs_TV[:, letters.ids[UNKNOWN]] = -np.inf  # a letter that nobody can read is never written
    token_s, start = config.hop / config.sample_rate, 0
    parts, words = [], []
    for stop in cuts(log_probs_TV, letters):
        part, begin_s = transcribe(log_probs_TV[start:stop], letters, token_s, decode), start * token_s
        parts.append(part)
        words += [Word(word.text, word.start_s + begin_s, word.end_s + begin_s) for word in part.words]
        start = stop
    text = " ".join(part.text for part in parts if part.text)
    return Transcript(text, sum(part.score for part in parts), tuple(words))


@torch.no_grad()
def log_probs(
    model: Recognizer,
    config: AudioConfig,
    open_file: OpenFile,
    device: torch.device,
    window_s: float = WINDOW_S,
    overlap_s: float = OVERLAP_S,
) -> NDArray[np.float32]:
    """Log-probabilities `TV` of a recording, which is read a window at a time; raises `BadSample`."""
    found = []
    for wave_S, kept in Windows(config, open_file, window_s, overlap_s):
        try:
            logits_BTV = model(torch.from_numpy(wave_S)[None].to(device)).logits_BTV
        except torch.OutOfMemoryError as error:
            what = f"{len(wave_S) / config.sample_rate:.0f} s of audio at once"
            raise UserError(f"out of memory on {device} with {what}; use --device cpu") from error
        found.append(logits_BTV[0].float().log_softmax(dim=-1).cpu().numpy()[kept])
    return np.concatenate(found)


def cuts(log_probs_TV: NDArray[np.float32], letters: Letters, limit: int = SEGMENT_TOKENS) -> list[int]:
    """Where parts of at most `limit` tokens end: in the longest gaps between words, as late as half of the limit."""
    best_T = log_probs_TV.argmax(axis=1)
    quiet_T, stops = np.isin(best_T, (BLANK_ID, letters.ids[SPACE])), [0]
    while len(best_T) - stops[-1] > limit:
        start, stop = stops[-1] + limit // 2, stops[-1] + limit
        edges = np.flatnonzero(np.diff(quiet_T[start:stop], prepend=False, append=False))
        gaps = list(edges.reshape(-1, 2) + start)
        spoken = [gap for gap in gaps if (best_T[slice(*gap)] == letters.ids[SPACE]).any()]
        longest = max(spoken or gaps, key=lambda gap: gap[1] - gap[0], default=(stop, stop))
        stops.append(int(sum(longest) // 2))
    return [*stops[1:], len(best_T)]


def score(
    model: Recognizer, info: ModelInfo, records: Records, device: torch.device, decode: Decode | None = None
) -> tuple[Recognition, list[Bad]]:
    """What is heard in recordings with transcripts, and which can't be read."""
    texts: dict[int, str] = {}
    unread = []
    for place in range(len(records)):
        try:
            texts[place] = hear(model, info, partial(records.open, place), device, decode).text
        except BadSample as error:
            unread.append(Bad(records.names[place], error.reason))
    return recognition_of(records, texts), unread
