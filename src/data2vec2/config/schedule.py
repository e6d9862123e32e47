"""Schedules that fit a run's length."""

from __future__ import annotations

from dataclasses import replace

from data2vec2.config.run import RunConfig


def fit_schedule(config: RunConfig, reference: RunConfig) -> RunConfig:
    """Shorten warm-up and EMA when `config` makes fewer updates than the `reference` recipe.

    A teacher that averages over 5,000 updates is still its initialisation after 2,000. So warm-up and annealing shrink
    in proportion to the run, and the averaging times 1 / (1 - decay) at the start and the end of the annealing shrink
    with them (but not below 10 updates). What the user set (what differs from the reference) is left alone.
    """
    ratio = config.train.updates / reference.train.updates
    if ratio >= 1:
        return config

    def shorter_decay(decay: float) -> float:
        return max(min(decay, 1 - (1 - decay) / ratio), min(decay, 0.9))

    optim, ema = config.optim, config.ema
    if optim.warmup_updates == reference.optim.warmup_updates:
        optim = replace(optim, warmup_updates=round(optim.warmup_updates * ratio))
    if ema.anneal_updates == reference.ema.anneal_updates:
        ema = replace(ema, anneal_updates=round(ema.anneal_updates * ratio))
    if ema.start == reference.ema.start:
        ema = replace(ema, start=shorter_decay(ema.start))
    if ema.end == reference.ema.end:
        ema = replace(ema, end=shorter_decay(ema.end))
    return replace(config, optim=optim, ema=ema)
