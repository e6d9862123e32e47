"""The whole proof for a GPU of this machine, in eight minutes: `make gpu-check`, or `python benchmarks/gpu_check.py`.

1. Golden: the cases of tests/parity of all three modalities in float32, TF32 off, eager and with compiled blocks.
2. Training: image_tiny on the bundled pictures through `data2vec2.pretrain`, its probes before and after.
3. Speed: updates of the three base recipes eager, compiled, in float32, and with `checkpoint_activations`: what share
   of the card's products they reach, what benchmarks/cuda_model.py had predicted, memory, and where the time goes.
4. Rivals: benchmarks/throughput.py, eager and compiled.
5. ALiBi: what attention with its bias takes as dense bias, with scores in memory, and by FlexAttention.
6. Reading: image_base on a folder of JPEG files, and how long it waits for them.
7. Two processes on one card: whether NCCL lets them.

What was measured is printed as it comes and added to benchmarks/RESULTS.md. A part that fails is said, and the others
go on; what is not begun in time is left out. Exit 0 if all is well or there is no GPU, 1 if a golden case is off,
nothing was learned or a part failed. `--device cpu --quick` tries this script itself, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from benchmarks import cuda_model, loader, throughput
from tests.parity.cases import GoldenCase, relative_error, subsample

from data2vec2 import __version__, evaluate, pretrain
from data2vec2.commands.bench import format_speeds, measured
from data2vec2.config.run import RunConfig
from data2vec2.method.block import AttentionBias, alibi_slopes, eager_attention
from data2vec2.method.compiling import compile_blocks
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist
from data2vec2.training import device as devices

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
PARTS = ("golden", "speeds", "training", "rivals", "alibi", "reading", "two_processes")
SPEEDS = (
    "| recipe | precision | compiled | activations | batch | at once | samples/s | TFLOP/s | of products' rate | "
    "predicted | peak memory (GiB) |\n" + 11 * "|---" + "|"
)
TWO_PROCESSES = """
import os, sys, torch, torch.distributed as dist
kind, backend = sys.argv[1:]
dist.init_process_group(backend)
x = torch.ones(8, device="cuda:0" if kind == "cuda" else kind)
dist.all_reduce(x)
assert x.sum().item() == 16
dist.destroy_process_group()
"""


@dataclass
class Check:
    """The device, and what was found so far."""

    device: torch.device
    quick: bool
    well: bool = True

    def golden(self) -> Iterator[str]:
        """Golden cases."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        for name in ("image", "audio", "text"):
            for size in ("tiny",) if self.quick else ("tiny", "base_full"):
                for compiled in (False,) if self.quick else (False, True):
                    errors = golden_errors(f"{name}_{size}", self.device, compiled)
                    worst = max(errors, key=lambda key: errors[key])
                    self.well &= errors[worst] < TOLERANCE
                    yield (
                        f"- golden {name}_{size}, float32{', compiled' * compiled}: largest relative error of "
                        f"{len(errors)} quantities {errors[worst]:.1e} ({worst}); tolerance {TOLERANCE:g}"
                    )
        torch.backends.cudnn.allow_tf32 = True  # as it was

    def training(self) -> Iterator[str]:
        """A short training."""
        recipe, updates, samples = get_recipe("image_tiny"), 20 if self.quick else 300, 200 if self.quick else 2_000
        train = replace(recipe.train, updates=updates, device=str(self.device), processes=1, eval_every=0)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            outcome = pretrain(replace(recipe, train=train), fashion_mnist(), Path(folder) / "run")
            seconds = time.perf_counter() - start
            scores = evaluate(Path(folder) / "run", fashion_mnist(), max_samples=samples, device=str(self.device))
        after, before = scores.rows[:2]
        self.well &= outcome.state == "finished" and (self.quick or after.knn > before.knn)
        yield (
            f"- image_tiny, {updates} updates on the bundled pictures ({seconds:.0f} s with start and export): "
            f"kNN {before.knn:.3f} before, {after.knn:.3f} after; linear {before.linear:.3f} before, "
            f"{after.linear:.3f} after ({scores.train_samples:,} labels, {scores.test_samples:,} test pictures)"
        )

    def speeds(self) -> Iterator[str]:
        """Updates of the base recipes."""
        yield SPEEDS
        end = "tiny" if self.quick else "base"
        whole = [("bfloat16", True, False), ("bfloat16", False, False), ("float32", False, False)]
        ways = [("float32", False, True)] if self.quick else [*whole, ("bfloat16", True, True)]
        found = []
        for config in [get_recipe(f"{name}_{end}") for name in ("image", "audio", "text")]:
            for precision, compiled, again in ways:
                how = {"precision": precision, "compile": compiled, "checkpoint_activations": again}
                train = replace(config.train, device=str(self.device), processes=1, **how)
                speed = measured(replace(config, train=train), 0.3 if self.quick else 6)
                plain = precision == "bfloat16" and not again
                share = self.predicted(config, speed.at_once, compiled) if plain else ""
                yield (
                    f"| {speed.recipe} | {precision} | {compiled} | {'again' if again else 'kept'} | {speed.batch} | "
                    f"{speed.at_once} | {speed.samples_per_s:,.4g} | {speed.flops_per_s / 1e12:,.3g} | "
                    f"{speed.share:.0%} | {share} | {speed.peak_memory / 2**30:.1f} |"
                )
                found += [speed] if plain else []
        if found:
            yield f"\n```\n{format_speeds(found)}\n```"

    def predicted(self, config: RunConfig, samples: int, compiled: bool) -> str:
        """The predicted share, for a known card."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        card = next((card for card in cuda_model.CARDS.values() if card.name in name), None)
        return f"{cuda_model.predicted(config, samples, card)[compiled][1]:.0%}" if card else "unknown card"

    def rivals(self) -> Iterator[str]:
        """Steps of others."""
        for compiled in (False,) if self.quick else (False, True):
            yield f"{chr(10) * compiled}{'Compiled' if compiled else 'Eager'}:\n\n{throughput.HEADER}"
            for name in throughput.RECIPES[: 1 if self.quick else 3]:
                how = {"precision": "float32" if self.quick else "bfloat16", "compiled": compiled, "quick": self.quick}
                samples, rounds = (1, 2) if self.quick else (16, 6)
                with devices.computing(1 if self.quick else None):
                    yield from throughput.compare(name, self.device, samples=samples, rounds=rounds, **how)

    def alibi(self) -> Iterator[str]:
        """Attention with the bias of audio."""
        N, L = (2, 20) if self.quick else (96, 500)
        torch.manual_seed(0)
        H, positions_NL = 12, torch.rand(N, 2 * L, device=self.device).argsort(1)[:, :L].sort(1).values
        slopes_H, scale_H = alibi_slopes(H).to(self.device), nn.Parameter(torch.ones(H, device=self.device))
        half = torch.float32 if self.quick else torch.bfloat16
        qkv = [torch.randn(N, H, L, 64, device=self.device, requires_grad=True) for _ in range(3)]

        def attention(attend: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
            bias = AttentionBias(positions_NL, slopes_H, scale_H).dense(dtype)
            return attend(*(x.to(dtype) for x in qkv), attn_mask=bias)

        def flex() -> Tensor:
            from torch.nn.attention.flex_attention import flex_attention

            def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                return score - slopes_H[h] * scale_H[h] * (positions_NL[b, i] - positions_NL[b, j]).abs()

            return torch.compile(flex_attention)(*(x.to(half) for x in qkv), score_mod=biased)

        ways = {
            "dense bias": partial(attention, nn.functional.scaled_dot_product_attention, half),
            "scores in memory": partial(attention, eager_attention, half),
            "FlexAttention": flex,
        }
        if self.device.type == "cpu":
            del ways["FlexAttention"]  # its backward pass does not run there
        yield f"- ALiBi, {N} rows of {L} tokens, {H} heads, forward and backward:"
        exact = partial(attention, eager_attention, torch.float32)
        out = exact()
        reference = [out, *torch.autograd.grad(out.square().sum(), scale_H)]
        for name, run in ways.items():
            times = []
            for _ in range(12):
                devices.synchronise(self.device)
                start = time.perf_counter()
                out = run()
                found = [out, *torch.autograd.grad(out.float().square().sum(), [scale_H, *qkv])][:2]
                devices.synchronise(self.device)
                times.append(time.perf_counter() - start)
            errors = [relative_error(a.float(), b) for a, b in zip(found, reference, strict=True)]
            yield (
                f"  - {name}: {1e3 * statistics.median(times[2:]):.3g} ms; relative error of the output "
                f"{errors[0]:.1e}, of the scale's gradient {errors[1]:.1e}"
            )

    def reading(self) -> Iterator[str]:
        """A training that reads files."""
        config, updates = get_recipe("image_tiny" if self.quick else "image_base"), 10 if self.quick else 30
        how = {"updates": updates, "device": str(self.device), "processes": 1, "log_every": updates // 5}
        train = replace(config.train, eval_every=0, **how)
        with tempfile.TemporaryDirectory() as folder:
            pictures = loader.make_pictures(40 if self.quick else 1_000)
            source = loader.make_sources(Path(folder), pictures)["folder"]
            outcome = pretrain(replace(config, train=train), source, Path(folder) / "run")
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        kept = [found for found in map(json.loads, lines) if "waited_for_data" in found][2:]
        rate, waited = (statistics.median(one[key] for one in kept) for key in ("samples_per_s", "waited_for_data"))
        yield (
            f"- reading: {config.recipe} on JPEG files of 500 x 375, {outcome.state}: {rate:,.0f} pictures/s, "
            f"{waited:.0%} of the time spent waiting for data"
        )

    def two_processes(self) -> Iterator[str]:
        """Two processes on one card."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "two.py"
            script.write_text(TWO_PROCESSES)
            done = subprocess.run(
                [*launch, str(script), self.device.type, backend], capture_output=True, text=True, timeout=90
            )
        reasons = [line for line in done.stderr.splitlines() if "Duplicate" in line or "Error:" in line]
        said = f"do not: {reasons[0] if reasons else done.stderr[-300:]}" if done.returncode else "work"
        yield f"- two processes on one {self.device.type} by {backend} {said}"


