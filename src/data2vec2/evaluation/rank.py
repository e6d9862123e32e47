"""Collapse figures."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(x: Tensor, limit: int = 2048) -> float:
    """Effective number of dimensions that features `(..., D)` use, from 1 to D.

    The exponential of the entropy of the singular values, normalised to sum 1, of the centred features (Roy and
    Vetterli, 2007). At most `limit` rows, evenly spread, are looked at. Not a number where a feature is not finite.
    """
    rows = x.detach().flatten(0, -2)
    rows = rows[:: max(1, len(rows) // limit)][:limit].double().cpu()
    if not torch.isfinite(rows).all():
        return float("nan")
    rows = rows - rows.mean(0)
    singular = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    total = singular.sum()
    if total <= 1e-12:
        return 1.0
    p = singular / total
    return float(torch.exp(-(p * p.clamp(min=1e-30).log()).sum()))


@torch.no_grad()
def mean_std(x: Tensor) -> float:
    """Standard deviation of each channel of `(..., D)` over all rows, averaged over channels."""
    rows = x.detach().flatten(0, -2).float()
    return float((rows.var(0) + 1e-6).sqrt().mean())
