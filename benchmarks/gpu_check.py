"""Check and measure on the GPU of this machine: `make gpu-check`, or `python benchmarks/gpu_check.py`.

1. The golden cases of tests/parity in float32, TF32 off: the largest relative error.
2. A short real training on the bundled pictures through `data2vec2.pretrain`: kNN and linear probe before and after.
3. Throughput of image_base in float32, bfloat16, and bfloat16 compiled.

What was measured is printed and added to benchmarks/RESULTS.md. Exit 0 if all is well or there is no GPU, 1 if a golden
case is off or nothing was learned. `--device cpu --quick` tries this script itself, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from tests.parity.cases import GoldenCase, relative_error, subsample
from throughput import HEADER, measure

from data2vec2 import __version__, evaluate, pretrain
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4


def golden_errors(name: str, device: torch.device) -> dict[str, float]:
    """Relative error of every quantity of a golden image case, computed on a device."""
    case = GoldenCase(name)
    golden, info = case.tensors, case.info
    source = case.full_source().to(device)
    model, keep_ids = case.model.to(device), case.keep_ids().to(device)

    with torch.no_grad():
        features = model.student.eval()(source).features_NTD
    model.train()
    out = model(source, keep_ids)
    (out.loss / out.num_rows).backward()
    with torch.no_grad():
        decoded = model.decode(out.student, keep_ids)
    tensors = {"features": features, "targets": out.targets_BTD, "decoder_output": decoded}
    errors = {key: relative_error(subsample(ours.cpu()), golden[key]) for key, ours in tensors.items()}
    errors["loss"] = abs((out.loss / out.num_rows).item() / info["loss"] - 1)
    parameters = dict(model.named_parameters())
    for key, norm in info["grad_norms"].items():
        grad = parameters[case.our_name(key)].grad
        assert grad is not None, f"{key} has no gradient"
        errors[f"gradient of {key}"] = abs(grad.norm().item() / norm - 1)
        if f"grad.{key}" in golden:
            whole = golden[f"grad.{key}"]
            errors[f"gradient of {key}"] = relative_error(subsample(grad.cpu().view_as(whole)), whole)
    return errors


def check_golden(device: torch.device, names: list[str]) -> tuple[list[str], bool]:
    """Lines on the golden cases, and whether all are within the tolerance."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    lines, well = [], True
    for name in names:
        errors = golden_errors(name, device)
        worst = max(errors, key=lambda key: errors[key])
        well &= errors[worst] < TOLERANCE
        lines.append(
            f"- golden {name}, float32: largest relative error of {len(errors)} quantities {errors[worst]:.1e} "
            f"({worst}); tolerance {TOLERANCE:g}"
        )
    return lines, well


def short_training(device: torch.device, updates: int, samples: int) -> tuple[list[str], bool]:
    """Lines on a training of image_tiny from the bundled pictures, and whether it beat its own initialisation."""
    recipe = get_recipe("image_tiny")
    train = replace(recipe.train, updates=updates, device=str(device), processes=1, eval_every=0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = pretrain(replace(recipe, train=train), fashion_mnist(), Path(folder) / "run")
        seconds = time.perf_counter() - start
        if outcome.state != "finished":
            return [f"- training: {outcome.state} at update {outcome.step}: {outcome.message}"], False
        scores = evaluate(Path(folder) / "run", fashion_mnist(), max_samples=samples, device=str(device))
    after, before = scores.rows[:2]
    line = (
        f"- image_tiny, {updates} updates on the bundled pictures ({seconds:.0f} s with start and export): "
        f"kNN {before.knn:.3f} before, {after.knn:.3f} after; "
        f"linear {before.linear:.3f} before, {after.linear:.3f} after "
        f"({scores.train_samples:,} labels, {scores.test_samples:,} test pictures)"
    )
    return [line], after.knn > before.knn


def speeds(device: torch.device, quick: bool, peak_tflops: float | None) -> list[str]:
    """The throughput table."""
    recipe, batch, window = ("image_tiny", 4, 1) if quick else ("image_base", None, 10)
    lines = [HEADER]
    for precision, compiled in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        if quick and compiled:
            continue
        found = measure(get_recipe(recipe), device, batch=batch, precision=precision, compiled=compiled, window=window)
        batch = found.batch  # what fits in float32 is used for all
        lines.append(found.row(peak_tflops))
        print(lines[-1], flush=True)
    return lines


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only to try the script")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--peak-tflops", type=float, help="what the device can do in bfloat16, for the share of peak")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "RESULTS.md", help="file to add to")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu-check: this machine, or this build of torch, has no CUDA device; nothing was checked")
        return 0

    golden, exact = check_golden(device, ["image_tiny"] if args.quick else ["image_tiny", "image_base_full"])
    print("\n".join(golden), flush=True)
    training, learned = short_training(device, *((20, 200) if args.quick else (300, 10_000)))
    print("\n".join(training), flush=True)
    table = speeds(device, args.quick, args.peak_tflops)
    command = " ".join(["python", "benchmarks/gpu_check.py", *sys.argv[1:]])
    parts = [
        f"## {datetime.date.today()}: {machine(device)}",
        f"`{command}`",
        "\n".join([*golden, *training]),
        "\n".join(table),
    ]
    with args.results.open("a", encoding="utf-8") as file:
        file.write("\n" + "\n\n".join(parts) + "\n")
    print(f"added to {args.results}")
    if not exact:
        print("gpu-check: a golden case is off", file=sys.stderr)
    if not learned and not args.quick:
        print("gpu-check: the short training did not beat its own initialisation", file=sys.stderr)
    return 0 if exact and (learned or args.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
