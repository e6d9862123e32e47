"""tokenizer train DATA --out FOLDER, tokenizer original FOLDER --out FOLDER."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from data2vec2.data.shards import Progress as Heard
from data2vec2.data.tables import cache_folder
from data2vec2.data.text import TextSource, Unit, find_text, identity_of, pieces_of
from data2vec2.data.tokenizer import TOKENIZER_FILES, original_tokenizer, save_tokenizer, train_tokenizer
from data2vec2.errors import UserError
from data2vec2.training.progress import console

LEARNED = 100_000_000
"""Characters that a vocabulary is made of, at most; of longer texts evenly spread pieces."""


def train(data: str | Path, out: str | Path, *, vocab_size: int, text_column: str = "text") -> int:
    """Make a byte-level BPE of the training text of DATA, as a folder that `AutoTokenizer` loads; returns its size.

    It is made of 100 million characters at most, evenly spread over longer texts.

    Raises `UserError` if there is no text, or `out` is no new or empty folder, and `ValueError` for a size below 261.
    """
    folder, sources = _new(out), find_text(data)["train"]
    with shown_progress(f"reading {data}") as progress:
        tokenizer = train_tokenizer(_texts(sources, text_column, "line", progress), vocab_size)
    save_tokenizer(tokenizer, folder)
    return int(tokenizer.get_vocab_size())


def original(source: str | Path, out: str | Path) -> int:
    """Write the original's GPT-2 BPE from `source`/{encoder.json, vocab.bpe, dict.txt}; returns its size."""
    folder, files = _new(out), [Path(source) / name for name in ("encoder.json", "vocab.bpe", "dict.txt")]
    tokenizer = original_tokenizer(*files)
    save_tokenizer(tokenizer, folder)
    return int(tokenizer.get_vocab_size())


def made_tokenizer(data: Path, vocab_size: int, text_column: str, unit: Unit, say: Callable[[str], None]) -> Path:
    """A tokenizer of the training text of DATA in the cache folder, made if it is not there yet."""
    sources = find_text(data)["train"]
    key = f"{identity_of(sources)}\0{vocab_size}\0{text_column}"
    folder = cache_folder() / f"tokenizer-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if not (folder / TOKENIZER_FILES[1]).is_file():  # which is written last
        say(f"tokenizer: made from the text, with a vocabulary of {vocab_size:,} (--data.tokenizer names another)")
        with shown_progress(f"reading {data}") as progress:
            save_tokenizer(train_tokenizer(_texts(sources, text_column, unit, progress), vocab_size), folder)
    return folder


@contextmanager
def shown_progress(what: str) -> Iterator[Heard]:
    """A bar on a terminal, that shows up with the first sign of progress; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as bar:
        task = bar.add_task(what, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _texts(sources: list[TextSource], column: str, unit: Unit, progress: Heard) -> Iterator[str]:
    """Pieces of the sources: as much of what was read so far as `LEARNED` is of all of it."""
    taken, done, total = 0, 0, sum(source.size for source in sources)

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    for source in sources:
        for text, _ in pieces_of(source, column, unit, Counter(), read):
            if taken * total <= LEARNED * done:
                taken += len(text)
                yield text


def _new(out: str | Path) -> Path:
    """The folder to write, which must not hold anything."""
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; give a folder that does not exist yet")
    return folder
