"""doctor: what this machine can do, and what a run ran on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from data2vec2.commands.options import Doctor
from data2vec2.modalities import specs
from data2vec2.training.device import bfloat16_speedup, choose_device, free_memory
from data2vec2.version import __version__

PACKAGES = ("torch", "numpy", "transformers", "safetensors", "pillow", "scikit-learn", "matplotlib", "tyro", "rich")


def doctor(given: Doctor) -> dict[str, Any]:
    """Versions, device, measured speed of bfloat16, free memory and disk, extras: name to finding."""
    chosen = choose_device(given.device)
    found = environment() | {"device": str(chosen)}
    found.pop("command")
    if chosen.type != "mps":
        side = 4096 if chosen.type == "cuda" else 512
        x = torch.randn(side, side, device=chosen, requires_grad=True)
        found["bfloat16 products, times as fast as float32"] = round(bfloat16_speedup(lambda: (x @ x).sum(), chosen), 2)
    found["free memory (GiB)"] = round(free_memory(chosen) / 2**30, 1)
    found["free disk here (GiB)"] = round(shutil.disk_usage(Path.cwd()).free / 2**30, 1)
    tracks = importlib.util.find_spec("tensorboard") is not None
    found["extra track"] = "installed" if tracks else "missing: pip install 'data2vec2[track]'"
    found["modalities"] = ", ".join(specs())
    found["torch compiled for CUDA"] = torch.version.cuda or "no"
    return found


def environment() -> dict[str, Any]:
    """Versions, processor and threads of this process."""
    return {
        "data2vec2": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **{name: _version(name) for name in PACKAGES},
        "command": sys.argv[1:],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
