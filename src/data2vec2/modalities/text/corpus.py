"""Text to pre-train on: every corpus is tokenised once, into a file from which blocks are read at random.

The file of a corpus holds the ids of its tokens one behind the other, with the end-of-text token behind every unit. It
stays in the cache folder, from which it may be deleted at any time; the same texts and tokenizer use it again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from data2vec2.data.account import Account, PartAccount
from data2vec2.data.records import Parts, Records
from data2vec2.data.source import Source, parts_by_name
from data2vec2.errors import UserError
from data2vec2.files import CACHE_HINT, cache_folder, read_json, whole_folder
from data2vec2.modalities.data import narrow
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.files import (
    Piece,
    TextSource,
    Unit,
    beside,
    find_text,
    identity_of,
    pieces_of,
)
from data2vec2.modalities.text.tokenizer import TOKENIZER_FILES, TextTokenizer, save_tokenizer, train_tokenizer
from data2vec2.training.progress import console, shows_bars


def open_text(path: str | Path, tokenizer: TextTokenizer, model: TextConfig, data: TextDataConfig) -> Parts:
    """Tokenise what `path` holds, unless that was done before, and cut it into blocks.

    Where the data name no validation part, the end of the corpus is held out. The account counts units. `UserError` for
    too little text.
    """

    def corpus(part: str) -> Corpus:
        with shown_progress(f"tokenising {path}", texts[part]) as read:
            return tokenised(texts[part], tokenizer, data.text_column, data.unit, read)

    texts, width = find_text(path, data.encoding), model.max_tokens - 1
    named, train = "val" in texts, corpus("train")
    blocks, held = cut_blocks(train, model.eos_id, width, 0.0 if named else data.val_fraction)
    corpora = {"train": train}
    if named:
        corpora["val"] = corpus("val")
        held, _ = cut_blocks(corpora["val"], model.eos_id, width, 0.0)
    if not len(blocks.starts):
        remarks = f" ({train.remarks})" if train.remarks else ""
        raise UserError(f"{path} has {train.num_tokens:,} tokens of text{remarks}, and a block takes {width:,}")
    units, count = train.counts.get("units", 0), len(texts["train"])
    sources = f"{count:,} source{'s' if count > 1 else ''}"
    number = f"{train.num_tokens:,} tokens in {units:,} {data.unit}s of {sources}"
    choices = parts_by_name({part: [source.name for source in found] for part, found in texts.items()})
    description = "; ".join(filter(None, (f"text: {number}", train.remarks, *choices)))
    named_sources = {source.name for found in texts.values() for source in found}
    account = Account(kind="text", choices=choices, beside=beside(path, named_sources))
    for part, one in corpora.items():
        of_part = account.part(part)
        of_part.bad, of_part.left_out = dict(one.bad), dict(one.left_out)
        of_part.found = one.counts.get("units", 0) + len(one.bad) + len(one.left_out)
        if one.remarks:
            account.remarks.append(f"{part} part: {one.remarks}")
    if not named and len(held.starts):
        account.hold_out(int(np.count_nonzero(train.tokens[held.starts[0] :] == model.eos_id)))
    if "test" in texts:
        account.beside |= {source.name: "test part, which pre-training does not read" for source in texts["test"]}
    rest = sum(one.num_tokens for one in corpora.values()) - width * (len(blocks.starts) + len(held.starts))
    if rest:
        account.remarks.append(f"{rest:,} tokens at the ends of parts fill no block of {width:,}")
    return Parts(blocks.records(), held.records() if named or len(held.starts) else None, None, description, account)


FORMAT = 4
_BATCH = 1 << 20  # characters tokenised at once, by as many threads as the tokenizer takes
_READ = 1 << 26  # bytes of a file summed at once
LEARNED = 100_000_000
"""Characters that a vocabulary is made of, at most; of longer texts evenly spread pieces."""
Hear = Callable[[int], object]
"""Hears of bytes (rows) that were read."""


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
    bad: dict[str, str]
    """Rows of tables that can't be read reliably, and why."""
    left_out: dict[str, str]
    """Files without text."""

    @property
    def remarks(self) -> str:
        """What the user should know of the text, or nothing."""
        odd = {name: count for name, count in self.counts.items() if count and name not in ("units", "characters")}
        return ", ".join(f"{count:,} {name}" for name, count in odd.items())

    @property
    def tokens(self) -> NDArray[Any]:
        """The ids, memory-mapped."""
        if not self.num_tokens:  # of an empty file there is no map
            return np.empty(0, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.num_tokens,))


