"""Frozen features of many samples.

Shapes: `B` samples of a batch, `S` samples of a waveform, `T` tokens, `D` width, `C` channels, `H` and `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.reader import Bad, Reader
from data2vec2.data.source import BadSample
from data2vec2.data.windows import Windows
from data2vec2.errors import UserError
from data2vec2.evaluation.probes import Part
from data2vec2.models.encoder import Encoder, pooled_features

Note = Callable[[Iterable[Bad]], object]
"""Hears of samples that could not be read; they are left out."""


class Normalise:
    """Raw values 0 to 255 to zero mean and unit variance: what the model sees, in training and in every later use."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        """Mean and standard deviation of each channel, in units of 0 to 1."""
        self.mean_C11 = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
        self.std_C11 = torch.tensor(std, device=device).view(-1, 1, 1) * 255

    def __call__(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 pictures `BCHW` on the device to float32."""
        return (pixels_BCHW.float() - self.mean_C11) / self.std_C11


def labelled(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` indices of samples that have a label, evenly spread."""
    indices = np.flatnonzero(labels >= 0)
    return indices[np.arange(min(limit, len(indices))) * len(indices) // max(1, min(limit, len(indices)))]


def encode(
    encoder: Encoder,
    reader: Reader,
    samples: NDArray[np.int64],
    normalise: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    note: Note = lambda _: None,
) -> Part:
    """Mean-pooled features of the samples as evaluation sees them, with the labels.

    The encoder should be in eval mode.
    """

    def pooled(batch: Inputs) -> NDArray[np.float32]:
        lengths_B = None if batch.lengths_B is None else batch.lengths_B.to(device)
        return pooled_features(encoder, normalise(batch.inputs.to(device)), lengths_B).cpu().numpy()

    return features_of(pooled, reader, samples, note)


def raw_pixels(reader: Reader, samples: NDArray[np.int64], side: int = 32, note: Note = lambda _: None) -> Part:
    """The pictures themselves as features, larger ones averaged down to at most `side` pixels."""

    def flat(batch: Inputs) -> NDArray[np.float32]:
        pixels = batch.inputs.float() / 255
        if pixels.shape[-1] > side:
            pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, side)
        return pixels.flatten(1).numpy()

    return features_of(flat, reader, samples, note)


@dataclass(frozen=True)
class Inputs:
    """Samples that could be read."""

    inputs: torch.Tensor
    """As read, not yet normalised."""
    labels_B: NDArray[np.int64]
    samples_B: NDArray[np.int64]
    """Places in the records."""
    lengths_B: torch.Tensor | None = None
    """Samples of audio of each, where there are fewer than `inputs` have room for."""


def readable_batches(
    reader: Reader, samples: NDArray[np.int64], note: Note = lambda _: None, size: int | None = None
) -> Iterator[Inputs]:
    """The samples as evaluation sees them, without those that can't be read: in order `size` at once, or as groups."""
    groups = reader.eval_groups(samples)
    if size is not None:
        groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    for asked in groups:
        batch = reader.eval_batch(asked)
        note(batch.bad)
        read = batch.indices_B == asked  # elsewhere another sample stands in
        if read.any():
            lengths = None if batch.lengths_B is None else torch.from_numpy(batch.lengths_B[read])
            yield Inputs(torch.from_numpy(batch.inputs[read]), batch.labels_B[read], asked[read], lengths)


def features_of(
    features: Callable[[Inputs], NDArray[np.float32]],
    reader: Reader,
    samples: NDArray[np.int64],
    note: Note = lambda _: None,
) -> Part:
    """`features` of all samples that can be read, with their labels; `UserError` if none can."""
    found = [(features(batch), batch) for batch in readable_batches(reader, samples, note)]
    if not found:
        raise UserError(f"none of {len(samples)} samples of the {reader.records.kind} can be read")
    place_of = {sample: place for place, sample in enumerate(samples.tolist())}
    order = np.argsort([place_of[sample] for _, batch in found for sample in batch.samples_B.tolist()])
    features_NF: NDArray[np.float32] = np.concatenate([x for x, _ in found])
    labels_N: NDArray[np.int64] = np.concatenate([batch.labels_B for _, batch in found])
    return Part(features_NF[order], labels_N[order])


@torch.no_grad()
def token_features(
    encoder: Encoder, inputs: torch.Tensor, lengths_B: torch.Tensor | None, *, stem: bool = False
) -> list[NDArray[np.float32]]:
    """Features `TD` of the real tokens of each sample: the encoder's output, or what its `stem` makes.

    The encoder should be in eval mode.
    """
    encoded = encoder(inputs, lengths_B=lengths_B)
    rows = (encoded.tokens.tokens_BTD if stem else encoded.features_NTD).float().cpu().numpy()
    padding_BT = encoded.tokens.padding_BT
    real_B = [rows.shape[1]] * len(rows) if padding_BT is None else (~padding_BT).sum(1).tolist()
    return [row[:count] for row, count in zip(rows, real_B, strict=True)]


def window_features(
    encoder: Encoder, windows: Windows, device: torch.device, *, stem: bool = False
) -> Iterator[NDArray[np.float32]]:
    """As `token_features`, of a long recording: of its tokens in order, some at once.

    Raises `UserError` if it can't be read a second time.
    """
    try:
        for wave_S, kept in windows:
            (row_TD,) = token_features(encoder, torch.from_numpy(wave_S)[None].to(device), None, stem=stem)
            yield row_TD[kept]
    except BadSample as error:
        raise UserError(f"a long recording changed while it was read: {error.reason}") from error


def mean_features(rows: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean `D` over all tokens of rows `TD`."""
    sums, count = np.zeros(1), 0
    for row_TD in rows:
        sums, count = sums + row_TD.sum(axis=0, dtype=np.float64), count + len(row_TD)
    return (sums / count).astype(np.float32)
