"""From a recogniser's probabilities to text: greedy, or the most probable text by prefix beam search.

All log-probabilities are natural logarithms of one clip, without padded frames.

Shapes: `T` tokens (frames), `V` symbols of the vocabulary (0 is blank), `L` letters of a text.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.letters import BLANK_ID, SPACE, UNKNOWN, Letters
from data2vec2.errors import UsageError, UserError

LogProbs = NDArray[np.floating[Any]]
Decode = Callable[[LogProbs], tuple[NDArray[np.int64], float]]
"""Takes log-probabilities `TV`, gives the ids `L` of a text and its score."""


class Word(NamedTuple):
    """A word and when it was said."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """What was heard."""

    text: str
    score: float
    """Log-probability, as the decoder computes it: of the best alignment, of the text, or with a language model."""
    words: tuple[Word, ...]
    """In the order in which they were said, with the first letter's start and the last letter's end."""


def transcribe(
    log_probs_TV: LogProbs, letters: Letters, seconds_per_token: float, decode: Decode | None = None
) -> Transcript:
    """Text of a clip, with the times of its words from the best alignment; greedy without another decoder.

    CTC puts a letter where it is surest of it, so times are good to a few tokens.
    """
    ids_L, score = (decode or greedy)(log_probs_TV)
    path_T = align(log_probs_TV, ids_L)
    words = []
    for is_gap, group in groupby(range(len(ids_L)), lambda place: letters.symbols[ids_L[place]] == SPACE):
        if not is_gap:
            places = list(group)
            frames = np.flatnonzero(np.isin(path_T, places))
            start_s, end_s = frames[0] * seconds_per_token, (frames[-1] + 1) * seconds_per_token
            words.append(Word(letters.decode(ids_L[places].tolist()), float(start_s), float(end_s)))
    return Transcript(letters.decode(ids_L.tolist()), score, tuple(words))


def greedy(log_probs_TV: LogProbs) -> tuple[NDArray[np.int64], float]:
    """The most probable symbol of every frame, repeats collapsed, blanks dropped; the score is that alignment's."""
    best_T = np.asarray(log_probs_TV).argmax(axis=1)
    return _collapsed(best_T), float(np.asarray(log_probs_TV, dtype=np.float64).max(axis=1).sum())


def _collapsed(path_T: NDArray[np.int64]) -> NDArray[np.int64]:
    starts_T = np.append(True, path_T[1:] != path_T[:-1])[: len(path_T)]
    return np.compress(starts_T & (path_T != BLANK_ID), path_T)


def beam_search(log_probs_TV: LogProbs, beam: int = 25) -> tuple[NDArray[np.int64], float]:
    """The most probable text, its alignments summed (Graves et al., 2006; Hannun et al., 2014), and its score.

    Keeps the `beam` most probable prefixes after every frame [P]; exact if that is all of them.
    """
    prefixes: list[tuple[int, ...]] = [()]
    blank_P, letter_P = np.zeros(1), np.full(1, -np.inf)  # of alignments that end in a blank, and in the last letter
    for frame_V in np.asarray(log_probs_TV, dtype=np.float64):
        last_P = np.array([prefix[-1] if prefix else BLANK_ID for prefix in prefixes])
        total_P = np.logaddexp(blank_P, letter_P)
        longer_PV = total_P[:, None] + frame_V
        longer_PV[np.arange(len(prefixes)), last_P] = blank_P + frame_V[last_P]  # a letter repeats only after a blank
        longer_PV[:, BLANK_ID] = -np.inf
        blank_P, letter_P = total_P + frame_V[BLANK_ID], letter_P + frame_V[last_P]
        row_of = {prefix: row for row, prefix in enumerate(prefixes)}
        for prefix, row in row_of.items():
            if prefix and (before := row_of.get(prefix[:-1])) is not None:  # which, made longer, is this one
                letter_P[row] = np.logaddexp(letter_P[row], longer_PV[before, last_P[row]])
                longer_PV[before, last_P[row]] = -np.inf
        scores = np.concatenate([np.logaddexp(blank_P, letter_P), longer_PV.ravel()])
        kept = np.argsort(-scores, kind="stable")[:beam]
        kept = kept[scores[kept] > -np.inf]
        old, made = kept[kept < len(prefixes)], kept[kept >= len(prefixes)] - len(prefixes)
        before_P, with_P = np.divmod(made, len(frame_V))
        longer = [(*prefixes[row], letter) for row, letter in zip(before_P.tolist(), with_P.tolist(), strict=True)]
        prefixes = [*(prefixes[row] for row in old.tolist()), *longer]
        blank_P = np.concatenate([blank_P[old], np.full(len(made), -np.inf)])
        letter_P = np.concatenate([letter_P[old], longer_PV[before_P, with_P]])
    total_P = np.logaddexp(blank_P, letter_P)
    best = int(total_P.argmax())
    return np.array(prefixes[best], dtype=np.int64), float(total_P[best])


