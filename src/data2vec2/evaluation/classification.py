"""How well a model tells classes, or gives numbers: scores, confusion, and its worst mistakes.

Shapes: `N` samples, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.data.reader import Reader, Windowed
from data2vec2.data.records import Records, targets_of
from data2vec2.evaluation import intervals
from data2vec2.evaluation.features import Inputs, Normalise, Note, mean_features, over_batches, window_features
from data2vec2.method.heads import MEANS, Classifier, TokenClassifier, linear_softmax
from data2vec2.method.losses import classification
from data2vec2.training.parallel import ALONE, World

Predictor = Callable[[Tensor, Tensor | None], Tensor]
"""A model: outputs `BC` of inputs and of their lengths, where these differ."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of labelled samples; those that could not be read are not among them."""

    logits_NC: NDArray[np.float32]
    truth_NC: NDArray[np.bool_]
    """The classes that each sample has."""
    samples_N: NDArray[np.int64]
    """Places in the records."""
    multi_label: bool
    """Whether a sample can have several classes."""

    @property
    def probabilities_NC(self) -> NDArray[np.float32]:
        """Softmax over the classes, or with several labels each class's own."""
        logits = torch.from_numpy(self.logits_NC)
        return (logits.sigmoid() if self.multi_label else logits.softmax(dim=1)).numpy()

    @property
    def decided_NC(self) -> NDArray[np.bool_]:
        """The most probable class, or with several labels all above one half."""
        if self.multi_label:
            return self.logits_NC > 0
        decided: NDArray[np.bool_] = self.logits_NC.argmax(axis=1)[:, None] == np.arange(self.logits_NC.shape[1])
        return decided

    @property
    def only_class(self) -> int | None:
        """The class of all samples, if there is but one: then an accuracy says nothing."""
        occurring = np.flatnonzero(self.truth_NC.any(axis=0))
        return int(occurring[0]) if len(occurring) == 1 and not self.multi_label else None


class Outputs(NamedTuple):
    """What a model gives for samples; those that could not be read are not among them."""

    records: Records
    x_NC: NDArray[np.float32]
    samples_N: NDArray[np.int64]
    """Places in the records."""


@torch.no_grad()
def outputs(
    model: Predictor,
    reader: Reader,
    normalise: Normalise,
    device: torch.device,
    note: Note = lambda _: None,
    world: World = ALONE,
) -> Outputs:
    """What a model in eval mode gives for all samples as evaluation sees them.

    `note` hears of those that can't be read; `UserError` if none can.
    """

    def given(batch: Inputs) -> dict[str, NDArray[Any]]:
        return {"x": model(*batch.given(normalise, device)).float().cpu().numpy()}

    found = over_batches(given, reader, np.arange(len(reader.records)), note, world)
    return Outputs(reader.records, found["x"], found["samples_N"])


def predictions_of(found: Outputs) -> Predictions:
    """A classifier's, beside the classes that the samples have."""
    truth_NC = targets_of(found.records, found.samples_N) > 0
    return Predictions(found.x_NC, truth_NC, found.samples_N, found.records.tags is not None)


def headline(predictions: Predictions) -> dict[str, float]:
    """The mean loss, accuracy, F1 and Matthews' correlation coefficient.

    F1 is that of the second class where there are two, else the mean over the classes that occur. With several labels
    the loss, and the mean average precision of the classes that occur. Of samples of one class the loss alone.
    """
    logits, truth = torch.from_numpy(predictions.logits_NC), torch.from_numpy(predictions.truth_NC).float()
    loss = classification(logits, truth, predictions.multi_label).item() / max(1, len(logits))
    if predictions.multi_label:
        precisions = [value for value in _average_precisions(predictions) if value is not None]
        return {"loss": loss, "map": float(np.mean(precisions)) if precisions else 0.0}
    if predictions.only_class is not None:
        return {"loss": loss}
    confusion_CC = _confusion(predictions)()
    f1, matthews = intervals.f1_and_matthews(confusion_CC)
    accuracy = float(np.trace(confusion_CC) / confusion_CC.sum())
    return {"loss": loss, "accuracy": accuracy, "f1": f1, "matthews": matthews}


def headline_intervals(predictions: Predictions) -> dict[str, intervals.Interval]:
    """95 % intervals of the scores of `headline`, but for the loss."""
    if predictions.multi_label:
        return {"map": intervals.of_map(predictions.logits_NC, predictions.truth_NC)}
    if predictions.only_class is not None:
        return {}
    count, confusion = len(predictions.samples_N), _confusion(predictions)
    accuracy = intervals.of_share(float(np.trace(confusion())) / count, count)
    f1, matthews = intervals.of_confusion(confusion, count)
    return {"accuracy": accuracy, "f1": f1, "matthews": matthews}


def _confusion(predictions: Predictions) -> Callable[..., NDArray[np.float64]]:
    """What counts samples, or their weights, by class (rows) and prediction (columns)."""
    C = predictions.truth_NC.shape[1]
    both_N = predictions.truth_NC.argmax(axis=1) * C + predictions.decided_NC.argmax(axis=1)
    return lambda weights_N=None: np.bincount(both_N, weights_N, C * C).reshape(C, C).astype(np.float64)


