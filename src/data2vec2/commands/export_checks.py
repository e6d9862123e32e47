"""What `export` checks with: real inputs, and scores of both precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.commands.data import held_out
from data2vec2.commands.files import opener
from data2vec2.commands.kinds import KINDS
from data2vec2.commands.recognise import score
from data2vec2.data.audio import AudioReader
from data2vec2.data.labelled import labelled_records
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records
from data2vec2.data.samples import english_prompts, fashion_mnist, wordnet_glosses
from data2vec2.data.sentences import open_sentences
from data2vec2.data.spoken import with_transcript
from data2vec2.errors import UserError
from data2vec2.evaluation.classification import headline, predict
from data2vec2.evaluation.features import Inputs as Read
from data2vec2.evaluation.features import features_of, labelled
from data2vec2.evaluation.probes import Part, knn_accuracy
from data2vec2.evaluation.regression import correlations, predict_numbers
from data2vec2.interop.export import ExportInfo
from data2vec2.interop.onnx import Inputs, OnnxRunner, named_inputs

BUNDLED: dict[str, Callable[[], Path]] = {
    "image": fashion_mnist,
    "audio": english_prompts,
    "text": lambda: wordnet_glosses() / "test.parquet",
}
"""Real samples that come with the package."""
BATCHES = (1, 2, 5)
"""Sizes of the batches that are compared with PyTorch."""
CONSIDERED = 64
"""Samples, evenly spread, of which these are taken."""
LONGEST_S = 20
"""Seconds of a recording that are compared, at most."""
MAX_SCORED = 2_000
"""Samples, evenly spread, that are scored."""
NAMES = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "pearson": "Pearson correlation",
    "cer": "character error rate",
    "knn": "accuracy of the ten nearest neighbours",
}
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Scores of the exported model with 32 and with 8 bits."""

    measure: str
    """accuracy, map, pearson, cer (the only one where less is better) or, of an encoder, knn."""
    float32: float
    int8: float
    samples: int
    part: str
    """test, validation, whole or split-off."""

    @property
    def drop(self) -> float:
        """How much worse 8 bits are; below 0 where they happen to be better."""
        return self.int8 - self.float32 if self.measure == "cer" else self.float32 - self.int8

    @property
    def sentence(self) -> str:
        """For the user."""
        return (
            f"int8: {NAMES[self.measure]} {self.int8:.4f}, with float32 {self.float32:.4f}, worse by {self.drop:.4f}, "
            f"on {self.samples:,} samples ({self.part} part)"
        )


def open_records(
    info: ExportInfo, data: str | Path, text_columns: Sequence[str], label_column: str | None, labels: bool
) -> Parts:
    """Samples that suit the model; labels of texts, classes or numbers, are only looked at where they are needed."""
    if (kind := info.model.modality.kind) != "text":
        return opener(kind, text_columns, label_column)(Path(data))
    what = "numbers" if info.regression else "classes"
    return open_sentences(data, text_columns, label_column, what if labels else "none")  # type: ignore[arg-type]


