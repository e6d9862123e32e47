"""Beam search with an n-gram language model of words, through flashlight-text and its KenLM.

Shapes: `T` tokens (frames), `V` symbols of the vocabulary, `L` letters of a text.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.letters import BLANK_ID, SPACE, UNKNOWN, Letters
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import LogProbs

NO_WORDS = {"<s>", "</s>", "<unk>", "<UNK>"}
"""Unigrams of an ARPA file that nobody says."""


class NgramDecoder:
    """Finds the text of highest `log p(letters) + weight * log10 p(words) + word_score * number of words`.

    Only words of the language model are found. Everything is KenLM's: n-grams of any order, `</s>` at the end.
    """

    def __init__(
        self,
        path: Path,
        letters: Letters,
        *,
        words: Path | None = None,
        weight: float = 2.0,
        word_score: float = 0.0,
        beam: int = 500,
        threshold: float = 50.0,
    ) -> None:
        """`path` is an ARPA file (also .gz), or a KenLM binary with `words`, a file with a word at each line's start.

        Words are normalised as transcripts are, so the model may be in upper case; those with letters that the
        vocabulary has not are left out. Prefixes that score `threshold` below the best are dropped. Raises `UserError`
        if flashlight-text is missing, or a file can't be used.
        """
        self._flashlight, kenlm, dictionary = _flashlight()
        self.letters, self.weight, self.word_score = letters, weight, word_score
        self.beam, self.threshold = beam, threshold
        spelled = {word: letters.encode(word) for word in (_listed(words) if words else _unigrams(path))}
        unknown = letters.ids[UNKNOWN], letters.ids[SPACE]
        spelled = {word: ids for word, ids in spelled.items() if len(ids) and not np.isin(unknown, ids).any()}
        if not spelled:
            raise UserError(f"{words or path} has no words of the model's letters")
        names = dictionary.Dictionary()
        for word in (*spelled, UNKNOWN):
            names.add_entry(word)
        self._unknown = names.get_index(UNKNOWN)
        names.set_default_index(self._unknown)
        try:
            self._model = kenlm.KenLM(str(path), names)
        except RuntimeError as error:
            raise UserError(f"{path} is no n-gram model that KenLM can read: {str(error).splitlines()[-1]}") from error
        start = self._model.start(False)
        self._trie = self._flashlight.Trie(len(letters), letters.ids[SPACE])
        for word, ids in spelled.items():
            index = names.get_index(word)
            self._trie.insert([*ids.tolist(), letters.ids[SPACE]], index, self._model.score(start, index)[1])
        self._trie.smear(self._flashlight.SmearingMode.MAX)
        self.num_words = len(spelled)

    def __call__(self, log_probs_TV: LogProbs) -> tuple[NDArray[np.int64], float]:
        """Ids `L` of the best text, and its score."""
        flashlight, space = self._flashlight, self.letters.ids[SPACE]
        ends_V = np.full((1, len(self.letters)), -np.inf)
        ends_V[0, space] = 0.0  # the last word ends too
        scores_TV = np.ascontiguousarray(np.concatenate([log_probs_TV, ends_V]), dtype=np.float32)
        options = flashlight.LexiconDecoderOptions(
            beam_size=self.beam,
            beam_size_token=len(self.letters),
            beam_threshold=self.threshold,
            lm_weight=self.weight,
            word_score=self.word_score,
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=flashlight.CriterionType.CTC,
        )
        args: tuple[Any, ...] = (options, self._trie, self._model, space, BLANK_ID, self._unknown, [], False)
        found = flashlight.LexiconDecoder(*args).decode(scores_TV.ctypes.data, *scores_TV.shape)[0]
        path_T = np.array(found.tokens[1:-1])  # without what stands for start and end
        starts_T = np.append(True, path_T[1:] != path_T[:-1])
        ids_L = path_T[starts_T & (path_T != BLANK_ID)]
        return ids_L[: np.flatnonzero(np.append(-1, ids_L) != space)[-1]], float(found.score)


def _flashlight() -> tuple[Any, Any, Any]:
    """Decoders, KenLM and dictionaries of flashlight-text; `UserError` if it is not installed."""
    try:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm
    except ImportError as error:
        raise UserError(f"a language model needs flashlight-text: pip install 'data2vec2[lm]' ({error})") from error
    return decoder, kenlm, dictionary


def _unigrams(path: Path) -> Iterator[str]:
    """The words of an ARPA file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            inside = False
            for line in file:
                if line.startswith("\\"):
                    if inside:
                        return
                    inside = line.strip() == "\\1-grams:"
                elif inside and len(fields := line.split()) > 1 and fields[1] not in NO_WORDS:
                    yield fields[1]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not an ARPA file; of a KenLM binary, also name a list of its words") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _listed(path: Path) -> Iterator[str]:
    """The first word of every line, as in a list of words or a lexicon with spellings."""
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield from line.split()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
