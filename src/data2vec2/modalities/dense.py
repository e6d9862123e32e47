"""What `finetune` does for classes of words, frames and pixels: one job, of which modalities bring reading and labels.

Shapes: `B` samples, `T` tokens, `C` classes, `P` places with a class, `R` rows of raw features `F`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2.config.run import DataConfig, FinetuneConfig
from data2vec2.data import folder, hub, objects, remote
from data2vec2.data.batch import Addition
from data2vec2.data.labels import IGNORED, some
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records
from data2vec2.data.source import BadSample
from data2vec2.data.tables import parquet_file, read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.dense import MEASURES, Said, is_bio, tally, tally_of
from data2vec2.evaluation.features import LabelledFeatures, Note
from data2vec2.evaluation.probes import fit
from data2vec2.evaluation.similarity import spread
from data2vec2.method import losses
from data2vec2.modalities.data import Columns, ModelInfo
from data2vec2.modalities.jobs import FinetuneData, Job, Scored, said
from data2vec2.tasks.finetune import Bars, DenseTargets, SampleTask
from data2vec2.training.task import Task

if TYPE_CHECKING:
    from data2vec2.modalities.tools import Tools

LEARNED = 2_000
"""So many training samples, evenly spread, do baselines learn from."""
LOOKED_AT = 50
"""Places of each of these that a linear probe of raw inputs learns from."""


class DenseJob(Job):
    """A class of each token or pixel."""

    name: ClassVar[str]
    """As `finetune` and scores.json have it."""
    places: ClassVar[str]
    """What has a class: "words"."""
    what: ClassVar[str] = "token classifier"
    """What it makes, as `ModelInfo.what` has it."""
    measures: ClassVar[tuple[str, ...]] = ("macro_f1", "accuracy")
    """Of `evaluation.dense.MEASURES`, the main one first."""
    draws: ClassVar[bool] = False
    """Whether `predict` can write classes as a picture (`mask`)."""
    raw: ClassVar[str] = ""
    """What the probe of raw inputs sees; "": there is none."""

    @abstractmethod
    def open_marked(self, path: str, columns: Columns, data: DataConfig) -> Parts:
        """The samples of a data set that is read as `data` says, with classes and marks; `UserError` for no marks."""

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """Files to predict, as `Tools.listed`."""
        return self.tools.listed(paths, columns)

    def asked(self, records: Records) -> Records:
        """Samples to predict, as the job's reader takes them."""
        return records

    @abstractmethod
    def told_of(
        self, reader: Reader, sample: int, logits: NDArray[np.float32], info: ModelInfo
    ) -> Iterator[dict[str, Any]]:
        """What `predict` says of a sample with logits `TC` of tokens, or `Chw` of patches."""

    def mask(self, reader: Reader, sample: int, logits: NDArray[np.float32]) -> bytes | None:
        """The classes of a sample as a file, where it is a plane of pixels."""
        return None

    def parts(self, config: FinetuneConfig, path: str) -> Parts:
        """The samples of a data set."""
        return self.open_marked(path, self.tools.columns(config.data), config.data)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Open a data set and split it; `UserError` where there is one class only. Those of `val` may be others."""
        if config.data.labels_per_class is not None:
            raise UsageError(f"--data.labels-per-class is for classes of samples, not of {self.places}")
        parts, train, held = self.split(config, path, val)
        classes = tuple(dict.fromkeys([*train.classes, *(held.classes if held else ()), *self.unmarked(config)]))
        if len(classes) < 2 or not len(train):
            raise UserError(
                f"all {self.places} of {path} are {some(classes) or 'without a class'}; there is nothing to learn"
            )
        readers = {
            key: self.reader(self.named(one, classes), info, config.train.seed)
            for key, one in (("train", train), ("val", held), ("test", parts.test))
            if one
        }
        return FinetuneData.of(parts, readers, path, outputs=len(classes))

    def unmarked(self, config: FinetuneConfig) -> tuple[str, ...]:
        """The class of what the data say nothing of, if that is to have one."""
        return ()

    def named(self, records: Records, classes: tuple[str, ...]) -> Records:
        """Records with the classes of a model and without labels of samples; `UserError` for a class it has not."""
        if unknown := [name for name in records.classes if name not in classes]:
            raise UserError(f"the data have the classes {some(unknown)}, and the model only {some(classes)}")
        return replace(records, classes=classes, tags=None)

    def about(self, data: FinetuneData) -> str:
        """Classes."""
        return f"{data.outputs} classes of {self.places}: {some(data.train.records.classes)}"

    def error(self, outputs: Tensor) -> Tensor:
        """The loss of the first class everywhere."""
        return losses.dense(outputs, outputs.new_zeros(outputs.shape[:2], dtype=torch.long))

    def targets(self, data: FinetuneData) -> Addition:
        """The class of each token or pixel."""
        return DenseTargets(data.train)

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """Cross-entropy."""
        wanted = self.wanted(data.train.records)

        def scores(*of: Any) -> tuple[dict[str, float], Bars]:
            found = tally(*of)
            return found.scores(wanted), found.intervals(wanted)

        return SampleTask(losses.dense, scores, wanted[0], *common)

    def wanted(self, records: Records) -> tuple[str, ...]:
        """Names of the scores, the main one first: of entities where classes are their tags."""
        return ("entity_f1", *self.measures) if is_bio(records.classes) else self.measures

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """With its classes."""
        return replace(info, classes=data.train.records.classes, dense=True)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, key: str, device: torch.device) -> Scored:
        """Scores beside those of baselines; what can't be read is noted (`UserError` if it is too much)."""
        return self.examined(model, info, data.train, data.readers[key], device, data.account.part(key).add)

    def examined(
        self, model: Any, info: ModelInfo, train: Reader | None, part: Reader, device: torch.device, note: Note
    ) -> Scored:
        """Scores on a part, beside baselines where there is data to learn these from."""
        found = tally(model, part, self.tools.normalise(info.data, device), device, note)
        wanted = self.wanted(part.records)
        known = self.rivals(train) if train else ()
        rivals: list[dict[str, Any]] = [{"name": name, **tally_of(said, part).scores(wanted)} for name, said in known]
        places = int(found.counts_NCC.sum())
        scores = {
            "kind": self.name,
            "samples": len(found.counts_NCC),
            self.places: places,
            "classes": list(info.classes),
        }
        scores |= {**found.scores(wanted), "intervals": found.intervals(wanted), "baselines": rivals}
        counts = f"{places:,} {self.places} of {scores['samples']:,} {self.tools.words.many}"
        return self.told(scores | found.details(info.classes), wanted[0], counts)

    def told(self, scores: dict[str, Any], main: str, counts: str) -> Scored:
        """The scores with the main one in words, beside its best baseline's, and of how many it is."""
        best = max(scores["baselines"], key=lambda row: row[main], default=None)
        over = f", {best['name']} {best[main]:.4f}" if best else ""
        return Scored(scores=scores, sentence=f"{said(main, scores, MEASURES[main])}{over}; {counts}")

    def rivals(self, train: Reader) -> Iterator[tuple[str, Said]]:
        """Baselines that learn from training samples: what they are, and what says their classes."""
        some_N = spread(len(train.records), LEARNED)
        common = most_common(train, some_N)
        yield (
            f"most common class ({train.records.classes[common]})",
            lambda reader, n: np.full_like(reader.marked(n), common),
        )
        if self.raw and (probed := self._probe(train, some_N)):
            yield f"linear probe on {self.raw}", probed

    def raw_rows(self, reader: Reader, sample: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Raw features `RF` of a sample, and which row each place that `Reader.marked` has belongs to."""
        raise NotImplementedError

    def _probe(self, train: Reader, samples_N: NDArray[np.int64]) -> Said | None:
        """Logistic regression on standardised raw features; none where too few samples can be read."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        x_PF, y_P = [], []
        for sample in samples_N.tolist():
            try:
                classes, (rows_RF, index) = train.marked(sample).ravel(), self.raw_rows(train, sample)
            except BadSample:
                continue
            places = np.flatnonzero(classes != IGNORED)
            chosen = places[spread(len(places), LOOKED_AT)] if len(places) else places
            x_PF.append(rows_RF[index.ravel()[chosen]])
            y_P.append(classes[chosen])
        if not x_PF or len(np.unique(np.concatenate(y_P))) < 2:
            return None
        known = LabelledFeatures(np.concatenate(x_PF), np.concatenate(y_P))
        probe = fit(make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), known)

        def said(reader: Reader, sample: int) -> NDArray[np.int64]:
            rows_RF, index = self.raw_rows(reader, sample)
            return probe.predict(rows_RF)[index]  # type: ignore[no-any-return]

        return said


