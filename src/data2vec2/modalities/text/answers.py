"""Answers to questions: stretches of the contexts that come with them.

Shapes: `B` windows of a batch, `T` tokens, `W` windows of all questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.run import DataConfig, FinetuneConfig
from data2vec2.data.account import Bad
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.answers import Agreement, likely_sentence
from data2vec2.evaluation.features import Inputs, Normalise, Note, over_batches
from data2vec2.method import losses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import AnswerFinder
from data2vec2.modalities.data import Columns, Log, ModelInfo, narrow
from data2vec2.modalities.dense import DenseJob
from data2vec2.modalities.jobs import FinetuneData, Scored
from data2vec2.modalities.text.config import TextTaskConfig
from data2vec2.modalities.text.finetune import TextClassifyJob
from data2vec2.modalities.text.questions import CLASSES, QUESTIONS, Asked, open_questions
from data2vec2.modalities.text.reader import Texts, each_of
from data2vec2.modalities.text.windows import QuestionReader, Told
from data2vec2.tasks.finetune import Bars, SampleTask
from data2vec2.training.parallel import ALONE, World
from data2vec2.training.task import Task

LIKELY, NOTHING = "sentence that shares most words with the question", "no answer"
"""Baselines."""


class AnswersJob(TextClassifyJob, DenseJob):
    """Where the answer to a question starts and ends in its context."""

    name, places, measures = "answers", "questions", ("word_f1", "exact_match")
    what, outputs, unused = "question answerer", "numbers a token", ("task.model.pooling",)

    def open_marked(self, path: str, columns: Columns, data: DataConfig) -> Parts:
        """Questions with contexts and answers."""
        return open_questions(path, columns)

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """Questions with contexts."""
        return [one for path in paths for one in each_of(open_questions(path, columns, answered=False), path)]

    def asked(self, records: Records) -> Records:
        """Pairs of texts are questions with contexts; `UsageError` for single texts."""
        if records.marks is not None:
            return records
        if any(len(row) != 2 for row in narrow(records.source, Texts).rows):
            raise UsageError("a text alone can't be answered; give a tuple of a question and its context")
        return replace(records, kind=QUESTIONS, marks=(Asked("", ()),) * len(records))

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """`UserError` where no question to train on has an answer; `more` is whether some have none."""
        data = super().open(config, info, path, val)
        found = {bool(one.answers) for one in data.train.records.marks or ()}
        if True not in found:
            raise UserError(f"no question of {path} has an answer; there is nothing to learn")
        return replace(data, more=False in found)

    def about(self, data: FinetuneData) -> str:
        """Whether there may be no answer."""
        return "questions, some of which have no answer" if data.more else "questions, all of which have an answer"

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Log) -> None:
        """And what the model sees in part or not at all."""
        super().look(data, config, log)
        for key, one in data.readers.items():
            reader, part = narrow(one, QuestionReader), data.account.part(key)
            names, half = reader.records.names, reader.config.max_tokens // 2
            pairs = zip(names, reader.questions, reader.texts.rows, strict=True)
            cut = [Bad(name, f"question cut to {half} tokens") for name, asked, row in pairs if asked != row[0]]
            unseen = [Bad(names[place], "answer longer than a window can hold") for place in reader.windows.unseen]
            part.mend([*cut, *unseen])
            for what, items in (
                (f"questions are cut to {half} tokens, half of the model's", cut),
                ("answers are wholly in no window of their context: they are not learned, but scored", unseen),
            ):
                if items:
                    data.account.remarks.append(f"{len(items):,} {key} {what}")
                    log(f"data: {data.account.remarks[-1]}")
            windows = len(reader.windows.lengths_W)
            log(f"data: {windows:,} windows of {len(reader.records):,} {key} questions")

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> AnswerFinder:  # type: ignore[override]
        """Two numbers at every token."""
        return AnswerFinder(encoder, dropout=narrow(config.task, TextTaskConfig).model.dropout)

    def error(self, outputs: Tensor) -> Tensor:
        """The loss of no answer."""
        marks_BT2 = torch.zeros_like(outputs, dtype=torch.long)
        marks_BT2[:, 0] = 1
        return losses.spans(outputs, marks_BT2)

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """Cross-entropy of both ends."""

        def scores(model: Any, reader: Reader, *how: Any) -> tuple[dict[str, float], Bars]:
            found = agreement(answered(model, narrow(reader, QuestionReader), data.more, *how), reader)
            return found.scores(), found.intervals()

        return SampleTask(losses.spans, scores, self.measures[0], *common)

    def finished(self, model: Any, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """Which may say that there is no answer, if some questions had none."""
        return replace(info, classes=CLASSES, dense=True, answers=True, unanswerable=bool(data.more))

    def examined(
        self, model: Any, info: ModelInfo, train: Reader | None, part: Reader, device: torch.device, note: Note
    ) -> Scored:
        """Scores beside those of what needs no model."""
        reader, normalise = narrow(part, QuestionReader), self.tools.normalise(info.data, device)
        found = agreement(answered(model, reader, info.unanswerable, normalise, device, note), reader)
        rivals = [{"name": LIKELY, **_said(reader, [likely_sentence(*row) for row in reader.texts.rows]).scores()}]
        none = sum(not one.answers for one in reader.records.marks or ())
        if none:
            rivals.append({"name": NOTHING, **_said(reader, [""] * len(reader.records)).scores()})
        scores = {"kind": self.name, "samples": len(reader.records), "windows": len(reader.windows.lengths_W)}
        scores |= {"without_answer": none, **found.scores(), "intervals": found.intervals(), "baselines": rivals}
        of_none = f", {none:,} of which have no answer" if none else ""
        return self.told(scores, self.measures[0], f"{scores['samples']:,} questions{of_none}")

    def told_of(
        self, reader: Reader, sample: int, logits: NDArray[np.float32], info: ModelInfo
    ) -> Iterator[dict[str, Any]]:
        """The question with its answer, which is "" for none, and the place of that in the context, in characters."""
        asked = narrow(reader, QuestionReader)
        ((encodings),) = asked.encodings([sample])
        starts = np.cumsum([len(one.ids) for one in encodings])[:-1]
        pieces = zip(encodings, np.split(logits, starts), strict=True)
        found = Told.best([asked.told(sample, *one) for one in pieces], info.unanswerable)
        question, context = asked.texts.rows[sample]
        name = asked.asked(sample).id
        yield {
            **({"id": name} if name else {}),
            "question": question,
            "answer": context[found.start : found.stop],
            "start": found.start,
            "end": found.stop,
            "probability": found.probability,
        }


@torch.no_grad()
def answered(
    model: Any,
    reader: QuestionReader,
    unanswerable: bool,
    normalise: Normalise,
    device: torch.device,
    note: Note = lambda _: None,
    world: World = ALONE,
) -> list[Told]:
    """What a model in eval mode tells of each question, from all of its windows."""
    questions_W = reader.windows.questions_W

    def computed(batch: Inputs) -> dict[str, NDArray[Any]]:
        outputs = model(*batch.given(normalise, device)).float().cpu().numpy()
        pairs = zip(batch.samples_B.tolist(), outputs, strict=True)
        told = [reader.told(int(questions_W[window]), reader.encoding(window), logits) for window, logits in pairs]
        return {"told": np.array(told, dtype=np.float64)}

    found = over_batches(computed, reader, np.arange(len(questions_W)), note, world)
    rows = found["told"][np.argsort(found["samples_N"])]
    of_each = np.split(rows, np.flatnonzero(np.diff(questions_W)) + 1)
    return [Told.best([Told(int(a), int(b), *of) for a, b, *of in some.tolist()], unanswerable) for some in of_each]


def agreement(told: Sequence[Told], reader: Reader) -> Agreement:
    """How well answers agree with the true ones."""
    rows = narrow(reader, QuestionReader).texts.rows
    return _said(reader, [context[one.start : one.stop] for one, (_, context) in zip(told, rows, strict=True)])


def _said(reader: Reader, answers: Sequence[str]) -> Agreement:
    asked = narrow(reader, QuestionReader)
    contexts = (context for _, context in asked.texts.rows)
    true = ([text[slice(*place)] for place in asked.asked(n).answers] for n, text in enumerate(contexts))
    return Agreement.of(zip(answers, true, strict=True))
