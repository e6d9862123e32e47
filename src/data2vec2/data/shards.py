"""Text as numbers: every corpus is tokenised once, into a file from which blocks are read at random.

The file of a corpus holds the ids of its tokens one behind the other, with the end-of-text token behind every unit. It
stays in the cache folder, from which it may be deleted at any time; the same texts and tokenizer use it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.tables import cache_folder
from data2vec2.data.text import Piece, TextSource, Unit, identity_of, pieces_of
from data2vec2.data.tokenizer import TextTokenizer
from data2vec2.errors import UserError

FORMAT = 1
_BATCH = 1 << 20  # characters tokenised at once, by as many threads as the tokenizer takes
_READ = 1 << 26  # bytes of a file summed at once

Progress = Callable[[int, int], object]
"""Hears how many bytes of how many are done."""


@dataclass(frozen=True)
class Corpus:
    """A tokenised part of the data."""

    path: Path
    dtype: str
    num_tokens: int
    checksum: int
    """CRC-32 of the file."""
    counts: dict[str, int]
    """What was mended or left out, as in "empty files"; also "units" and "characters"."""

    @property
    def remarks(self) -> str:
        """What the user should know of the text, or nothing."""
        shown = {name: count for name, count in self.counts.items() if name not in ("units", "characters") and count}
        return ", ".join(f"{count:,} {name}" for name, count in shown.items())

    @cached_property
    def tokens(self) -> NDArray[Any]:
        """The ids, memory-mapped."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.num_tokens,))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Stretches of a corpus, all of one length. Can be pickled: the file is opened again."""

    in_memory: ClassVar[bool] = True
    path: Path
    dtype: str
    width: int
    """Tokens of a block."""
    starts: NDArray[np.int64]
    """Place of each block's first token in the file."""
    checksum: int

    def read(self, index: int) -> bytes:
        """The ids of a block, as int64."""
        return self.block(index).tobytes()

    def block(self, index: int) -> NDArray[np.int64]:
        """The ids of a block."""
        size, start = np.dtype(self.dtype).itemsize, int(self.starts[index])
        return np.fromfile(self.path, dtype=self.dtype, count=self.width, offset=start * size).astype(np.int64)

    def select(self, places: NDArray[np.int64]) -> Blocks:
        """The blocks at `places`."""
        return Blocks(self.path, self.dtype, self.width, self.starts[places], self.checksum)

    def content(self) -> Iterator[bytes | memoryview]:
        """The file's checksum, and where the blocks are."""
        yield f"{self.checksum} {self.width}".encode()
        yield self.starts.tobytes()


class BlockNames(Sequence[str]):
    """Blocks are called after the place of their first token."""

    def __init__(self, starts: NDArray[np.int64]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, place: Any) -> Any:
        """One name; of a slice, several."""
        if isinstance(place, slice):
            return [f"token {start}" for start in self.starts[place].tolist()]
        return f"token {int(self.starts[place])}"


def tokenised(
    sources: list[TextSource], tokenizer: TextTokenizer, column: str, unit: Unit, progress: Progress = lambda *_: None
) -> Corpus:
    """The tokens of some texts: those in the cache folder, or made now.

    They are made again if a file's size or time has changed, or what is in the cache is damaged. `UserError` if a
    text can't be read or the cache folder can't be written.
    """
    key = f"{FORMAT}\0{identity_of(sources)}\0{tokenizer.digest}\0{column}\0{unit}"
    target = cache_folder() / f"text-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if corpus := _opened(target):
        return corpus
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as unfinished:
            made = Path(unfinished) / "corpus"
            made.mkdir()
            _write(sources, tokenizer, column, unit, made, progress)
            if target.exists():  # damaged
                shutil.rmtree(target)
            made.rename(target)
    except OSError as error:
        if not (corpus := _opened(target)):  # else another process was faster
            raise UserError(f"can't write {target}: {error}; XDG_CACHE_HOME names another folder") from error
        return corpus
    corpus = _opened(target)
    assert corpus is not None
    return corpus


def cut_blocks(
    corpus: Corpus, eos_id: int, width: int, val_fraction: float, limit: int = 2000
) -> tuple[Blocks, Blocks]:
    """Blocks of `width` tokens to train on, and the last of the corpus held out, at most `limit`.

    The held-out part begins behind the end of a unit, so that none is in both. Tokens at the end of a part that fill
    no block are left out. Below 20 blocks none are held out.
    """
    total = corpus.num_tokens // width
    held = min(limit, round(val_fraction * total)) if total >= 20 else 0
    stop = corpus.num_tokens - held * width
    ends = np.flatnonzero(corpus.tokens[stop : stop + (held // 2) * width] == eos_id)
    start = stop + int(ends[0]) + 1 if len(ends) else stop
    return tuple(  # type: ignore[return-value]
        Blocks(corpus.path, corpus.dtype, width, first + width * np.arange((last - first) // width), corpus.checksum)
        for first, last in ((0, stop), (start, corpus.num_tokens if held else start))
    )


def _write(
    sources: list[TextSource], tokenizer: TextTokenizer, column: str, unit: Unit, folder: Path, progress: Progress
) -> None:
    """Tokenise into a folder: the ids, then the manifest."""
    dtype = np.dtype("<u2" if tokenizer.size <= 1 << 16 else "<u4")
    counts: Counter[str] = Counter()
    done, total, num_tokens, checksum = 0, sum(source.size for source in sources), 0, 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    with (folder / "tokens.bin").open("wb") as file:
        for batch in _batches(piece for s in sources for piece in pieces_of(s, column, unit, counts, read)):
            encoded = tokenizer.backend.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
            ends = [[tokenizer.eos_id] if ends else [] for _, ends in batch]
            ids = [np.array(one.ids + end, dtype=dtype) for one, end in zip(encoded, ends, strict=True)]
            counts["units"] += sum(map(len, ends))
            content = np.concatenate(ids).tobytes()
            file.write(content)
            checksum = zlib.crc32(content, checksum)
            num_tokens += len(content) // dtype.itemsize
        file.flush()
        os.fsync(file.fileno())
    manifest = {"dtype": dtype.str, "num_tokens": num_tokens, "checksum": checksum, "counts": dict(counts)}
    manifest |= {"sources": [source.identity.split("\0") for source in sources], "tokenizer": str(tokenizer.path)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8", errors="backslashreplace")


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces of about `_BATCH` characters together."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[0]) + 16
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _opened(folder: Path) -> Corpus | None:
    """The corpus in a folder; None if there is none or its file is not what was written."""
    path = folder / "tokens.bin"
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        fields = {name: manifest[name] for name in ("dtype", "num_tokens", "checksum", "counts")}
        checksum = 0
        with path.open("rb") as file:
            while content := file.read(_READ):
                checksum = zlib.crc32(content, checksum)
    except (OSError, ValueError, KeyError):
        return None
    sound = (
        checksum == fields["checksum"]
        and path.stat().st_size == fields["num_tokens"] * np.dtype(fields["dtype"]).itemsize
    )
    return Corpus(path, **fields) if sound else None
