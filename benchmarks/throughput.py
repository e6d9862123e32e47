"""Steps of training beside others: `python benchmarks/throughput.py`, with `--quick` in minutes on a processor.

On the same device, in the same precision, on samples of the same shapes, one after the other in every round:

- ours: the loop's own update of a base recipe;
- usual: the same update as it is often written, inputs repeated for every mask and attention scores in memory;
- data2vec 1: the student sees whole samples with one mask, and a linear layer in place of the decoder predicts;
- MAE, wav2vec 2.0 or RoBERTa: Transformers' ViTMAEForPreTraining, Wav2Vec2ForPreTraining, RobertaForMaskedLM (base).

A step is all that the loop does with a batch: forward, backward, clipping, AdamW and, but for the last, the teacher.
Samples are made up and new in every step. All but the usual step get as many samples as make about as many operations
as ours. Layer-drop is off. On a processor one thread computes and its own time counts; memory is that of tensors that
a step makes.
Prints a Markdown table; --quick takes a quarter of all layers, recordings of 2 seconds and texts of 256 tokens. On a
processor recordings have 10 seconds: with 20 the usual step needs more than 24 GiB.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batch
from data2vec2.method.block import Attention, eager_attention, quick_attention
from data2vec2.method.masking import complement, draw_keep_ids, put, take
from data2vec2.method.pretraining import Data2Vec2, Pretrained
from data2vec2.modalities import get_recipe
from data2vec2.modalities.tools import tools_of
from data2vec2.training import device as devices
from data2vec2.training.loop import Trainer
from data2vec2.training.measure import product_rate, update_flops
from data2vec2.training.optim import Ema
from data2vec2.training.parallel import ALONE
from data2vec2.training.run import RunFolder
from data2vec2.training.task import Sums

RECIPES = ("image_base", "audio_base", "text_base")
WAYS = ("ours", "usual", "data2vec 1")
HEADER = (
    "| recipe | step | samples | GFLOP a sample | ms a sample | ms a student row | share of peak | "
    "our FLOP/s, times its | its time a sample, times ours | memory of a step (MiB) |\n" + 10 * "|---" + "|"
)


class Ways(Data2Vec2):
    """Three ways to train the same student and teacher."""

    way = "ours"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config.model, tools_of(config.model.modality.kind).build(config.model))
        dim = config.model.encoder.embed_dim
        self.mask_embedding, self.head = nn.Parameter(torch.randn(dim)), nn.Linear(dim, dim)

    def choose(self, way: str) -> None:
        """Go one of `WAYS` from now on."""
        self.way = way
        for part in self.modules():
            if isinstance(part, Attention):
                part.attend = eager_attention if way == "usual" else quick_attention

    def forward(self, inputs: Tensor, keep_ids_NK: Tensor) -> Pretrained:
        """The objective."""
        if self.way == "ours":
            return super().forward(inputs, keep_ids_NK)
        if self.way == "usual":
            masks = len(keep_ids_NK) // len(inputs)
            student = self.student(inputs.repeat_interleave(masks, 0), keep_ids_NK=keep_ids_NK)
            tokens = replace(student.tokens, tokens_BTD=student.tokens.tokens_BTD[::masks])
            masked_ids_NU = complement(keep_ids_NK, tokens.tokens_BTD.shape[1])
            predictions_NUD = self.decode(student, keep_ids_NK, masked_ids_NU)
        else:
            tokens = self.student.modality.tokens(inputs)
            seen_NKD = take(tokens.tokens_BTD, keep_ids_NK)
            hidden_BTD = self.mask_embedding.to(seen_NKD.dtype).expand_as(tokens.tokens_BTD)
            student = self.student(tokens=replace(tokens, tokens_BTD=put(hidden_BTD, keep_ids_NK, seen_NKD)))
            masked_ids_NU = complement(keep_ids_NK, tokens.tokens_BTD.shape[1])
            predictions_NUD = self.head(take(student.features_NTD, masked_ids_NU))
        return self.loss(student, predictions_NUD, self.targets(inputs, tokens), masked_ids_NU)


class Rival(nn.Module):
    """A model of Transformers of the same size, with random weights."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        import transformers

        self.kind, encoder = config.model.modality.kind, config.model.encoder
        depth, dim = encoder.prenet_depth + encoder.depth, encoder.embed_dim
        sizes = {"num_hidden_layers": depth, "hidden_size": dim, "intermediate_size": 4 * dim}
        sizes["num_attention_heads"] = encoder.num_heads
        if self.kind == "image":
            decoder = {"decoder_num_hidden_layers": max(1, 8 * depth // 12)}  # that of MAE's base is 512 wide
            mae = transformers.ViTMAEConfig(**sizes, **decoder)
            self.name, self.model = "MAE", transformers.ViTMAEForPreTraining(mae)
        elif self.kind == "audio":
            stem = {"conv_dim": 7 * (config.model.modality.conv_dim,)}
            speech = transformers.Wav2Vec2Config(**sizes, **stem, layerdrop=0.0)
            self.name, self.model = "wav2vec 2.0", transformers.Wav2Vec2ForPreTraining(speech)
        else:
            text = {"vocab_size": config.model.modality.vocab_size, "max_position_embeddings": 514}
            words = transformers.RobertaConfig(**sizes, **text)
            self.name, self.model = "RoBERTa", transformers.RobertaForMaskedLM(words)

    def batch(self, inputs: Tensor) -> Batch:
        """Inputs, and what is hidden of them."""
        if self.kind == "image":
            return Batch(inputs=inputs)
        if self.kind == "text":
            hidden = torch.rand(inputs.shape, device=inputs.device) < 0.15
            return Batch(inputs=inputs.masked_fill(hidden, 4), targets=inputs.masked_fill(~hidden, -100))
        from transformers.models.wav2vec2 import modeling_wav2vec2 as speech

        shape = (len(inputs), int(self.model._get_feat_extract_output_lengths(inputs.shape[1])))
        hidden = speech._compute_mask_indices(shape, mask_prob=0.65, mask_length=10, min_masks=2)
        others = speech._sample_negative_indices(shape, self.model.config.num_negatives, hidden)
        made = Batch(inputs=inputs, time_masks_BT=torch.from_numpy(hidden), targets=torch.from_numpy(others))
        return made.to(inputs.device)

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss."""
        if self.kind == "image":
            return self.model(batch.inputs).loss
        if self.kind == "text":
            return self.model(batch.inputs, labels=batch.targets).loss
        known = {"mask_time_indices": batch.time_masks_BT, "sampled_negative_indices": batch.targets}
        return self.model(batch.inputs, **known).loss / batch.time_masks_BT.sum()


@dataclass
class Contender:
    """One kind of step, and what was measured of it."""

    name: str
    rows: int
    """Student rows of a sample."""
    trainer: Trainer
    make: Callable[[int, int], Batch]
    """So many fresh samples, of a step."""
    prepare: Callable[[], None]
    samples: int = 0
    flops: float = 0.0
    """Of a sample."""
    seconds: list[float] = field(default_factory=list)
    """Of each step."""
    memory: float = 0.0

    def count(self) -> None:
        """Find the operations of a sample."""
        self.prepare()
        batch, task = self.make(2, 0), self.trainer.task  # of one sample, negatives of speech may be too few
        self.flops = update_flops(task.model, lambda: task.loss(task.model, batch).loss) / 2

    def step(self, step: int, clock: Callable[[], float], device: torch.device) -> float:
        """Make one; returns its seconds."""
        self.prepare()
        batch = self.make(self.samples, step)
        devices.synchronise(device)
        started = clock()
        self.trainer.update(step, batch)
        devices.synchronise(device)
        return clock() - started


class Peak(TorchDispatchMode):
    """Most bytes of tensors that are made inside, at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self.known = 0, 0, weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made."""
        before = {leaf.untyped_storage() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self.known | before:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return found

    def freed(self, size: int) -> None:
        """Note that something is gone."""
        self.now -= size


def contenders(config: RunConfig, device: torch.device) -> Iterator[Contender]:
    """Ours first."""
    tools, masks = tools_of(config.model.modality.kind), config.model.masks
    grid = tools.largest(config.model, config.data).grid
    ours, rival = Ways(config).to(device), Rival(config).to(device)

    def masked(count: int, step: int, num_masks: int) -> Batch:
        drawn = replace(masks, num_masks=num_masks)
        keep_ids = draw_keep_ids(drawn, grid, 0, np.full(count, step), np.arange(count))
        return Batch(inputs=tools.noise(config, count, device), keep_ids_NK=torch.from_numpy(keep_ids).to(device))

    def loss(model: Ways, batch: Batch) -> Sums:
        found = model(batch.inputs, batch.keep_ids_NK)
        return Sums(found.loss.float(), found.num_rows)

    def trained(model: nn.Module, loss: Callable[[Any, Batch], Sums], ema: Ema | None) -> Trainer:
        task: Any = SimpleNamespace(model=model, loss=loss, ema=ema, dataset=None, monitor=None, unit="", many="")
        return Trainer(task, config, RunFolder(Path()), print, device, "", ALONE)

    trainer = trained(ours, loss, Ema(ours.teacher, ours.student, **asdict(config.ema)))
    for way in WAYS:
        rows = 1 if way == "data2vec 1" else masks.num_masks
        yield Contender(
            way, rows, trainer, lambda n, k, rows=rows: masked(n, k, rows), lambda way=way: ours.choose(way)
        )
    others = trained(rival, lambda model, batch: Sums(model(batch), 1), None)
    if config.train.compile:
        rival.compile()
    yield Contender(rival.name, 1, others, lambda n, _: rival.batch(tools.noise(config, n, device)), lambda: None)


def compare(
    name: str, device: torch.device, *, precision: str, compiled: bool, quick: bool, samples: int, rounds: int
) -> list[str]:
    """Rows of the table for one recipe."""
    config = get_recipe(name)
    model, encoder = config.model, replace(config.model.encoder, layer_drop=0.0)
    if hasattr(config.data, "max_seconds") and (quick or device.type == "cpu"):
        config = replace(config, data=replace(config.data, max_seconds=2.0 if quick else 10.0))
    if quick:
        encoder = replace(encoder, prenet_depth=0, depth=3)
        decoder, targets = replace(model.decoder, depth=max(1, model.decoder.depth // 4)), model.targets
        model = replace(model, decoder=decoder, targets=replace(targets, average_layers=3), encoder=encoder)
        if hasattr(model.modality, "max_tokens"):
            model = replace(model, modality=replace(model.modality, max_tokens=256))
    train = replace(config.train, batch_size=1 << 20, micro_batch=1 << 20, precision=precision, compile=compiled)
    config = replace(config, model=replace(model, encoder=encoder), train=train)
    torch.manual_seed(0)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found, limits = list(contenders(config, device)), list[float]()
    for each in found:
        each.count()
        equal = round(found[0].flops * samples / each.flops)
        each.samples = samples if each.name in WAYS[:2] else max(1, equal)
    for step in range(rounds + 2):  # the first two warm up
        for each in found:
            with Peak() if step == 1 and not compiled else nullcontext() as peak:
                seconds = each.step(step, clock, device)
            each.memory = peak.most if peak else each.memory
            if step > 1:
                each.seconds.append(seconds)
        limits.append(product_rate(device, getattr(torch, precision), clock))
    return [row(name, each, found[0], statistics.median(limits)) for each in found]


def row(recipe: str, each: Contender, ours: Contender, limit: float) -> str:
    """A contender in the table."""
    a_sample = statistics.median(each.seconds) / each.samples
    times = [a / b * ours.samples / each.samples for a, b in zip(each.seconds, ours.seconds, strict=True)]
    efficiency = [ratio * ours.flops / each.flops for ratio in times]
    compared = [interval(efficiency), interval(times)] if each is not ours else ["", ""]
    cells = [
        recipe,
        each.name,
        f"{each.samples}",
        f"{each.flops / 1e9:,.1f}",
        f"{1e3 * a_sample:,.4g}",
        f"{1e3 * a_sample / each.rows:,.4g}",
        f"{each.flops / a_sample / limit:.0%}",
        *compared,
        f"{each.memory / 2**20:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def interval(ratios: Sequence[float]) -> str:
    """Their geometric mean, with its 95 % interval by Student's t."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(middle):.2f} ({math.exp(middle - half):.2f} to {math.exp(middle + half):.2f})"


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="default: bfloat16 on CUDA")
    parser.add_argument("--compile", action="store_true", help="our blocks each, the rival whole")
    parser.add_argument("--samples", type=int, help="of our step; default: 16 on CUDA, else 1")
    parser.add_argument("--rounds", type=int, help="timed steps of each; default: 10, or 6 with --quick")
    parser.add_argument("--quick", action="store_true", help="smaller models and samples, as above")
    args = parser.parse_args()
    device = devices.choose_device(args.device)
    cuda = device.type == "cuda"
    precision = args.precision or ("bfloat16" if cuda else "float32")
    print(HEADER)
    for name in args.recipes:
        with devices.computing(1 if device.type == "cpu" else None):
            rows = compare(
                name,
                device,
                precision=precision,
                compiled=args.compile,
                quick=args.quick,
                samples=args.samples or (16 if cuda else 1),
                rounds=args.rounds or (6 if args.quick else 10),
            )
        print("\n".join(rows), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
