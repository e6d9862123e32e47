"""Text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data2vec2.modalities.spec import Demo, Spec, Words
from data2vec2.modalities.text.config import TextConfig, TextDataConfig, TextFinetuneDataConfig, TextTaskConfig
from data2vec2.modalities.text.recipes import ANSWERS, FINETUNE, RECIPES, text_finetune_tiny

_BUNDLED = Path(__file__).parents[2] / "data" / "bundled"


def wordnet_glosses() -> Path:
    """What WordNet says of its 117,000 meanings of words: train.parquet and test.parquet, for `open_sentences`.

    Columns `text` (English), `label` (what a noun stands for, in ten classes; null for all others, which are in the
    training part) and `synset`.
    """
    return _BUNDLED / "wordnet_glosses"


def longer_glosses() -> Path:
    """An exported model: `text_tiny` after six times the demo's updates on `wordnet_glosses`."""
    return _BUNDLED / "longer_glosses"


_TUNING = text_finetune_tiny()
_SHORT = replace(_TUNING, optim=replace(_TUNING.optim, lr=2e-3), train=replace(_TUNING.train, updates=150))
SPEC = Spec(
    name="text",
    words=Words(
        one="text",
        many="texts",
        unit="blocks",
        finetune_unit="tokens",
        largest="a block",
        raw="words (TF-IDF)",
        columns=True,
    ),
    config=TextConfig,
    data=TextDataConfig,
    finetune_data=TextFinetuneDataConfig,
    task=TextTaskConfig,
    recipes=RECIPES,
    finetune={"classify": FINETUNE, "regress": FINETUNE, "tokens": FINETUNE, "answers": ANSWERS},
    demo=Demo(
        recipe="text_tiny",
        data=wordnet_glosses,
        about="110,806 explanations of words, without labels",
        # 100 and 1,000 labels in all, for probes and for a short fine-tuning
        evaluation={"labels": (10, 100), "seeds": 1, "finetune": _SHORT},
        check=lambda: wordnet_glosses() / "test.parquet",
        longer=("3,600 updates, ten minutes of one core", longer_glosses),
    ),
    tools="data2vec2.modalities.text.tools:TextTools",
    transformers="data2vec2.modalities.text.transformers",
)
