"""doctor: what this machine can do."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch

from data2vec2.commands.environment import environment
from data2vec2.training.device import bfloat16_speedup, choose_device, free_memory

EXTRAS = {"track": "tensorboard"}
"""Extra to the module that it brings."""


def doctor(device: str = "auto") -> dict[str, Any]:
    """Versions, device, measured speed of bfloat16, free memory and disk, extras: name to finding."""
    chosen = choose_device(device)
    found = environment()
    found.pop("command")
    found["device"] = str(chosen)
    if chosen.type != "mps":
        side = 4096 if chosen.type == "cuda" else 512
        x = torch.randn(side, side, device=chosen, requires_grad=True)
        found["bfloat16 products, times as fast as float32"] = round(bfloat16_speedup(lambda: (x @ x).sum(), chosen), 2)
    found["free memory (GiB)"] = round(free_memory(chosen) / 2**30, 1)
    found["free disk here (GiB)"] = round(shutil.disk_usage(Path.cwd()).free / 2**30, 1)
    for extra, module in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        found[f"extra {extra}"] = "installed" if there else f"missing: pip install 'data2vec2[{extra}]'"
    found["torch compiled for CUDA"] = torch.version.cuda or "no"
    return found
