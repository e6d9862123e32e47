"""Taking and putting tokens of student rows without copying a sample M times.

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `T` tokens, `K` places of a row, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def flat_ids(ids_NK: Tensor, num_samples: int, num_tokens: int) -> Tensor:
    """Places `ids_NK` of N rows as places in `B*T` flattened tokens of B samples; row `n` belongs to `n // (N/B)`."""
    rows = torch.arange(num_samples, device=ids_NK.device).repeat_interleave(
        ids_NK.shape[0] // num_samples, output_size=ids_NK.shape[0]
    )
    return (ids_NK + rows[:, None] * num_tokens).flatten()


def take(x_BTD: Tensor, ids_NK: Tensor) -> Tensor:
    """Tokens `NKD` at `ids_NK`: each sample's M rows read from its one copy."""
    B, T, D = x_BTD.shape
    return x_BTD.reshape(B * T, D).index_select(0, flat_ids(ids_NK, B, T)).view(*ids_NK.shape, D)


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
