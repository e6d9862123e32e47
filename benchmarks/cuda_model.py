"""What a card should reach, computed from operations and their traffic: `python benchmarks/cuda_model.py`.

A step of a recipe is made with fake tensors, which have shapes and no values. Every operation takes as long as its
arithmetic, its traffic with memory or its start on the card, whichever is longest, and a step at least as long as
Python takes to start all of them. Compiled: neighbouring operations that are neither products nor attention become one,
which reads and writes only what others need, and Python starts a block at a time. A prediction, to be held against
`make gpu-check`; shares are of the rate of large products, as there, and layer-drop is off.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import sdpa_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.commands.estimate import outlined
from data2vec2.config.run import RunConfig
from data2vec2.method.block import Attention
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.tools import tools_of

aten = torch.ops.aten
NOTHING = (
    *(aten.detach.default, aten._unsafe_view.default, aten.empty.memory_format, aten.empty_like.default),
    *(aten.new_empty.default, aten.empty_strided.default, aten.new_empty_strided.default),
)
"""Operations that leave memory alone."""


@dataclass(frozen=True)
class Card:
    """A GPU, by its data sheet and the rate that large bfloat16 products are known to reach."""

    name: str
    products: float
    """Operations a second in large bfloat16 products."""
    bandwidth: float
    """Bytes a second."""


_CARDS = Card("A100", 250e12, 2.0e12), Card("H100", 650e12, 3.35e12), Card("H200", 700e12, 4.8e12)
CARDS = {card.name: card for card in _CARDS}
EFFICIENCY = {"product": 0.85, "attention": 0.5, "convolution": 0.4}
"""Assumed, of the rate of large products: for those of a step's shapes, fused attention, and (grouped) convolutions."""
START = 2.5e-6
"""Assumed seconds that the shortest operation takes on the card."""
HOST = {False: 7e-6, True: 2e-6}
"""Assumed seconds that Python takes to start an operation, eager and compiled."""
PER_PARAMETER = 8 + 4 + 28 + 12
"""Bytes a trained parameter: clipping (scale), its norm, AdamW with two moments, and the teacher's average."""


@dataclass(frozen=True)
class Operation:
    """What was done with the card."""

    kind: str
    """product, attention, convolution, or other."""
    flops: float
    reads: dict[int, int]
    """Bytes by storage."""
    writes: dict[int, int]


class Traffic(TorchDispatchMode):
    """Notes the operations of what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.storages = list[Operation](), list[Any]()  # kept, so that no two have one name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace == "prim" or func in NOTHING:
            return found
        given, made = self.bytes_of((args, kwargs)), self.bytes_of(found)
        if func in (aten.native_layer_norm.default, aten.native_layer_norm_backward.default):
            # On CUDA, autocast computes norms in float32.
            given = {name: size * (3 if args[0].dtype == torch.bfloat16 else 1) for name, size in given.items()}
        self.operations.append(Operation(*arithmetic(func, args, found), given, made))
        return found

    def bytes_of(self, values: Any) -> dict[int, int]:
        """Of tensors in some structure."""
        found = {}
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.storages.append(storage)
                found[storage._cdata] = min(leaf.numel() * leaf.element_size(), storage.nbytes())
        return found


class Fused(torch.autograd.Function):
    """Attention as CUDA's kernels do it, with dropout and a bias that may have a gradient; computes nothing."""

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, traffic: Traffic) -> Tensor:
        """`NHLE` to `NHLE`."""
        context.given, context.traffic = (q, k, v, bias), traffic
        out = torch.empty_like(q)
        flops = sdpa_flop_count(q.shape, k.shape, v.shape)  # type: ignore[no-untyped-call]
        traffic.operations.append(
            Operation("attention", flops, traffic.bytes_of((q, k, v, bias)), traffic.bytes_of(out))
        )
        return out

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        """Of all that need one."""
        given, traffic = context.given, context.traffic
        flops = 2.5 * sdpa_flop_count(*(value.shape for value in given[:3]))  # type: ignore[no-untyped-call]
        found = [torch.empty_like(x) if x is not None and x.requires_grad else None for x in given]
        traffic.operations.append(
            Operation("attention", flops, traffic.bytes_of((given, gradient, gradient)), traffic.bytes_of(found))
        )
        return *found, None


