"""Several data sets as one, and how often the samples of each come in a pass over all of them.

Shapes: `N` samples, `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.account import Account
from data2vec2.data.records import Parts, Records, held_out
from data2vec2.data.source import Source
from data2vec2.errors import UsageError

MOST = 20
"""A pass may have so many times as many samples as there are."""


@dataclass(frozen=True, eq=False)
class Joined(Source):
    """The samples of several sources."""

    sources: tuple[Source, ...]
    places_N2: NDArray[np.int64]
    """Of each sample the source, and its place there."""

    @property
    def in_memory(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return all(source.in_memory for source in self.sources)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """As its source does."""
        source, place = self._at(index)
        return source.read(place)

    def open(self, index: int) -> BinaryIO:
        """As its source does."""
        source, place = self._at(index)
        return source.open(place)

    def _at(self, index: int) -> tuple[Source, int]:
        source, place = self.places_N2[index].tolist()
        return self.sources[source], place

    def select(self, places: NDArray[np.int64]) -> Joined:
        """The samples at `places`."""
        return replace(self, places_N2=self.places_N2[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """That of all sources, and which each sample is of."""
        for number, source in enumerate(self.sources):
            yield from source.select(self.places_N2[self.places_N2[:, 0] == number, 1]).content()
        yield self.places_N2.tobytes()

    def files(self) -> Iterable[str]:
        """Those of all sources, or none where one has none."""
        every = all(next(iter(source.files()), None) for source in self.sources)
        return chain.from_iterable(source.files() for source in self.sources) if every else ()

    def copies(self) -> list[Path]:
        """Those of all sources."""
        return list(chain.from_iterable(source.copies() for source in self.sources))


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """Names of samples behind the names of their data sets. Made when asked for, as there may be millions."""

    of: tuple[Sequence[str], ...]
    data: tuple[str, ...]
    places_N2: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places_N2)

    def __getitem__(self, place: Any) -> Any:
        number, own = self.places_N2[place].tolist()
        return f"{self.data[number]}/{self.of[number][own]}"

    def select(self, places: NDArray[np.int64]) -> Names:
        """Those at `places`."""
        return replace(self, places_N2=self.places_N2[places])


def join(parts: Sequence[Parts], data: Sequence[str], fraction: float, seed: int) -> Parts:
    """Data sets as one, in their order; of each one without a validation part, a `fraction` is held out for that.

    Classes of the same name are one class; where not all data sets have a class for each sample, none has. `data` are
    their names, each of which stands before the names of its samples.
    """
    if len({*data}) < len(data):
        raise UsageError(f"DATA is {', '.join(data)}; name each data set once, and give shares by --data.weights")
    split = [held_out(one, None, fraction, seed) for one in parts]
    for one, (train, _) in zip(parts, split, strict=True):
        one.account.hold_out(len(one.train) - len(train))
    trained = [train for train, _ in split]
    alike = all(one.classes and one.tags is None for one in trained)
    classes = tuple(dict.fromkeys(chain.from_iterable(one.classes for one in trained))) if alike else ()
    account = _account([one.account for one in parts], data)
    if not alike and (taught := [name for name, one in zip(data, trained, strict=True) if one.taught]):
        account.remarks.append(f"labels of {', '.join(taught)} are not used: not all data sets have a class a sample")
    levels = {one.levels for one in trained if one.levels}
    if len(levels) > 1:
        account.remarks.append("data sets differ in the values that are black and white; the widest are taken for all")
    train = _records(dict(enumerate(trained)), data, classes)
    held = {place: one for place, (_, one) in enumerate(split) if one is not None}
    said = f"{len(parts)} data sets: {len(train):,} train, {f'{len(classes):,} classes' if classes else 'no labels'}"
    each = [f"{name}: {one.description}" for name, one in zip(data, parts, strict=True)]
    return Parts(train, _records(held, data, classes) if held else None, None, "; ".join([said, *each]), account)


def _records(of: Mapping[int, Records], data: Sequence[str], classes: tuple[str, ...]) -> Records:
    """The records of data sets, by their place in `data`, one behind the other."""
    some = list(of.values())
    places_N2 = np.concatenate([np.stack((np.full(len(one), n), np.arange(len(one))), 1) for n, one in enumerate(some)])
    index = {name: place for place, name in enumerate(classes)}
    of_class = [np.array([*(index.get(name, -1) for name in one.classes), -1]) for one in some]
    seconds = [np.full(len(one), np.nan) if one.seconds is None else one.seconds for one in some]
    texts: list[Sequence[str | None]] = [one.texts or [None] * len(one) for one in some]
    levels = [one.levels for one in some if one.levels]
    return Records(
        f"{len(data)} data sets",
        Names(tuple(one.names for one in some), tuple(data[place] for place in of), places_N2),
        np.concatenate([known[one.labels] for known, one in zip(of_class, some, strict=True)]),
        classes,
        Joined(tuple(one.source for one in some), places_N2),
        texts=tuple(chain.from_iterable(texts)) if any(one.texts for one in some) else None,
        seconds=np.concatenate(seconds) if any(one.seconds is not None for one in some) else None,
        levels=(min(low for low, _ in levels), max(high for _, high in levels)) if levels else None,
        origins=np.repeat(list(of), [len(one) for one in some]),
    )


def _account(accounts: Sequence[Account], data: Sequence[str]) -> Account:
    """What became of all of them."""
    joined = Account()
    for name, one in zip(data, accounts, strict=True):
        for key, part in one.parts.items():
            whole = joined.part(key)
            whole.found += part.found
            whole.asked += part.asked
            for own, all_of in ((part.bad, whole.bad), (part.left_out, whole.left_out), (part.mended, whole.mended)):
                all_of |= {f"{name}/{sample}": why for sample, why in own.items()}
        joined.beside |= {f"{name}/{file}": why for file, why in one.beside.items()}
        joined.choices += [f"{name}: {choice}" for choice in one.choices]
        joined.remarks += [f"{name}: {remark}" for remark in one.remarks]
    joined.kind = "; ".join(f"{name}: {one.kind}" for name, one in zip(data, accounts, strict=True))
    return joined


def weighted(records: Records, data: Sequence[str], weights: Sequence[float], seed: int) -> tuple[Records, list[str]]:
    """The records with how often each comes in a pass, so that data sets have shares like `weights`; and this in words.

    The data set that is asked for least, for its size, comes once. Of another, which samples come once more than the
    rest is drawn by `seed`. `UsageError` for weights that don't fit the data sets, or are too far from their sizes.
    """
    if len(weights) != len(data):
        raise UsageError(f"data.weights has {len(weights)} values for {len(data)} data sets; give one for each DATA")
    origins = np.zeros(len(records), dtype=np.int64) if records.origins is None else records.origins
    sizes = np.bincount(origins, minlength=len(data))
    times = np.array(weights) / sizes
    counts = np.rint(times / times.min() * sizes).astype(np.int64)
    if counts.sum() > MOST * len(records):
        most, least = int(times.argmax()), int(times.argmin())
        given = " ".join(f"{weight:g}" for weight in weights)
        raise UsageError(
            f"data.weights is {given}: in a pass over all data, each sample of {data[most]} would come "
            f"{times[most] / times[least]:,.0f} times; raise the weight of {data[least]}, or take less of it"
        )
    repeats = np.ones(len(records), dtype=np.int64)
    said = []
    for place, (name, size, count) in enumerate(zip(data, sizes.tolist(), counts.tolist(), strict=True)):
        own, more = np.flatnonzero(origins == place), count % size
        repeats[own] = count // size
        repeats[own[rng.permutation(rng.keys(rng.Stream.ORDER, seed, place, 2), size)[:more]]] += 1
        least = count // size
        often = f"{least:,} or {least + 1:,} times" if more else "once" if least == 1 else f"{least:,} times"
        said.append(f"{name}: {count / counts.sum():.1%} of a pass, each of its {size:,} samples {often}")
    return replace(records, repeats=repeats), said