def check_batches(info: ExportInfo, records: Records) -> Iterator[Inputs]:
    """Batches of different sizes and lengths, filled up where these differ; few samples are taken several times."""
    kind = KINDS[info.model.modality.kind]
    reader = kind.reader(_spread(records, CONSIDERED), info.model, info.data, seed=0)
    places, limit = np.arange(len(reader.records)), None
    if isinstance(reader, AudioReader):  # the shorter half, so that nobody waits for hours of audio
        lengths_N, limit = reader.pieces.lengths_N, LONGEST_S * reader.config.sample_rate
        places = np.argsort(lengths_N, kind="stable")[np.count_nonzero(lengths_N < reader.config.receptive_field) :]
        places = places[: (len(places) + 1) // 2] if len(places) else np.arange(len(lengths_N))
    chosen = places[np.arange(sum(BATCHES)) * len(places) // sum(BATCHES)]
    normalise = kind.normalise(info.data, CPU)
    for samples_B in np.split(chosen, np.cumsum(BATCHES)[:-1]):
        batch = reader.eval_batch(samples_B)
        inputs = torch.from_numpy(batch.inputs if limit is None else batch.inputs[:, :limit])
        lengths_B = None if batch.lengths_B is None else torch.from_numpy(batch.lengths_B).clamp(max=inputs.shape[1])
        yield named_inputs(info.model, normalise(inputs), lengths_B)


def int8_scores(float32: OnnxRunner, int8: OnnxRunner, info: ExportInfo, parts: Parts) -> Int8:
    """Both on the test or validation part or on all of the data; `UserError` if these have not the model's labels."""
    part, records = next(
        (name, found)
        for name, found in (("test", parts.test), ("validation", parts.val), ("whole", parts.train))
        if found is not None
    )
    measure: str
    if info.letters is not None:
        measure, records = "cer", with_transcript(records)[0]
    elif info.regression:
        measure, records = "pearson", labelled_records(records)
    elif info.classes:
        measure, records = "map" if info.multi_label else "accuracy", labelled_records(records)
        if len(records) and (records.classes != info.classes or (records.tags is not None) != info.multi_label):
            found = ", ".join(records.classes[:10]) or "none"
            raise UserError(f"the model's classes are {', '.join(info.classes[:10])}, and those of --data are {found}")
    else:
        return _int8_of_features(float32, int8, info, parts)
    if not len(records):
        raise UserError(f"--int8 needs labels to measure its drop in score, and --data has none ({parts.description})")
    records = _spread(records, MAX_SCORED)
    found32, found8 = (_score(runner, info, records, measure) for runner in (float32, int8))
    return Int8(measure=measure, float32=found32, int8=found8, samples=len(records), part=part)


def _score(runner: OnnxRunner, info: ExportInfo, records: Records, measure: str) -> float:
    """Of the model behind `runner`."""
    if measure == "cer":
        return float(score(runner, info, records, CPU)[0].scores()["cer"])
    kind = KINDS[info.model.modality.kind]
    reader: Reader = kind.reader(records, info.model, info.data, seed=0)
    if measure == "pearson":
        return correlations(predict_numbers(runner, reader, CPU))["pearson"]
    return headline(predict(runner, reader, kind.normalise(info.data, CPU), CPU))[measure]


def _int8_of_features(float32: OnnxRunner, int8: OnnxRunner, info: ExportInfo, parts: Parts) -> Int8:
    """Of an encoder: how well the labels of the training part name the classes of the other by its features."""
    held, part = parts.test, "test"
    train = parts.train
    if held is None:
        part = "validation" if parts.val is not None else "split-off"
        train, held = held_out(parts, None, 0.2, seed=0)
    both = [(records, labelled(records.labels, MAX_SCORED)) for records in (train, held) if records is not None]
    if len(both) < 2 or not all(len(samples) for _, samples in both):
        raise UserError(
            "--int8 needs labels, one a sample, to measure the drop in score of an encoder's features, and --data has "
            f"none ({parts.description})"
        )
    kind = KINDS[info.model.modality.kind]
    normalise = kind.normalise(info.data, CPU)

    def features(runner: OnnxRunner) -> list[Part]:
        def pooled(batch: Read) -> NDArray[np.float32]:
            return runner(normalise(batch.inputs), batch.lengths_B).numpy()  # type: ignore[no-any-return]

        readers = [(kind.reader(records, info.model, info.data, seed=0), samples) for records, samples in both]
        return [features_of(pooled, reader, samples) for reader, samples in readers]

    found = [knn_accuracy(known, asked) for known, asked in (features(runner) for runner in (float32, int8))]
    return Int8(measure="knn", float32=found[0], int8=found[1], samples=len(both[1][1]), part=part)


def _spread(records: Records, limit: int) -> Records:
    """At most so many, evenly spread."""
    if len(records) <= limit:
        return records
    return records.select(np.arange(limit) * len(records) // limit)