def align(log_probs_TV: LogProbs, ids_L: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most probable alignment of a text: for every frame the place of its letter in `ids_L`, or -1 for a blank.

    `ValueError` for fewer frames than the text needs (one a letter, and one between two equal ones).
    """
    states_S = np.full(2 * len(ids_L) + 1, BLANK_ID)  # a blank before, between and after the letters
    states_S[1::2] = ids_L
    skips_S = np.append([False, False], (states_S[2:] != states_S[:-2]))[: len(states_S)]  # over a blank
    score_S = np.full(len(states_S), -np.inf)
    score_S[0] = 0.0  # before the first frame
    steps_TS = np.zeros((len(log_probs_TV), len(states_S)), dtype=np.int64)
    for t, frame_V in enumerate(np.asarray(log_probs_TV, dtype=np.float64)):
        stay, one, two = score_S, _shifted(score_S, 1), np.where(skips_S, _shifted(score_S, 2), -np.inf)
        options = np.stack([stay, one, two])
        steps_TS[t] = options.argmax(axis=0)
        score_S = options.max(axis=0) + frame_V[states_S]
    state = max(range(max(0, len(states_S) - 2), len(states_S)), key=score_S.__getitem__)
    if score_S[state] == -np.inf:
        raise ValueError(f"{len(log_probs_TV)} frames are too few for {len(ids_L)} letters")
    path_T = np.empty(len(log_probs_TV), dtype=np.int64)
    for t in range(len(path_T) - 1, -1, -1):
        path_T[t] = state // 2 if state % 2 else -1
        state -= int(steps_TS[t, state])
    return path_T


def _shifted(score_S: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    """Each state's score moved on to the state `by` places later."""
    return np.append(np.full(by, -np.inf), score_S)[: len(score_S)]


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
        weight: float = 2.0,
        word_score: float = 0.0,
        beam: int = 500,
        threshold: float = 50.0,
    ) -> None:
        """`path` is an ARPA file (also .gz).

        Its words are normalised as transcripts are, so the model may be in upper case; those with letters that the
        vocabulary has not are left out. Prefixes that score `threshold` below the best are dropped. Raises `UserError`
        if flashlight-text is missing, or a file can't be used.
        """
        try:
            from flashlight.lib.text import decoder, dictionary
            from flashlight.lib.text.decoder import kenlm
        except ImportError as error:
            raise UserError(f"a language model needs flashlight-text: pip install 'data2vec2[lm]' ({error})") from error
        space, unknown = letters.ids[SPACE], letters.ids[UNKNOWN]
        spelled = {word: letters.encode(word) for word in _unigrams(path)}
        spelled = {word: ids for word, ids in spelled.items() if len(ids) and not np.isin((unknown, space), ids).any()}
        if not spelled:
            raise UserError(f"{path} has no words spelled with the model's letters")
        names = dictionary.Dictionary()
        for word in (*spelled, UNKNOWN):
            names.add_entry(word)
        names.set_default_index(names.get_index(UNKNOWN))
        try:
            model = kenlm.KenLM(str(path), names)
        except RuntimeError as error:
            raise UserError(
                f"{path} is not an n-gram model that KenLM can read: {str(error).splitlines()[-1]}"
            ) from error
        start, trie = model.start(False), decoder.Trie(len(letters), space)
        for word, ids in spelled.items():
            index = names.get_index(word)
            trie.insert([*ids.tolist(), space], index, model.score(start, index)[1])
        trie.smear(decoder.SmearingMode.MAX)
        options = decoder.LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=len(letters),
            beam_threshold=threshold,
            lm_weight=weight,
            word_score=word_score,
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )
        args: tuple[Any, ...] = (options, trie, model, space, BLANK_ID, names.get_index(UNKNOWN), [], False)
        self._decoder, self._space, self.num_words = decoder.LexiconDecoder(*args), space, len(spelled)

    def __call__(self, log_probs_TV: LogProbs) -> tuple[NDArray[np.int64], float]:
        """Ids `L` of the best text, and its score."""
        ends_V = np.full((1, np.shape(log_probs_TV)[1]), -np.inf)
        ends_V[0, self._space] = 0.0  # the last word ends too
        scores_TV = np.ascontiguousarray(np.concatenate([log_probs_TV, ends_V]), dtype=np.float32)
        found = self._decoder.decode(scores_TV.ctypes.data, *scores_TV.shape)[0]
        ids_L = _collapsed(np.array(found.tokens[1:-1]))  # without what stands for start and end
        return ids_L[: np.flatnonzero(np.append(-1, ids_L) != self._space)[-1]], float(found.score)


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
        raise UserError(f"{path} is not an ARPA file: it is not text") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error


