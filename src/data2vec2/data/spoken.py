"""Whole recordings with transcripts, for fine-tuning on speech.

Shapes: `B` samples of a batch, `N` records.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.config import AudioConfig, AudioFinetuneDataConfig
from data2vec2.data.audio import AudioReader, measured
from data2vec2.data.letters import normalise
from data2vec2.data.reader import Bad, ReadBatch
from data2vec2.data.records import BadSample, Records
from data2vec2.data.sampler import LENGTH_STEP, Plan, WholeBatches
from data2vec2.data.waveform import TOO_SHORT
from data2vec2.errors import UserError

NO_TRANSCRIPT = "no transcript"
TOO_LONG = "too long"


class SpokenReader(AudioReader):
    """Batches of whole recordings; the samples of training batches too are places in the records.

    The records are such as `trainable` gives.
    """

    def order(self, batch_size: int) -> WholeBatches:
        """Global batches of so many seconds."""
        return WholeBatches(self.pieces.lengths_N, batch_size, self.seed, self.config.sample_rate)

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Whole recordings; a bad one is replaced by another one that is not longer than the batch's longest."""
        limit = plan.length + LENGTH_STEP * self.config.sample_rate

        def read(sample: int) -> NDArray[np.float32]:
            wave = self.whole(sample)
            if len(wave) > limit:  # headers may say less than there is
                raise BadSample("longer than its header says")
            return wave

        return self._whole_batch(plan.samples_B, np.flatnonzero(self.pieces.lengths_N <= plan.length), read)


def with_transcript(records: Records) -> tuple[Records, tuple[Bad, ...]]:
    """The records whose transcripts have letters, and the others."""
    texts = records.texts or (None,) * len(records)
    return _split(records, np.array([bool(normalise(text or "")) for text in texts], dtype=bool), NO_TRANSCRIPT)


def trainable(
    records: Records, config: AudioConfig, data: AudioFinetuneDataConfig, seed: int
) -> tuple[Records, tuple[Bad, ...], tuple[Bad, ...]]:
    """Records with transcripts and of lengths that a batch can take; those left out, and those that can't be read.

    With `data.max_minutes`, as many as are that long, drawn by `seed`; those that are not drawn are not listed.
    """
    records, untold = with_transcript(records)
    rate = config.sample_rate
    lengths_N, reasons = measured(records, rate)
    bad = tuple(Bad(records.names[place], reasons[place]) for place in sorted(reasons))
    shortest, longest = max(round(data.min_seconds * rate), config.receptive_field), round(data.max_seconds * rate)
    too_long = _names(records, lengths_N > longest, TOO_LONG)
    too_short = _names(records, (lengths_N < shortest) & ~np.isin(np.arange(len(records)), list(reasons)), TOO_SHORT)
    places = np.flatnonzero((lengths_N >= shortest) & (lengths_N <= longest))
    if data.max_minutes is not None:
        shuffled = places[rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(places))]
        fits = lengths_N[shuffled].cumsum() <= data.max_minutes * 60 * rate
        places = np.sort(shuffled[fits])
        if not len(places):
            raise UserError(f"--data.max-minutes {data.max_minutes:g} is too little for the first recording drawn")
    used = records if len(places) == len(records) else records.select(places)
    return used, (*untold, *too_short, *too_long), bad


def _split(records: Records, keep_N: NDArray[np.bool_], reason: str) -> tuple[Records, tuple[Bad, ...]]:
    kept = records if keep_N.all() else records.select(np.flatnonzero(keep_N))
    return kept, _names(records, ~keep_N, reason)


def _names(records: Records, chosen_N: NDArray[np.bool_], reason: str) -> tuple[Bad, ...]:
    return tuple(Bad(records.names[place], reason) for place in np.flatnonzero(chosen_N).tolist())
