"""Tokenizers: any fast one of Transformers, byte-level BPE of one's own text, and the original's GPT-2 BPE."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data2vec2.config.tree import require
from data2vec2.errors import UserError
from data2vec2.files import read_json

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3 in vocabularies made here, as in the original's."""
MASK = "<mask>"
"""The last entry of vocabularies made here; data2vec 2.0 does not use it."""
SMALLEST = 256 + len(SPECIAL) + 1
"""Entries of a vocabulary of single bytes."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""What belongs to a tokenizer in a folder; only the first must be there."""
_ROLES = {"bos": ("bos", "cls"), "pad": ("pad",), "eos": ("eos", "sep")}
_NAMES = {"bos": ("<s>", "[CLS]", "<|endoftext|>"), "pad": ("<pad>", "[PAD]"), "eos": ("</s>", "[SEP]")}


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the ids that pre-training needs."""

    path: Path
    """The folder, or the tokenizer.json, that it was read from."""
    backend: Tokenizer
    """It takes special tokens that stand in a text for ordinary characters."""
    bos_id: int
    pad_id: int
    eos_id: int

    @property
    def size(self) -> int:
        """Entries of the vocabulary: one more than the highest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def unknown_id(self) -> int | None:
        """What stands for characters that the vocabulary has not; None where it has all."""
        found = map(self.backend.token_to_id, ("<unk>", "[UNK]"))
        return next((one for one in found if one is not None), None)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides the ids."""
        content = tokenizer_file(self.path).read_bytes() + bytes(f"{self.bos_id} {self.eos_id}", "ascii")
        return hashlib.sha256(content).hexdigest()


def tokenizer_file(path: Path) -> Path:
    """The tokenizer.json that `path` names or holds; `UserError` if there is none."""
    file = path / TOKENIZER_FILES[0] if path.is_dir() else path
    if not file.is_file():
        makes = "data2vec2 tokenizer train makes one, or save_pretrained of a fast tokenizer of Transformers"
        raise UserError(f"no tokenizer at {path}: {file} does not exist; {makes}")
    return file


def load_tokenizer(path: Path) -> TextTokenizer:
    """Read a tokenizer.json, or a folder with one; `UserError` if it can't be, or has no start, end or padding."""
    file = tokenizer_file(path)
    try:
        backend = Tokenizer.from_file(str(file))
        config = file.with_name(TOKENIZER_FILES[1])
        named = read_json(config) if path.is_dir() and config.is_file() else {}
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{file} can't be read as a tokenizer.json: {error}") from error
    ids = {role: _special_id(backend, role, named) for role in _ROLES}
    if missing := " and no ".join(role for role, found in ids.items() if found is None):
        raise UserError(f"the tokenizer {path} has no {missing} token; name them in {TOKENIZER_FILES[1]}")
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return TextTokenizer(path, backend, **{f"{role}_id": int(found or 0) for role, found in ids.items()})


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` entries: special tokens in the original's order, `<mask>` last.

    It has fewer entries where the texts give no more. `UsageError` for a size without room for every byte.
    """
    require(vocab_size >= SMALLEST, "the vocabulary's size", vocab_size, f"at least {SMALLEST}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _complete(tokenizer)


def original_tokenizer(encoder_json: Path, vocab_bpe: Path, dict_txt: Path) -> Tokenizer:
    """GPT-2's BPE with the ids of the original's dictionary: after four special ones, the lines of dict.txt in order.

    A line is a number of encoder.json (or, to fill up, another word) and a count. `UserError` if they make none.
    """
    try:
        pieces = {str(number): piece for piece, number in read_json(encoder_json).items()}
        symbols = [line.split()[0] for line in dict_txt.read_text("utf-8").splitlines() if line.strip()]
        lines = [line.split() for line in vocab_bpe.read_text("utf-8").splitlines() if not line.startswith("#version")]
        vocabulary = {word: place for place, word in enumerate((*SPECIAL, *(pieces.get(s, s) for s in symbols)))}
        merges = [(line[0], line[1]) for line in lines if len(line) == 2]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # also the library's, if a merge makes no known piece
        raise UserError(f"{encoder_json}, {vocab_bpe} and {dict_txt} do not form a tokenizer: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    return _complete(tokenizer)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer made here as a folder that `AutoTokenizer.from_pretrained` loads."""
    bos, pad, eos, unknown = SPECIAL
    names = {"bos": bos, "cls": bos, "eos": eos, "sep": eos, "pad": pad, "unk": unknown, "mask": MASK}
    config: dict[str, object] = {f"{role}_token": token for role, token in names.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILES[0]))
    (folder / TOKENIZER_FILES[1]).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def copy_tokenizer(path: Path, folder: Path) -> None:
    """Copy the files of a tokenizer into a folder."""
    file = tokenizer_file(path)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / TOKENIZER_FILES[0])
    for name in TOKENIZER_FILES[1:] if path.is_dir() else ():
        if (path / name).is_file():
            shutil.copyfile(path / name, folder / name)


def export_tokenizer(path: Path, folder: Path, max_tokens: int) -> None:
    """Copy a tokenizer so that Transformers makes of texts what fine-tuning makes of them.

    Special tokens stand around a text, `truncation=True` cuts it to `max_tokens`, and only what a model needs is given.
    """
    copy_tokenizer(path, folder)
    loaded, config = load_tokenizer(folder), folder / TOKENIZER_FILES[1]
    if surround(loaded):
        backend = Tokenizer.from_file(str(folder / TOKENIZER_FILES[0]))
        backend.post_processor = loaded.backend.post_processor
        backend.save(str(folder / TOKENIZER_FILES[0]))
    names = {f"{role}_token": loaded.backend.id_to_token(getattr(loaded, f"{role}_id")) for role in _ROLES}
    said = read_json(config) if config.is_file() else {"tokenizer_class": "PreTrainedTokenizerFast"}
    longest = {"model_max_length": max_tokens, "model_input_names": ["input_ids", "attention_mask"]}
    config.write_text(json.dumps({**names, **said, **longest}, indent=2) + "\n", encoding="utf-8")


def surround(tokenizer: TextTokenizer) -> bool:
    """Make a tokenizer that puts no special tokens around texts do so; whether that was needed."""
    backend, ids = tokenizer.backend, (tokenizer.bos_id, tokenizer.eos_id)
    if backend.num_special_tokens_to_add(is_pair=False):
        return False
    bos, eos = (str(backend.id_to_token(number)) for number in ids)
    backend.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=list(zip((bos, eos), ids, strict=True)),
    )
    return True


def _complete(tokenizer: Tokenizer) -> Tokenizer:
    """Add the mask token, and what puts `<s>` and `</s>` around a text, or `</s></s>` between two."""
    tokenizer.add_special_tokens([MASK])
    tokenizer.decoder = decoders.ByteLevel()
    bos, _, eos, _ = ((token, place) for place, token in enumerate(SPECIAL))
    tokenizer.post_processor = processors.RobertaProcessing(eos, bos, add_prefix_space=False)
    return tokenizer


def _special_id(backend: Tokenizer, role: str, named: dict[str, object]) -> int | None:
    """Id of a special token, by what tokenizer_config.json says, else by its usual names."""
    said = [named.get(f"{other}_token") for other in _ROLES[role]]
    words = [word.get("content") if isinstance(word, dict) else word for word in said if word]
    found = [backend.token_to_id(str(word)) for word in (*words, *_NAMES[role])]
    return next((one for one in found if one is not None), None)