def details(predictions: Predictions, classes: tuple[str, ...]) -> dict[str, Any]:
    """Scores of each class, and (with one label a sample) the confusion matrix: rows truth, columns prediction.

    With several labels, `ap` is a class's average precision, None where no sample has it.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth_NC, decided_NC = predictions.truth_NC, predictions.decided_NC
    scores = precision_recall_fscore_support(truth_NC, decided_NC, average=None, zero_division=0.0)
    columns = zip(classes, *(score.tolist() for score in scores), strict=True)
    rows: list[dict[str, Any]] = [
        dict(zip(("name", "precision", "recall", "f1", "count"), row, strict=True)) for row in columns
    ]
    if predictions.multi_label:
        for row, precision in zip(rows, _average_precisions(predictions), strict=True):
            row["ap"] = precision
        return {"per_class": rows}
    return {"confusion": _confusion(predictions)().astype(int).tolist(), "per_class": rows}


def mistakes(predictions: Predictions, reader: Reader, limit: int = 24) -> dict[str, NDArray[Any]]:
    """The wrong predictions that the classifier was surest of, worst first.

    What `Reader.shown` has of them, and `predicted` (the most probable class that a sample has not),
    its `probability`, `truth` (its own class; of several the least probable, of none -1), `names`.
    """
    probabilities_NC = predictions.probabilities_NC
    wrong_NC = np.where(predictions.truth_NC, -1.0, probabilities_NC)
    predicted_N, wrong_N = wrong_NC.argmax(axis=1), wrong_NC.max(axis=1)
    mistaken_N = predictions.decided_NC[np.arange(len(predicted_N)), predicted_N]
    worst = np.argsort(np.where(mistaken_N, -wrong_N, 1.0), kind="stable")[: min(limit, int(mistaken_N.sum()))]
    truth_N = np.where(predictions.truth_NC, probabilities_NC, np.inf).argmin(axis=1)
    truth_N[~predictions.truth_NC.any(axis=1)] = -1
    return {
        "truth": truth_N[worst],
        "predicted": predicted_N[worst],
        "probability": wrong_N[worst].astype(np.float32),
        **_shown(reader, predictions.samples_N[worst]),
    }


def _average_precisions(predictions: Predictions) -> list[float | None]:
    """Average precision of each class, None where no sample has it."""
    from sklearn.metrics import average_precision_score

    columns = zip(predictions.truth_NC.T, predictions.logits_NC.T, strict=True)
    return [float(average_precision_score(truth, logits)) if truth.any() else None for truth, logits in columns]


@dataclass(frozen=True)
class Numbers:
    """What a model gives for samples with numbers; those that could not be read are not among them."""

    given_N: NDArray[np.float64]
    truth_N: NDArray[np.float64]
    samples_N: NDArray[np.int64]
    """Places in the records."""

    def rescaled(self, mean: float, deviation: float) -> Numbers:
        """The same where the model gives (number - mean) / deviation."""
        return Numbers(self.given_N * deviation + mean, self.truth_N, self.samples_N)


def numbers_of(found: Outputs) -> Numbers:
    """Of a model that gives one for a sample, beside the samples' own."""
    assert found.records.numbers is not None
    return Numbers(found.x_NC[:, 0].astype(np.float64), found.records.numbers[found.samples_N], found.samples_N)


def correlations(numbers: Numbers) -> dict[str, float]:
    """Mean squared error, Pearson's and Spearman's correlation (0 where one side is the same for all samples)."""
    from scipy import stats

    given_N, truth_N = numbers.given_N, numbers.truth_N
    varied = len(given_N) > 1 and np.ptp(given_N) > 0 and np.ptp(truth_N) > 0
    pearson, spearman = (
        float(measure(given_N, truth_N).statistic) if varied else 0.0 for measure in (stats.pearsonr, stats.spearmanr)
    )
    return {"mse": float(np.square(given_N - truth_N).mean()), "pearson": pearson, "spearman": spearman}


def correlation_intervals(numbers: Numbers) -> dict[str, intervals.Interval]:
    """95 % intervals of the scores of `correlations`."""
    found, count = correlations(numbers), len(numbers.given_N)
    return {
        "mse": intervals.of_ratio(np.square(numbers.given_N - numbers.truth_N), np.ones(count)),
        "pearson": intervals.of_correlation(found["pearson"], count),
        "spearman": intervals.of_correlation(found["spearman"], count, ranks=True),
    }


def worst_numbers(numbers: Numbers, reader: Reader, limit: int = 24) -> dict[str, NDArray[Any]]:
    """The samples whose number is furthest off, worst first: `truth`, `predicted`, `names`, and `texts` of text."""
    worst = np.argsort(-np.abs(numbers.given_N - numbers.truth_N), kind="stable")[:limit]
    shown = _shown(reader, numbers.samples_N[worst])
    return {"truth": numbers.truth_N[worst], "predicted": numbers.given_N[worst], **shown}


def _shown(reader: Reader, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    names = [reader.records.names[sample] for sample in samples.tolist()]
    return {"names": np.array(names, dtype=np.str_), **reader.shown(samples)}


@torch.no_grad()
def long_logits(classifier: Classifier | TokenClassifier, windows: Windowed, device: torch.device) -> Tensor:
    """Logits `C` of a long sample, pooled over the tokens of all its windows; `TC` of a classifier of tokens."""
    rows = window_features(classifier.encoder, windows, device)
    if isinstance(classifier, TokenClassifier):
        return torch.cat([classifier.of_features(torch.from_numpy(row_TD).to(device)) for row_TD in rows])
    if classifier.pooling in MEANS:
        return classifier.of_pooled(torch.from_numpy(mean_features(rows)).to(device))
    assert classifier.pooling == "linear_softmax", f"{classifier.pooling} is for samples of a limited length"
    logits_TC = [classifier.of_pooled(torch.from_numpy(row_TD).to(device)) for row_TD in rows]
    return linear_softmax(torch.cat(logits_TC)[None])[0]
