"""Windows of questions and contexts, and what a model says of them.

Shapes: `B` windows of a batch, `T` tokens, `W` windows of all questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data2vec2.data.reader import ReadBatch, Windowed
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.evaluation.answers import best_span
from data2vec2.modalities.data import narrow
from data2vec2.modalities.text.questions import Asked
from data2vec2.modalities.text.reader import SentenceReader
from data2vec2.modalities.text.tokenizer import load_tokenizer, surround

CHUNK = 256
"""Questions whose tokens are in memory at once."""


class Told(NamedTuple):
    """What a model tells of one window of a question, or of a question."""

    start: int
    stop: int
    """First character of the answer in the context, and the one behind its last."""
    probability: float
    """That the answer starts where it does, times that it ends there."""
    score: float
    """Sum of the two logits."""
    none_score: float
    """The same of there being no answer, at the first token."""
    none_probability: float

    @classmethod
    def best(cls, windows: Sequence[Told], unanswerable: bool) -> Told:
        """Of a question: the answer with the largest score, unless that of no answer is larger in all windows."""
        found, none = max(windows, key=lambda one: one.score), min(windows, key=lambda one: one.none_score)
        if unanswerable and none.none_score > found.score:
            return none._replace(start=0, stop=0, probability=none.none_probability, score=none.none_score)
        return found


@dataclass(frozen=True)
class Windows:
    """Windows of questions, one behind the other."""

    questions_W: NDArray[np.int64]
    """The question of each, ascending."""
    places_W: NDArray[np.int64]
    """Its place among the windows of its question."""
    lengths_W: NDArray[np.int64]
    unseen: frozenset[int]
    """Questions whose answer lies wholly in no window."""


class QuestionReader(SentenceReader):
    """Batches of windows: a question and, behind it, as much of its context as fits, filled up with padding.

    Windows of a context overlap by a quarter of the model's `max_tokens`, of which a question gets half at most. The
    records are questions; samples of batches, in training and evaluation, are places among all windows.
    """

    @cached_property
    def backend(self) -> Tokenizer:
        """What makes windows of pairs; `UserError` for a model that has no room for any."""
        loaded, longest = load_tokenizer(self.tokenizer), self.config.max_tokens
        surround(loaded)
        room = longest - longest // 2 - loaded.backend.num_special_tokens_to_add(is_pair=True)
        if room < 1:
            raise UserError(f"a model of {longest} tokens has no room for a question with its context")
        loaded.backend.enable_truncation(longest, stride=min(longest // 4, room - 1), strategy="only_second")
        return loaded.backend

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The questions, cut to half of the model's tokens."""
        plain, half = load_tokenizer(self.tokenizer).backend, self.config.max_tokens // 2

        def cut(text: str) -> str:
            for count in range(half, 0, -1):
                encoding = plain.encode(text, add_special_tokens=False)
                if len(encoding.ids) <= half:
                    break
                text = text[: encoding.offsets[count - 1][1]]
            return text

        return tuple(cut(question) for question, _ in self.texts.rows)

    @cached_property
    def windows(self) -> Windows:
        """All windows; the first call goes through all texts."""
        questions, places, lengths, unseen = list[int](), list[int](), list[int](), set[int]()
        for question, encodings in enumerate(self.encodings(range(len(self.records)))):
            questions += [question] * len(encodings)
            places += range(len(encodings))
            lengths += [len(one.ids) for one in encodings]
            answers = self.asked(question).answers
            if answers and not any(span_of(one, *answers[0]) for one in encodings):
                unseen.add(question)
        questions_W, places_W, lengths_W = (np.array(one, dtype=np.int64) for one in (questions, places, lengths))
        return Windows(questions_W, places_W, lengths_W, frozenset(unseen))

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each window."""
        return self.windows.lengths_W

    def asked(self, question: int) -> Asked:
        """What is known of a question."""
        return narrow(self.records.marks, tuple)[question]  # type: ignore[no-any-return]

    def encodings(self, questions: Sequence[int]) -> Iterator[list[Encoding]]:
        """The windows of each of some questions: tokens, and their places in the texts."""
        for start in range(0, len(questions), CHUNK):
            places = questions[start : start + CHUNK]
            pairs = [(self.questions[place], self.texts.rows[place][1]) for place in places]
            yield from ([one, *one.overflowing] for one in self.backend.encode_batch(pairs))

    def encoding(self, sample: int) -> Encoding:
        """Tokens of a window."""
        (found,) = self.encodings([int(self.windows.questions_W[sample])])
        return found[int(self.windows.places_W[sample])]

    def name(self, sample: int) -> str:
        """That of its question."""
        return self.records.names[int(self.windows.questions_W[sample])]

    def entire(self, sample: int) -> NDArray[np.int64] | Windowed:
        """All windows of a question, which is a place in the records; raises `BadSample` for one without text."""
        if fault := self.texts.fault(sample):
            raise BadSample(fault)
        (found,) = self.encodings([sample])
        rows = [np.array(one.ids, dtype=np.int64) for one in found]
        return rows[0] if len(rows) == 1 else Whole(rows)

    def batch(
        self,
        samples_B: NDArray[np.int64],
        read: Callable[[int, int], NDArray[Any]],
        among: NDArray[np.int64] | None = None,
    ) -> ReadBatch:
        """Windows, all of which can be read."""
        inputs, lengths_B = self.stacked([read(window, place) for place, window in enumerate(samples_B.tolist())])
        return ReadBatch(inputs, np.full(len(samples_B), -1), (), samples_B, lengths_B)

    def marked(self, sample: int, epoch: int | None = None, plan: Any = None) -> NDArray[np.int64]:
        """Of a window `T2`: 1 at the first token of the answer, and at the last, else 0.

        Both are the window's first token where it has not all of the answer; all 0 where no window has.
        """
        question, encoding = int(self.windows.questions_W[sample]), self.encoding(sample)
        marks_T2, answers = np.zeros((len(encoding.ids), 2), dtype=np.int64), self.asked(question).answers
        if question not in self.windows.unseen:
            marks_T2[(answers and span_of(encoding, *answers[0])) or (0, 0), (0, 1)] = 1
        return marks_T2

    def told(self, question: int, encoding: Encoding, logits_T2: NDArray[np.float32]) -> Told:
        """What logits say of a window of a question; those behind its tokens are padding's."""
        logits_T2 = logits_T2[: len(encoding.ids)].astype(np.float64)
        logs_T2 = logits_T2 - np.log(np.exp(logits_T2 - logits_T2.max(0)).sum(0)) - logits_T2.max(0)
        none = float(logits_T2[0].sum()), float(np.exp(logs_T2[0].sum()))
        span = best_span(logits_T2, np.array([part == 1 for part in encoding.sequence_ids]))
        if span is None:
            return Told(0, 0, 0.0, -np.inf, *none)
        offsets = encoding.offsets
        start, stop = offsets[span.first][0], offsets[span.last][1]
        text = self.texts.rows[question][1][start:stop]
        bare = len(text.strip())
        start += len(text) - len(text.lstrip()) if bare else 0
        probability = float(np.exp(logs_T2[span.first, 0] + logs_T2[span.last, 1]))
        return Told(start, start + bare, probability, span.score, *none)


class Whole(Windowed):
    """Windows that are kept whole."""

    def __init__(self, rows: Sequence[NDArray[np.int64]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[NDArray[Any], slice]]:
        """Them in order."""
        return ((row, slice(None)) for row in self.rows)


def span_of(encoding: Encoding, start: int, stop: int) -> tuple[int, int] | None:
    """First and last token of some characters of a context; none where a window has not all of them."""
    pairs = zip(encoding.sequence_ids, encoding.offsets, strict=True)
    inside = [(place, *offsets) for place, (part, offsets) in enumerate(pairs) if part == 1]
    if not inside or inside[0][1] > start or inside[-1][2] < stop:
        return None
    first = next(place for place, _, end in inside if end > start)
    last = next(place for place, begin, _ in reversed(inside) if begin < stop)
    return (first, last) if first <= last else None