if TYPE_CHECKING:
    AnyPath = str | Path
else:
    AnyPath = Path


@dataclass
class Decoding:
    """How letters become text: options of commands, and what is made of them."""

    _: KW_ONLY
    decoder: Literal["greedy", "beam", "lm"] | None = None
    """Speech: greedy, beam (without a language model) or lm; default: lm if --lm is given, else greedy."""
    beam: int | None = None
    """Beam size; default: 25, or 500 with a language model."""
    lm: AnyPath | None = None
    """Word n-gram language model, an ARPA file; needs pip install 'data2vec2[lm]'."""
    lm_weight: float = 2.0
    """Weight of the language model."""
    word_score: float = 0.0
    """Score added for each word."""

    @property
    def decoder_name(self) -> str:
        """The decoder."""
        return self.decoder or ("lm" if self.lm else "greedy")

    def check_decoding(self) -> None:
        """`UsageError` for options that can't be, or don't go together."""
        if self.decoder not in (None, "greedy", "beam", "lm"):
            raise UsageError(f"--decoder is {self.decoder!r}; it must be greedy, beam or lm")
        if self.beam is not None and self.beam < 1:
            raise UsageError(f"--beam is {self.beam}; it must be at least 1")
        if self.beam is not None and self.decoder_name == "greedy":
            raise UsageError("--beam is for --decoder beam or lm; greedy has none")
        if self.decoder_name == "lm" and not self.lm:
            raise UsageError("--decoder lm needs a language model: --lm FILE.arpa")
        if self.decoder_name != "lm" and self.lm:
            raise UsageError(f"--lm is for --decoder lm, not for {self.decoder_name}")
        for name in ("lm_weight", "word_score"):
            if self.decoder_name != "lm" and getattr(self, name) != getattr(Decoding, name):
                raise UsageError(f"--{name.replace('_', '-')} needs a language model: --lm FILE.arpa")

    def decode(self, letters: Letters) -> Decode | None:
        """What decodes, none for greedy; `UserError` if the language model can't be used."""
        self.check_decoding()
        if self.decoder_name == "greedy":
            return None
        if self.decoder_name == "beam":
            return partial(beam_search, beam=self.beam or 25)
        assert self.lm
        if not (lm := Path(self.lm)).is_file():
            raise UserError(f"--lm {lm} does not exist")
        return NgramDecoder(lm, letters, weight=self.lm_weight, word_score=self.word_score, beam=self.beam or 500)