def probabilities_of(logits_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each class, `TC`."""
    return torch.from_numpy(logits_TC).softmax(dim=-1).numpy()


def most_common(reader: Reader, samples_N: NDArray[np.int64]) -> int:
    """The class of most places."""
    counts_C = np.zeros(len(reader.records.classes), dtype=np.int64)
    for sample in samples_N.tolist():
        try:
            classes = reader.marked(sample)
        except BadSample:
            continue
        counts_C += np.bincount(classes[classes != IGNORED], minlength=len(counts_C))
    return int(counts_C.argmax())


def unclassed(parts: Parts) -> Parts:
    """Samples without labels of their own, which folders or tables may give, and without remarks on these."""
    account, about = parts.account, re.compile(r"\b(class|classes|labels?)\b")
    account.remarks, account.choices = (
        [one for one in lines if not about.search(one)] for lines in (account.remarks, account.choices)
    )
    bare: dict[str, Any] = {"classes": (), "tags": None}
    found: dict[str, Any] = {key: replace(one, labels=np.full(len(one), -1), **bare) for key, one in parts.each.items()}
    return replace(parts, **found)


def column_beside(data: str, records: Records, column: str) -> list[Any] | None:
    """What the tables that samples come from say of each in a column; None where no table has it.

    Tables are the splits of hf:NAME, Parquet files on a disk, and the metadata of folders of files. `UserError` for two
    rows of a file that differ in it.
    """
    if data.startswith((hub.PREFIX, objects.PREFIX)):
        splits = (objects if objects.is_name(data) else hub).load_splits(data)
        found = {name: _column(split, column) for name, split in splits.items() if column in split.column_names}
        values = {f"{name}[{place}]": value for name, rows in found.items() for place, value in enumerate(rows)}
        return [values.get(name) for name in records.names] if found else None
    if remote.is_url(data):
        return None
    path = Path(data)
    root, values, there = path if path.is_dir() else path.parent, dict[str, Any](), False
    tables = {name.rpartition("[")[0] for name in records.names if name.endswith("]")}
    files = folder.scan(root) if path.is_dir() else {}
    metadata = folder.metadata_in(files)
    for name in (*(one for one in sorted(tables) if one.endswith(".parquet")), *metadata):
        table = read_table(root / name, name) if name in metadata else None
        if table is None:
            with parquet_file(root / name) as file:
                if column in file.schema_arrow.names:
                    rows = file.read(columns=[column])[column].to_pylist()
                    there, values = True, values | {f"{name}[{place}]": value for place, value in enumerate(rows)}
        elif (found_in := table.column([column])) and (named := table.column(["file_name"])):
            there = True
            for one, value in zip(table.columns[named], table.columns[found_in], strict=True):
                sample = PurePosixPath(name).parent / folder.below_table(root / name, str(one).strip())
                if values.setdefault(folder.nfc(sample.as_posix()), value) != value:
                    raise UserError(f"{root / name}: rows of {one} have different {column}; put all into one row")
    return [values.get(folder.nfc(name)) for name in records.names] if there else None


def _column(split: Any, column: str) -> list[Any]:
    """A column of a `datasets.Dataset`, whose files are not decoded."""
    if hasattr(feature := split.features[column], "decode"):
        split = split.cast_column(column, type(feature)(decode=False))
    return list(split[column])


def dense_job(tools: Tools, info: ModelInfo) -> DenseJob:
    """That of a modality which makes such models; `UserError` if it has none."""
    for job in tools.jobs.values():
        if issubclass(job, DenseJob) and job.what == info.what:
            return job(tools)
    raise UserError(f"{tools.spec.name} has no task of fine-tuning that makes a {info.what}")
