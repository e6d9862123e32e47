"""doctor: what this machine can do, and what a run ran on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data2vec2.commands.estimate import format_hours, recipe_facts
from data2vec2.commands.options import Doctor
from data2vec2.files import HIDDEN, cache_folder, masked
from data2vec2.modalities import specs
from data2vec2.training.device import bfloat16_speedup, choose_device, free_memory
from data2vec2.version import __version__

SHM = 1
"""GiB of /dev/shm that readers of large samples may need."""
EXTRAS = {
    "vision": ("timm", "for the authors' augmentation in fine-tuning on pictures"),
    "tiff": ("tifffile", "for pictures with more than four channels"),
    "data": ("datasets", "for data sets of the Hugging Face hub (hf:NAME)"),
    "lm": ("flashlight", "for decoding speech with a language model"),
    "onnx": ("onnx", "for export to ONNX Runtime"),
    "track": ("tensorboard", "for TensorBoard"),
    "wandb": ("wandb", "for Weights & Biases"),
    "mlflow": ("mlflow", "for MLflow"),
    "trackio": ("trackio", "for trackio"),
    "ffmpeg": ("av", "for M4A, AAC, WMA, WebM and video files"),
    "remote": ("aiohttp", "for data at https:// and other URLs"),
    "trainer": ("accelerate", "for Transformers' Trainer"),
    "gpu": ("pynvml", "for the utilisation of an NVIDIA GPU in the progress bar"),
}
"""Extras of the package: a module that each brings, and what it is for."""
_SECRET = re.compile(r"(?i)(^|[-_.])(api)?(key|token|secret|password|passwd|credentials?|auth)$")
PACKAGES = ("torch", "numpy", "transformers", "safetensors", "pillow", "scikit-learn", "matplotlib", "tyro", "rich")


def doctor(given: Doctor) -> dict[str, Any]:
    """Versions, device, measured speed of bfloat16, free memory and disk, extras: name to finding."""
    chosen = choose_device(given.device)
    found = environment() | {"device": str(chosen)}
    found.pop("command")
    if chosen.type != "mps":
        side = 4096 if chosen.type == "cuda" else 512
        x = torch.randn(side, side, device=chosen, requires_grad=True)
        found["bfloat16 speed-up over float32"] = round(bfloat16_speedup(lambda: (x @ x).sum(), chosen), 2)
    free = free_memory(chosen)
    found["free memory (GiB)"] = round(free / 2**30, 1)
    fitting = [one for one in recipe_facts(chosen) if one.memory <= free]
    found["recipes that fit in it, with the time of all updates"] = ", ".join(
        f"{f.name} {format_hours(f.hours)}" for f in fitting
    )
    places = {"here": Path.cwd(), "in the cache": cache_folder(), "in /dev/shm": Path("/dev/shm")}
    for place, path in places.items():
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        if path == existing or place != "in /dev/shm":
            found[f"free disk {place} (GiB)"] = round(shutil.disk_usage(existing).free / 2**30, 1)
    if found.get("free disk in /dev/shm (GiB)", SHM) < SHM:
        found["advice"] = f"readers are faster with more /dev/shm: docker run --shm-size={SHM}g"
    for extra, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        found[f"extra {extra}"] = "installed" if there else f"missing, {purpose}: pip install 'data2vec2[{extra}]'"
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
        "command": without_secrets(sys.argv[1:]),
    }


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command line with `***` for the values of keys, tokens and passwords, in addresses too."""
    shown, hide = list[str](), False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = bool(_SECRET.search(name)) and (bool(equals) or word.startswith("-"))
        if (hide and not word.startswith("-")) or (secret and equals):
            shown.append(f"{name}={HIDDEN}" if secret else HIDDEN)
        else:
            shown.append(masked(word))
        hide = secret and not equals
    return shown


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
