"""A tokenizer of real text for the tests beside."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE of 400 entries, learned from every fiftieth gloss of the test part."""
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    glosses = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][::50]
    save_tokenizer(train_tokenizer(glosses, 400), path)
    return path