def golden_errors(name: str, device: torch.device, compiled: bool) -> dict[str, float]:
    """Relative error of every quantity of a golden case, computed on a device."""
    case = GoldenCase(name)
    golden, info = case.tensors, case.info
    source = case.full_source().to(device)
    model, keep_ids = case.model.to(device), case.keep_ids().to(device)
    if compiled:
        torch.compiler.reset()
        compile_blocks(model)

    with torch.no_grad():
        features = model.student.eval()(source).features_NTD
    model.train()
    out = model(source, keep_ids)
    (out.loss / out.num_rows).backward()
    with torch.no_grad():
        decoded = model.decode(out.student, keep_ids)
    tensors = {"features": features, "targets": out.targets_BTD, "decoder_output": decoded}
    errors = {key: error_of(ours, golden[key]) for key, ours in tensors.items()}
    errors["loss"] = abs((out.loss / out.num_rows).item() / info["loss"] - 1)
    parameters = dict(model.named_parameters())
    for key, norm in info["grad_norms"].items():
        grad = parameters[case.our_name(key)].grad
        assert grad is not None, f"{key} has no gradient"
        errors[f"gradient of {key}"] = abs(grad.norm().item() / norm - 1)
        if f"grad.{key}" in golden:
            errors[f"gradient of {key}"] = error_of(grad, golden[f"grad.{key}"])
    return errors


