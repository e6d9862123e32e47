"""Multi-masking: which tokens of a sample each of its M student rows keeps (paper, section 3.3); and spans.

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `T` tokens, `K` kept tokens, `C` block centres, `S` spans, `D`
width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2 import rng
from data2vec2.config.model import MaskConfig
from data2vec2.errors import UsageError

Ids = NDArray[np.int64]


def num_kept(config: MaskConfig, num_tokens: int) -> int:
    """K: how many of T tokens every student row keeps; `UsageError` if none would be kept or none masked."""
    ratio = config.mask_ratio
    kept = int(num_tokens * (1 - ratio)) if config.inverse else num_tokens - int(num_tokens * ratio)
    if not 0 < kept < num_tokens:
        raise UsageError(
            f"model.masks.mask_ratio is {ratio}: of {num_tokens} tokens it keeps {kept}; "
            "use a larger input, smaller patches or another ratio"
        )
    return kept


def draw_keep_ids(config: MaskConfig, grid: tuple[int, ...], seed: int, epochs_B: Ids, samples_B: Ids) -> Ids:
    """Kept token indices `keep_ids_NK` (ascending in each row) of M masks for each sample.

    `grid` is the shape of the tokens: (T,) for sequences, (rows, columns) for images. Row `b * M + m` belongs to
    sample `b`; it depends on (seed, epoch, sample, m) alone. Blocks of side `block_length` are put around random
    centres and clipped at the border; they are what is kept (`inverse`) or what is masked. Then single random tokens
    are added or removed until the count is exact. Blocks of length 1 make the choice uniform.
    """
    num_tokens = math.prod(grid)
    kept = num_kept(config, num_tokens)
    chosen = kept if config.inverse else num_tokens - kept
    area = config.block_length ** len(grid)
    share = 1 - config.mask_ratio if config.inverse else config.mask_ratio
    num_centres = int(num_tokens * (share + config.adjust) / area) if area > 1 else 0

    key_NM = rng.keys(rng.Stream.MASK, seed, epochs_B[:, None], samples_B[:, None], np.arange(config.num_masks)[None])
    draws_NX = rng.uniforms(key_NM.reshape(-1), num_tokens + num_centres)
    order_NT = draws_NX[:, :num_tokens]
    if num_centres:
        centres_NC = (draws_NX[:, num_tokens:] * num_tokens).astype(np.int64)
        order_NT = order_NT + ~_covered(centres_NC, grid, config.block_length)
    ranked_NT = np.argpartition(order_NT, chosen - 1, axis=1)
    kept_NK = ranked_NT[:, :chosen] if config.inverse else ranked_NT[:, chosen:]
    return np.sort(kept_NK, axis=1)


def draw_spans(
    stream: rng.Stream, share: float, length: int, sizes_B: Ids, seed: int, epochs_B: Ids, samples_B: Ids
) -> NDArray[np.bool_]:
    """Fine-tuning's masks of speech: True inside spans of `length` at random starts, `B x max(sizes_B)`.

    Of a sample's `sizes_B` tokens (or channels), `share * size / length` spans are masked, rounded up or down at random
    so that the mean is exact. They may overlap, so of .65 about 1 - exp(-.65) = 48 % is masked. A row depends on
    (seed, epoch, sample) and its own size alone, and is False behind it.
    """
    width = int(sizes_B.max())
    draws_BX = rng.uniforms(rng.keys(stream, seed, epochs_B, samples_B), 1 + math.ceil(share * width / length))
    counts_B = (share * sizes_B / length + draws_BX[:, 0]).astype(np.int64)
    starts_BS = (draws_BX[:, 1:] * (np.maximum(sizes_B - length, 0) + 1)[:, None]).astype(np.int64)
    stops_BS = np.minimum(starts_BS + length, sizes_B[:, None])
    rows_BS, used_BS = np.indices(starts_BS.shape)[0], np.arange(starts_BS.shape[1]) < counts_B[:, None]
    edges = np.zeros((len(sizes_B), width + 1), dtype=np.int64)
    np.add.at(edges, (rows_BS[used_BS], starts_BS[used_BS]), 1)
    np.add.at(edges, (rows_BS[used_BS], stops_BS[used_BS]), -1)
    masked: NDArray[np.bool_] = edges[:, :-1].cumsum(axis=1) > 0
    return masked


def _covered(centres_NC: Ids, grid: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """True at tokens inside a block around any of a row's centres, `NT`."""
    rows = np.arange(len(centres_NC))[:, None]
    covered = np.zeros((len(centres_NC), math.prod(grid)), dtype=bool)
    coordinates = np.unravel_index(centres_NC, grid)
    for offset in np.ndindex(*(length,) * len(grid)):
        moved = [
            np.clip(c + step - length // 2, 0, size - 1)
            for c, step, size in zip(coordinates, offset, grid, strict=True)
        ]
        covered[rows, np.ravel_multi_index(moved, grid)] = True
    return covered


def flat_ids(ids_NK: Tensor, num_samples: int, num_tokens: int) -> Tensor:
    """Places `ids_NK` of N rows as places in `B*T` flattened tokens of B samples; row `n` belongs to `n // (N/B)`."""
    N, samples = len(ids_NK), torch.arange(num_samples, device=ids_NK.device)
    rows = samples.repeat_interleave(N // num_samples, output_size=N)
    return (ids_NK + rows[:, None] * num_tokens).flatten()


def take(x_BTD: Tensor, ids_NK: Tensor) -> Tensor:
    """Tokens `NKD` at `ids_NK`: each sample's M rows read from its one copy."""
    B, T, D = x_BTD.shape
    return x_BTD.reshape(B * T, D).index_select(0, flat_ids(ids_NK, B, T)).view(*ids_NK.shape, D)


def take_padding(padding_BT: Tensor, ids_NK: Tensor) -> Tensor:
    """Where the tokens at `ids_NK` are padding, `NK`."""
    return padding_BT.repeat_interleave(len(ids_NK) // len(padding_BT), dim=0).gather(1, ids_NK)


def put(base_NTD: Tensor, ids_NK: Tensor, x_NKD: Tensor) -> Tensor:
    """`base_NTD` with `x_NKD` at `ids_NK`."""
    N, T, D = base_NTD.shape
    flat = base_NTD.reshape(N * T, D).index_copy(0, flat_ids(ids_NK, N, T), x_NKD.reshape(-1, D))
    return flat.view(N, T, D)


def complement(keep_ids_NK: Tensor, num_tokens: int) -> Tensor:
    """The masked places (ascending) of every row, `N x (T-K)`; no host synchronisation."""
    N, K = keep_ids_NK.shape
    kept_NT = torch.zeros(N, num_tokens, dtype=torch.uint8, device=keep_ids_NK.device).scatter_(1, keep_ids_NK, 1)
    return kept_NT.argsort(dim=1, stable=True)[:, : num_tokens - K]