def arithmetic(func: Any, args: Any, found: Any) -> tuple[str, float]:
    """Kind and floating-point operations."""
    name = func.overloadpacket.__name__
    if name in ("mm", "bmm"):
        return "product", 2.0 * args[0].numel() * args[1].shape[-1]
    if name in ("addmm", "baddbmm"):
        return "product", 2.0 * args[1].numel() * args[2].shape[-1]
    if name == "convolution":
        return "convolution", 2.0 * found.numel() * args[1][0].numel()
    if name == "convolution_backward":
        return "convolution", 2.0 * args[0].numel() * args[2][0].numel() * sum(args[-1][:2])
    return "other", 0.0


def fused(operations: list[Operation]) -> Iterator[Operation]:
    """With neighbours of kind other as one, which reads what is from elsewhere and writes what others read."""
    last = {name: place for place, one in enumerate(operations) for name in one.reads}
    place = 0
    while place < len(operations):
        end = place + 1
        if operations[place].kind == "other":
            while end < len(operations) and operations[end].kind == "other":
                end += 1
        group = operations[place:end]
        made: dict[int, int] = {}
        reads: dict[int, int] = {}
        for one in group:
            reads |= {name: size for name, size in one.reads.items() if name not in made}
            made |= one.writes
        writes = {name: size for name, size in made.items() if len(group) == 1 or last.get(name, end) >= end}
        yield Operation(group[0].kind, group[0].flops, reads, writes)
        place = end


def seconds(operations: list[Operation], card: Card, host_s: float) -> float:
    """How long operations take."""
    total = 0.0
    for one in operations:
        moved = sum(one.reads.values()) + sum(one.writes.values())
        rate = card.products * EFFICIENCY.get(one.kind, 1.0)
        total += max(START, one.flops / rate, moved / card.bandwidth)
    return max(total, host_s * len(operations))


@cache
def operations_of(config: RunConfig, samples: int) -> tuple[list[Operation], int, float]:
    """Those of a step's forward and backward pass, trained parameters, and a step's floating-point operations."""
    tools = tools_of(config.model.modality.kind)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Data2Vec2(config.model, tools.build(config.model)).train()
        loss = tools.sized(model, config, samples).loss
        traffic = Traffic()
        for part in model.modules():
            if isinstance(part, Attention):
                part.attend = lambda q, k, v, attn_mask=None, dropout_p=0.0: Fused.apply(q, k, v, attn_mask, traffic)
        with traffic:
            with torch.autocast("cpu", torch.bfloat16):
                result = loss()
            result.float().backward()  # type: ignore[no-untyped-call]
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = tools.largest(config.model, config.data).size
    return traffic.operations, parameters, outlined(config)[2] * size * samples


def predicted(config: RunConfig, samples: int, card: Card) -> dict[bool, tuple[float, float]]:
    """Eager and compiled: seconds of an update without layer-drop, and its share of the rate of large products."""
    config = replace(config, model=replace(config.model, encoder=replace(config.model.encoder, layer_drop=0.0)))
    found, parameters, flops = operations_of(config, samples)
    rest = parameters * PER_PARAMETER / card.bandwidth
    times = {False: seconds(found, card, HOST[False]), True: seconds(list(fused(found)), card, HOST[True])}
    return {compiled: (s + rest, flops / (s + rest) / card.products) for compiled, s in times.items()}


def main() -> None:
    """Parse and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["image_base", "audio_base", "text_base"])
    parser.add_argument("--cards", nargs="+", choices=CARDS, default=list(CARDS))
    parser.add_argument("--samples", type=int, help="at once; default: a quarter of the recipe's batch")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by copies of modules
    print("| recipe | at once | card | eager: ms | of products' rate | compiled: ms | of products' rate |")
    print(7 * "|---" + "|")
    for name in args.recipes:
        config = get_recipe(name)
        size = tools_of(config.model.modality.kind).largest(config.model, config.data).size
        samples = args.samples or max(1, int(config.train.batch_size / size / 4))
        for card in args.cards:
            (slow, share), (fast, most) = predicted(config, samples, CARDS[card]).values()
            print(
                f"| {name} | {samples} | {card} | {1e3 * slow:.1f} | {share:.0%} | {1e3 * fast:.1f} | {most:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