def error_of(ours: Tensor, golden: Tensor) -> float:
    """Relative error, where the golden tensor may be a part of all values."""
    same = ours.numel() == golden.numel()
    return relative_error(ours.cpu().view_as(golden) if same else subsample(ours.cpu()), golden)


def machine(device: torch.device) -> str:
    """Device and versions in one line."""
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    commit = f" (commit {git.stdout.strip()})" if git.returncode == 0 else ""
    return (
        f"{name}; data2vec2 {__version__}{commit}, torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}, "
        f"Python {platform.python_version()}"
    )


def main() -> int:
    """Parse and run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only to try the script")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--seconds", type=float, default=450, help="no part is begun later than this")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "RESULTS.md", help="file to add to")
    args = parser.parse_args()
    device, start = torch.device(args.device), time.perf_counter()
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu-check: this machine, or this build of torch, has no CUDA device; nothing was checked")
        return 0

    check = Check(device, args.quick)
    command = " ".join(["python", "benchmarks/gpu_check.py", *sys.argv[1:]])
    with args.results.open("a", encoding="utf-8") as file:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=file, flush=True)

        say(f"\n## {datetime.date.today()}: {machine(device)}\n\n`{command}`")
        for name in args.parts:
            say("")
            begun = time.perf_counter() - start
            if begun > args.seconds:
                say(f"- {name}: left out, as {begun:.0f} s had gone by")
                continue
            try:
                for line in getattr(check, name)():
                    say(line)
            except Exception as error:
                traceback.print_exc()
                check.well = False
                say(f"\n- {name}: failed: {type(error).__name__}: {str(error).split(chr(10))[0]}")
            print(f"({name}: {time.perf_counter() - start - begun:.0f} s)", flush=True)
        say(f"\nAll is well: {check.well}; {time.perf_counter() - start:.0f} s in all.")
    print(f"added to {args.results}")
    return 0 if check.well else 1


if __name__ == "__main__":
    sys.exit(main())