@dataclass(frozen=True, eq=False)
class Blocks(Source):
    """Stretches of a corpus, all of one length. Can be pickled: the file is opened again."""

    in_memory: ClassVar[bool] = True
    corpus: Corpus
    width: int
    """Tokens of a block."""
    starts: NDArray[np.int64]
    """Place of each block's first token in the file."""

    def read(self, index: int) -> bytes:
        """The ids of a block, as int64."""
        path, dtype = self.corpus.path, np.dtype(self.corpus.dtype)
        start = int(self.starts[index]) * dtype.itemsize
        return np.fromfile(path, dtype=dtype, count=self.width, offset=start).astype(np.int64).tobytes()

    def select(self, places: NDArray[np.int64]) -> Blocks:
        """The blocks at `places`."""
        return replace(self, starts=self.starts[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """The file's checksum, and where the blocks are."""
        yield f"{self.corpus.checksum} {self.width}".encode()
        yield self.starts.tobytes()

    def copies(self) -> list[Path]:
        """The file of tokens."""
        return [self.corpus.path]

    def records(self) -> Records:
        """All of them."""
        labels = np.full(len(self.starts), -1, dtype=np.int64)
        return Records("text", BlockNames(self.starts), labels, (), self)


@dataclass(frozen=True, eq=False)
class BlockNames(Sequence[str]):
    """Blocks are called after the place of their first token. Made when asked for, as there may be millions."""

    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, place: Any) -> Any:
        return f"token {self.starts[place]}"


def tokenised(
    sources: list[TextSource], tokenizer: TextTokenizer, column: str, unit: Unit, read: Hear = lambda _: None
) -> Corpus:
    """The tokens of some texts: those in the cache folder, or made now; `UserError` if that can't be.

    They are made again if a file's size or time has changed, or what is in the cache is damaged.
    """
    key = f"{FORMAT}\0{identity_of(sources)}\0{tokenizer.digest}\0{column}\0{unit}"
    target = cache_folder() / f"text-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if corpus := _opened(target):
        return corpus
    shutil.rmtree(target, ignore_errors=True)  # damaged
    try:
        with whole_folder(target, hint=CACHE_HINT) as made:
            _write(sources, tokenizer, column, unit, made, read)
    except UserError:
        if not _opened(target):  # else another process was faster
            raise
    return narrow(_opened(target), Corpus)


def cut_blocks(corpus: Corpus, eos_id: int, width: int, val_fraction: float) -> tuple[Blocks, Blocks]:
    """Blocks of `width` tokens to train on, and the last of the corpus held out, at most 2,000.

    The held-out part begins behind the end of a unit, so that none is in both. Tokens at the end of a part that fill
    no block are left out. Below 20 blocks none are held out.
    """
    total = corpus.num_tokens // width
    held = min(2_000, round(val_fraction * total)) if total >= 20 else 0
    stop = corpus.num_tokens - held * width
    ends = np.flatnonzero(corpus.tokens[stop : stop + (held // 2) * width] == eos_id)
    start = stop + int(ends[0]) + 1 if len(ends) else stop
    spans = ((0, stop), (start, corpus.num_tokens))
    train, val = (first + width * np.arange((last - first) // width) for first, last in spans)
    return Blocks(corpus, width, train), Blocks(corpus, width, val)


def _write(
    sources: list[TextSource], tokenizer: TextTokenizer, column: str, unit: Unit, folder: Path, read: Hear
) -> None:
    """Tokenise into a folder: the ids, then the manifest."""
    dtype = np.dtype("<u2" if tokenizer.size <= 1 << 16 else "<u4")
    counts, account = Counter[str](), PartAccount()
    num_tokens = checksum = 0
    with (folder / "tokens.bin").open("wb") as file:
        for batch in _batches(piece for s in sources for piece in pieces_of(s, column, unit, counts, read, account)):
            encoded = tokenizer.backend.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
            ends = [[tokenizer.eos_id] if ends else [] for _, ends in batch]
            ids = [np.array(one.ids + end, dtype=dtype) for one, end in zip(encoded, ends, strict=True)]
            counts["units"] += sum(map(len, ends))
            joined = np.concatenate(ids)
            counts["unknown tokens"] += int(np.count_nonzero(joined == tokenizer.unknown_id))
            content = joined.tobytes()
            file.write(content)
            checksum = zlib.crc32(content, checksum)
            num_tokens += len(content) // dtype.itemsize
    manifest = {"dtype": dtype.str, "num_tokens": num_tokens, "checksum": checksum, "counts": dict(counts)}
    manifest |= {"bad": account.bad, "left_out": account.left_out}
    manifest |= {"sources": [source.identity.split("\0") for source in sources], "tokenizer": str(tokenizer.path)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8", errors="backslashreplace")


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces of about `_BATCH` characters together."""
    batch, size = list[Piece](), 0
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
        manifest = read_json(folder / "manifest.json")
        corpus = Corpus(
            path, *(manifest[name] for name in ("dtype", "num_tokens", "checksum", "counts", "bad", "left_out"))
        )
        checksum = size = 0
        with path.open("rb") as file:
            while content := file.read(_READ):
                checksum, size = zlib.crc32(content, checksum), size + len(content)
    except (OSError, KeyError, TypeError, UserError):
        return None
    written = (corpus.checksum, corpus.num_tokens * np.dtype(corpus.dtype).itemsize)
    return corpus if (checksum, size) == written else None


def made_tokenizer(data: Sequence[str], vocab_size: int, reading: TextDataConfig, say: Callable[[str], None]) -> Path:
    """A tokenizer of the training text of all DATA in the cache folder, made if it is not there yet."""
    sources = [source for one in data for source in find_text(one, reading.encoding)["train"]]
    text_column, unit = reading.text_column, reading.unit
    with shown_progress(f"reading {', '.join(data)}", sources) as read:
        texts = sampled_texts(sources, text_column, unit, read)
        return kept_tokenizer(f"{identity_of(sources)}\0{text_column}", texts, vocab_size, say)


def kept_tokenizer(key: str, texts: Iterable[str], vocab_size: int, say: Callable[[str], None]) -> Path:
    """A tokenizer of texts, which `key` tells from others, in the cache folder, made if it is not there yet."""
    digest = hashlib.sha256(f"{key}\0{vocab_size}".encode()).hexdigest()
    folder = cache_folder() / f"tokenizer-{digest[:32]}"
    if not (folder / TOKENIZER_FILES[1]).is_file():
        say(f"tokenizer: trained on the text, with a vocabulary of {vocab_size:,} (--data.tokenizer names another)")
        made = train_tokenizer(texts, vocab_size)
        with whole_folder(folder, replace=True, hint=CACHE_HINT) as new:
            save_tokenizer(made, new)
    return folder


@contextmanager
def shown_progress(what: str, sources: list[TextSource]) -> Iterator[Hear]:
    """A bar on a terminal, that shows up with the first sign of progress; nothing elsewhere."""
    screen = console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not shows_bars(screen)) as bar:
        task = bar.add_task(what, visible=False, total=sum(source.size for source in sources))
        yield lambda size: bar.update(task, advance=size, visible=True)


def sampled_texts(sources: list[TextSource], column: str, unit: Unit, hear: Hear) -> Iterator[str]:
    """Pieces of the sources: as much of what was read so far as `LEARNED` is of all of it."""
    taken, done, total = 0, 0, sum(source.size for source in sources)

    def read(size: int) -> None:
        nonlocal done
        done += size
        hear(size)

    for source in sources:
        for text, _ in pieces_of(source, column, unit, Counter(), read):
            if taken * total <= LEARNED * done:
                taken += len(text)
                yield text
