"""tokenizer train DATA --out FOLDER, tokenizer original FOLDER --out FOLDER."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data2vec2.commands.options import Tokenizer, refuse
from data2vec2.errors import UserError
from data2vec2.files import whole_folder
from data2vec2.modalities.text.corpus import sampled_texts, shown_progress
from data2vec2.modalities.text.files import find_text
from data2vec2.modalities.text.tokenizer import original_tokenizer, save_tokenizer, train_tokenizer


def tokenizer(given: Tokenizer) -> int:
    """Make a tokenizer as a folder that `AutoTokenizer` loads; returns the size of its vocabulary."""
    folder = Path(given.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; give a folder that does not exist yet")
    if given.action == "original":
        refuse(given, ("vocab_size", "text_column", "encoding"), "is for tokenizer train; the original's is as it is")
        made = original_tokenizer(*(Path(given.data) / name for name in ("encoder.json", "vocab.bpe", "dict.txt")))
    else:
        sources = find_text(given.data, given.encoding)["train"]
        with shown_progress(f"reading {given.data}", sources) as read:
            made = train_tokenizer(
                _some(sampled_texts(sources, given.text_column, "line", read), given), given.vocab_size
            )
    with whole_folder(folder, replace=folder.exists()) as new:
        save_tokenizer(made, new)
    return int(made.get_vocab_size())


def _some(texts: Iterator[str], given: Tokenizer) -> Iterator[str]:
    """The same texts; `UserError`, in the words of this command, where there is none or the column is missing."""
    found = False
    try:
        for text in texts:
            found = True
            yield text
    except UserError as error:
        raise UserError(str(error).replace("--data.text-column", "--text-column")) from error
    if not found:
        column = f"no {given.text_column!r} with text (--text-column names another)"
        raise UserError(f"{given.data} holds no text to learn from: its files are empty, or their rows have {column}")
