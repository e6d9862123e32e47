"""What commands do with the data and networks of a modality. The base serves any; a modality overrides what is its own.

Shapes: `B` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.data.account import PartAccount
from data2vec2.data.reader import Reader, Windowed
from data2vec2.data.records import Records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation import features
from data2vec2.evaluation.features import Inputs, LabelledFeatures, Note, TokenProbe
from data2vec2.evaluation.scores import Samples
from data2vec2.evaluation.similarity import SEARCHED, spread, write_captions
from data2vec2.method.encoder import Encoder
from data2vec2.method.masking import draw_keep_ids
from data2vec2.modalities import spec_of
from data2vec2.modalities.data import DataTools, ModelInfo
from data2vec2.modalities.interop import Interop
from data2vec2.modalities.jobs import Job, Sized
from data2vec2.modalities.show import Show
from data2vec2.modalities.spec import EmbedOptions as EmbedOptions

Row = NDArray[np.float32]
Several = Callable[[Tensor, Tensor | None], Sequence[Row]]


class Feed:
    """Samples of any size on their way through a model, for `embed` and `predict`."""

    batch = 32
    """Samples at once in `embed`, unless another number is asked for."""
    columns: Sequence[pa.Field] = ()
    """Columns of a table of features, beside those that all have."""
    about: Mapping[str, Any] = {}
    """What such a table says of its features."""
    pictures = False
    """Whether samples have a size and an aspect, which some options are about."""
    cls_token = False
    """Whether models have a CLS token."""

    def __init__(self, tools: DataTools, info: ModelInfo, options: EmbedOptions | None = None) -> None:
        """`options`: none in `predict`. `UsageError` for one that this modality has not."""
        if options and options.pool == "cls" and not self.cls_token:
            raise UsageError(f"--pool cls is for models with a CLS token, which those of {info.kind} have not")
        if options and not self.pictures:
            given = {"--size": options.size is not None, "--keep-aspect": options.keep_aspect}
            if option := next((name for name in given if given[name]), None):
                raise UsageError(f"{option} is for image models, not for {info.kind}; leave it out")
        self.tools, self.info, self.options = tools, info, options

    def open(self, records: Records) -> Callable[[int], Any]:
        """What makes a sample's input of its index, or raises `BadSample`."""
        self.reader = self.tools.reader(records, self.info.model, self.info.data, seed=0)
        return self.reader.entire

    def groups(
        self, samples: Sequence[NDArray[Any]]
    ) -> Iterator[tuple[list[int], NDArray[Any], NDArray[np.int64] | None]]:
        """Places, inputs and lengths of the samples that go through the model together."""
        yield (list(range(len(samples))), *self.reader.stacked(samples))

    @torch.inference_mode()
    def run(
        self, samples: Sequence[Any], several: Several, one: Callable[[Windowed], Row], device: torch.device
    ) -> list[Row]:
        """What `several` makes of normalised inputs and lengths, `one` of a long sample; `UserError` out of memory."""
        found: dict[int, Row] = {i: one(s) for i, s in enumerate(samples) if isinstance(s, Windowed)}
        places = [place for place in range(len(samples)) if place not in found]
        normalise = self.tools.normalise(self.info.data, device)
        for group, inputs, lengths in self.groups([samples[place] for place in places]) if places else ():
            lengths_B = None if lengths is None else torch.from_numpy(lengths).to(device)
            try:
                rows = several(normalise(torch.from_numpy(inputs).to(device)), lengths_B)
            except torch.OutOfMemoryError as error:
                what = f"{len(group)} {self.tools.words.many} of shape {inputs.shape[1:]} at once"
                raise UserError(f"out of memory on {device} with {what}; give a smaller --batch") from error
            found.update(zip([places[place] for place in group], rows, strict=True))
        return [found[place] for place in range(len(samples))]

    def features(self, encoder: Encoder, samples: Sequence[Any], device: torch.device) -> list[Row]:
        """Features `TD` of each sample, or their mean `D`."""
        assert self.options is not None
        stem, dense = self.options.layer == 0, self.options.pool == "none"

        def several(inputs: Tensor, lengths_B: Tensor | None) -> Sequence[Row]:
            rows = features.token_features(encoder, inputs, lengths_B, stem=stem)
            return rows if dense else [row_TD.mean(axis=0) for row_TD in rows]

        def one(windows: Windowed) -> Row:
            rows = features.window_features(encoder, windows, device, stem=stem)
            return np.concatenate(list(rows)) if dense else features.mean_features(rows)

        return self.run(samples, several, one, device)

    def cells(self, records: Records, good: Mapping[int, Any], rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Values of `columns`, of the samples by index that could be read, and of their features."""
        return {}


class Tools(DataTools):
    """One modality at work. Has no state, so that all processes of a run make their own."""

    jobs: ClassVar[Mapping[str, type[Job]]] = {"classify": Job}
    """Tasks of fine-tuning."""
    feed: ClassVar[type[Feed]] = Feed
    interop: ClassVar[Interop] = Interop()
    show: ClassVar[Show] = Show()
    """What reports show."""

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[LabelledFeatures, LabelledFeatures]:
        """The inputs as labelled features, for probes without a model: here mean and deviation over the first axis."""

        def statistics(batch: Inputs) -> NDArray[np.float32]:
            whole, rows = [batch.inputs.shape[1]] * len(batch.inputs), batch.inputs.flatten(2).double()
            lengths = whole if batch.lengths_B is None else batch.lengths_B.tolist()
            real = [row[:length] for row, length in zip(rows, lengths, strict=True)]
            return torch.stack([torch.cat([row.mean(0), row.std(0, correction=0)]) for row in real]).float().numpy()

        return features.features_of(statistics, *train, note), features.features_of(statistics, *test, note)

    def token_probe(self, data: str, train: Reader, test: Reader) -> TokenProbe:
        """What the probe of single tokens learns from and is scored on; `UserError` where there is none."""
        raise UsageError("--probes phones is for speech; leave it out")

    def check_learned(self, data: DataConfig, weights: DataConfig) -> None:
        """`UserError` for inputs that are read otherwise than `weights`, which a run starts from, can be used with."""

    def sized(self, model: nn.Module, config: RunConfig, count: int = 1) -> Sized:
        """The loss of pre-training on `count` samples of the largest size."""
        zero, device = np.zeros(1, dtype=np.int64), next(model.parameters()).device
        inputs, grid, size = self.largest(config.model, config.data)
        keep_ids = torch.from_numpy(draw_keep_ids(config.model.masks, grid, 0, zero, zero)).to(device).repeat(count, 1)
        inputs = inputs.to(device).repeat_interleave(count, 0)
        return Sized(lambda: model(inputs, keep_ids).loss, count * size)

    def keep_ids(self, config: RunConfig, grid: tuple[int, ...], samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Kept tokens `NMK` of samples in the first epoch."""
        masks = config.model.masks
        drawn = draw_keep_ids(masks, grid, config.train.seed, np.zeros_like(samples), samples)
        return drawn.reshape(len(samples), masks.num_masks, -1)

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Arrays of masks.npz, for `show`: names of samples, and their masks as those of the largest size have them.

        Of sequences of numbers also `values` NTC: the mean of what a token sees, from the beginning of each sample.
        """
        largest, grid, _ = self.largest(config.model, config.data)
        batch, num_tokens = reader.eval_batch(samples), math.prod(grid)
        found = {
            "kind": self.spec.name,
            "names": np.array([reader.records.names[sample] for sample in batch.indices_B.tolist()], dtype=np.str_),
            "num_tokens": num_tokens,
            "keep_ids": self.keep_ids(config, grid, batch.indices_B),
        }
        if len(grid) == 1 and np.issubdtype(batch.inputs.dtype, np.floating):
            steps, length = largest.shape[1] // num_tokens, min(largest.shape[1], batch.inputs.shape[1])
            values = np.zeros((len(samples), *largest.shape[1:]), dtype=np.float32)
            values[:, :length] = batch.inputs[:, :length]
            found["values"] = values[:, : steps * num_tokens].reshape(len(samples), num_tokens, steps, -1).mean(axis=2)
        return found

    def check_beside(self, data: str) -> None:
        """Raise `UserError` for files beside the samples that `write_gallery` could not read, before it is due."""

    def write_gallery(
        self, run: Path, encoder: Encoder, samples: Samples, info: ModelInfo, device: torch.device, data: str
    ) -> None:
        """Write RUN/gallery.npz, for `show`: here names of samples (from `data`), their neighbours, and a map."""
        reader = samples[0]
        known, places = self.searched(encoder, samples, info, device)
        write_captions(run, self.spec.name, known, reader.records.classes, **self.captions(reader, places))

    def captions(self, reader: Reader, places: Sequence[int]) -> dict[str, list[str]]:
        """What stands for samples in the gallery: their names."""
        return {"names": [reader.records.names[place] for place in places]}

    def searched(
        self, encoder: Encoder, samples: Samples, info: ModelInfo, device: torch.device
    ) -> tuple[LabelledFeatures, list[int]]:
        """Features and labels of samples (none: of all) as far as they can be read, and their places, for a gallery."""
        reader, chosen = samples
        chosen = chosen if len(chosen) else np.arange(len(reader.records))
        chosen = chosen[spread(len(chosen), SEARCHED)]
        bad, normalise = PartAccount(len(chosen), max_bad=1), self.normalise(info.data, device)
        (known,) = features.encode_by_each([encoder], reader, chosen, normalise, device, bad.add)
        return known, [place for place in chosen.tolist() if reader.records.names[place] not in bad.bad]


@cache
def tools_of(kind: str) -> Tools:
    """The tools of a modality; `UsageError` if no installed package has it."""
    tools: Tools = pkgutil.resolve_name(spec_of(kind).tools)()
    return tools
