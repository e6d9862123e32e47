"""What a run ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

from data2vec2.version import __version__

PACKAGES = ("torch", "numpy", "transformers", "safetensors", "pillow", "scikit-learn", "matplotlib", "tyro", "rich")


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
