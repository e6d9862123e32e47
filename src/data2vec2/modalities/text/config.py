"""Configuration of text: the model's input, how files are read, and what fine-tuning adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig, TaskConfig
from data2vec2.config.tree import require

ENCODING = "an encoding that Python knows (cp1252, latin-1, utf-16), or none"


def known_encoding(name: str | None) -> bool:
    """Whether text can be in this encoding; none is UTF-8."""
    try:
        return name is None or "".encode(name) is not None
    except LookupError:
        return False


@dataclass(frozen=True, kw_only=True)
class TextConfig(ModalityConfig):
    """Text, cut into the tokens of a tokenizer."""

    usual_names: ClassVar = {
        "max_position_embeddings": "max_tokens",
        "bos_token_id": "bos_id",
        "pad_token_id": "pad_id",
        "eos_token_id": "eos_id",
    }
    """As Transformers' models have them."""
    added: ClassVar = frozenset({"token_scale", "stem_norm_eps"})
    """Since the first exports."""
    resizable: ClassVar = frozenset({"max_tokens"})
    """Of longer texts, the first positions are taken."""
    kind: Literal["text"] = "text"
    """The modality."""
    vocab_size: int = 50_265
    """Size of the tokenizer's vocabulary."""
    max_tokens: int = 512
    """Tokens in a block of pre-training, and in the longest input."""
    bos_id: int = 0
    """Token at the start of a block."""
    pad_id: int = 1
    """Padding token."""
    eos_id: int = 2
    """Token at the end of every sentence or document."""
    token_scale: float = 1.0
    """Factor for token embeddings before position embeddings are added; both start N(0, 0.02). With 1, as in the paper,
    positions dominate at first and are easy to predict (LOG.md)."""
    stem_norm_eps: float = 1e-5
    """Epsilon of the LayerNorm behind the embeddings."""

    def __post_init__(self) -> None:
        require(self.max_tokens >= 2, "model.modality.max_tokens", self.max_tokens, "at least 2")
        require(self.token_scale > 0, "model.modality.token_scale", self.token_scale, "above 0")
        require(self.stem_norm_eps > 0, "model.modality.stem_norm_eps", self.stem_norm_eps, "above 0")
        ids = [self.bos_id, self.pad_id, self.eos_id]
        fits = min(ids) >= 0 and len(set(ids)) == 3
        require(fits, "model.modality.pad_id", self.pad_id, "0 or more, and another than bos_id and eos_id")
        expected = f"above bos_id, pad_id and eos_id ({max(ids)})"
        require(self.vocab_size > max(ids), "model.modality.vocab_size", self.vocab_size, expected)

    @property
    def summarised(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, kw_only=True)
class TextDataConfig(DataConfig):
    """How text is read."""

    learned: ClassVar = ("tokenizer",)
    """What the embeddings are of."""
    kind: Literal["text"] = "text"
    """The modality."""
    tokenizer: str | None = None
    """A folder with a tokenizer, or its tokenizer.json; none: train one on the training data."""
    text_column: str = "text"
    """Column of tables, or key of .jsonl files, with the text."""
    unit: Literal["line", "document", "file"] = "line"
    """Unit that ends with an end-of-text token: each line; each document (up to an empty line; in tables, a row); or
    each file (in tables, a row)."""
    encoding: str | None = None
    """Encoding of files of text and tables, such as cp1252; none: UTF-8, or UTF-16 with a byte-order mark."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.text_column), "data.text_column", self.text_column, "a name")
        require(known_encoding(self.encoding), "data.encoding", self.encoding, ENCODING)


@dataclass(frozen=True, kw_only=True)
class TextHeadConfig:
    """Changes to the pre-trained encoder."""

    dropout: float = 0.1
    """Dropout on the embeddings, after the attention projections and after the MLPs."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights."""
    pooling: Literal["first", "mean"] = "first"
    """Input of the head: first: the first token through a tanh layer, as for GLUE; mean: the normalised token mean."""

    def __post_init__(self) -> None:
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class TextFinetuneDataConfig(FinetuneDataConfig):
    """Columns of a table, and number of labels."""

    kind: Literal["text"] = "text"
    """The modality."""
    text_columns: tuple[str, ...] = ()
    """The column of texts, or the two columns of pairs; none: found by their usual names."""
    label_column: str | None = None
    """The column of labels or numbers; none: found by its usual names."""
    encoding: str | None = None
    """Encoding of files of text and tables, such as cp1252; none: UTF-8, or UTF-16 with a byte-order mark."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.text_columns) <= 2, "data.text_columns", self.text_columns, "one column, or two")
        require(known_encoding(self.encoding), "data.encoding", self.encoding, ENCODING)


@dataclass(frozen=True, kw_only=True)
class TextTaskConfig(TaskConfig):
    """How fine-tuning changes a text encoder."""

    kind: Literal["text"] = "text"
    """The modality."""
    model: TextHeadConfig = field(default_factory=TextHeadConfig)
    """Changes to the encoder."""
