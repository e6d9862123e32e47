"""A model in memory: its features, predictions and transcripts of Python objects; and the same for scikit-learn.

Shapes: `N` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from data2vec2.commands.embed import encoded, prepared
from data2vec2.commands.options import Load, Predict
from data2vec2.commands.predict import Prediction, check_asked, predictions
from data2vec2.commands.transcribe import Transcription, transcriptions
from data2vec2.data.account import PartAccount
from data2vec2.data.records import Records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.decoding import Decoding
from data2vec2.interop.folder import export_of, load_model, require_classes, require_letters
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.spec import EmbedOptions
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import choose_device
from data2vec2.training.progress import html_table

T = TypeVar("T")


def load(given: Load) -> Model:
    """Load what a run or an exported folder holds."""
    return Model(export_of(Path(given.model)), given.device)


class Results(list[T]):
    """A list, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [{name: value for name, value in vars(one).items() if name != "words"} for one in self]
        used = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, {}) for row in rows)]
        return html_table([[_shown(row[name]) for name in used] for row in rows], used)


def _shown(value: Any) -> Any:
    return ", ".join(f"{name} {p:.3f}" for name, p in value.items()) if isinstance(value, dict) else value


class Model:
    """A model in memory. It takes a list of samples, an array whose first axis counts them, or one sample.

    Pictures are paths, pictures of Pillow, or arrays or tensors `HW`, `HWC` or `CHW` (bytes, or floats from 0 to 1).
    Recordings are paths, arrays or tensors with their `rate` in Hz, or dictionaries with `array` and `sampling_rate`.
    Texts are strings, or tuples of two. Of pictures and recordings a folder stands for all files below it.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """`UserError` for a folder that is no export."""
        self.folder, self.device = folder, choose_device(device)
        model, self.info = load_model(folder)
        """What is known of the model: its shape, how inputs are read, names of classes."""
        self.model: Any = model.to(self.device)
        """The network, in eval mode."""

    @property
    def encoder(self) -> Encoder:
        """The network without a head."""
        return self.model if isinstance(self.model, Encoder) else self.model.encoder

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of a fine-tuned model."""
        return self.info.classes

    def embed(self, samples: Any, *, rate: int | None = None, **features: Any) -> Any:
        """Features `ND`, float32; with `pool="none"` a list of an array `TD` for each sample.

        `features` are options of `embed`: layer, pool, size, keep_aspect, batch. `UserError` that names the samples
        which can't be read.
        """
        given = EmbedOptions(**features)
        encoder, feed = prepared(self.encoder, self.info, given)
        records, found = self._records(samples, rate), list[NDArray[np.float32]]()
        bad = PartAccount(len(records), max_bad=1)
        for chunk, rows in encoded(encoder, feed, records, given.batch or feed.batch, self.device):
            bad.add(chunk.bad.values())
            found += rows
        if bad.bad:
            many = tools_of(self.info.kind).words.many
            raise UserError(f"{len(bad.bad):,} of {len(records):,} {many} can't be used:{bad.listed()}")
        return found if given.pool == "none" else np.stack(found)

    def predict(
        self,
        samples: Any,
        *,
        rate: int | None = None,
        top: int | None = None,
        threshold: float = 0.5,
        batch: int = 64,
    ) -> Results[Prediction]:
        """Classes or numbers of each sample by a fine-tuned model; `top`, `threshold` and `batch` as of `predict`."""
        require_classes(self.info, self.folder)
        check_asked(how := Predict(self.folder, (), top=top, threshold=threshold, batch=batch), self.info)
        return Results(predictions(self.model, self.info, self._records(samples, rate), self.device, how))

    def transcribe(self, samples: Any, *, rate: int | None = None, **decoding: Any) -> Results[Transcription]:
        """What is said in recordings; `decoding` are options of `transcribe`: decoder, beam, lm and its weights."""
        require_letters(self.info, self.folder)
        how = Decoding(**decoding)
        return Results(transcriptions(self.model, self.info, self._records(samples, rate), self.device, how))

    def _records(self, samples: Any, rate: int | None) -> Records:
        """Samples as records; `UsageError` if there are none."""
        one = isinstance(samples, str | bytes | Path | dict) or not hasattr(samples, "__len__")
        if rate is not None and getattr(samples, "ndim", 0) == 1:  # a waveform, if it is of numbers
            one = getattr(samples.dtype, "kind", "f") in "if"
        some = [samples] if one else list(samples)
        if not some:
            raise UsageError("there are no samples")
        if rate is not None:
            as_is = (str, bytes, Path, dict)
            if all(isinstance(one, as_is) for one in some):
                raise UsageError(f"rate is {rate}, and no sample is an array that needs it; leave it out")
            some = [one if isinstance(one, as_is) else {"array": one, "sampling_rate": rate} for one in some]
        return tools_of(self.info.kind).given(some)


class Data2Vec2Features(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Frozen features as a transformer of scikit-learn: X are samples as `Model.embed` takes them.

    Fitting learns nothing, it only loads the model.

    Args:
        model: A run folder or an exported model.
        rate: Of waveforms given as arrays: samples a second.
        layer: Block whose output is taken, from 1; none: the last.
        pool: mean over patches or tokens, or cls: the CLS token of pictures.
        batch: Samples that go through the model at once; none: 64 pictures, 8 recordings, 32 texts.
        device: auto, cpu, cuda, cuda:1, mps.

    """

    def __init__(
        self,
        model: str | Path,
        *,
        rate: int | None = None,
        layer: int | None = None,
        pool: str = "mean",
        batch: int | None = None,
        device: str = "auto",
    ) -> None:
        self.model, self.rate, self.layer, self.pool = model, rate, layer, pool
        self.batch, self.device = batch, device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the model."""
        self.model_ = load(Load(self.model, device=self.device))
        self._n_features_out = self.model_.info.model.encoder.embed_dim
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features `ND`."""
        how = {"layer": self.layer, "pool": self.pool, "batch": self.batch}
        found: NDArray[np.float32] = self.model_.embed(X, rate=self.rate, **how)
        return found
