"""Real data that comes with the package, for the demonstration and for tests."""

from __future__ import annotations

from pathlib import Path


def fashion_mnist() -> Path:
    """10,000 training and 2,000 test pictures of Fashion-MNIST (28 x 28, grey, 10 classes), for `open_data`."""
    return Path(__file__).parent / "bundled" / "fashion_mnist" / "fashion_mnist.npz"


def english_prompts() -> Path:
    """24 minutes of one voice's telephone prompts (16 kHz), for `open_data`.

    Folders train and test, in each a folder a category; beside them `metadata.csv` (texts) and `phones.csv` (see
    `data.phones`).
    """
    return Path(__file__).parent / "bundled" / "english_prompts"


def wordnet_glosses() -> Path:
    """What WordNet says of its 117,000 meanings of words: train.parquet and test.parquet, for `open_sentences`.

    Columns `text` (English), `label` (what a noun stands for, in ten classes; null for all others, which are in the
    training part) and `synset`.
    """
    return Path(__file__).parent / "bundled" / "wordnet_glosses"
