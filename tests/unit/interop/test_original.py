"""Files that are no checkpoints of the original are refused in our words, never with PyTorch's dangerous advice."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data2vec2.errors import UserError
from data2vec2.interop.fairseq.original import read_checkpoint


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def in_zip(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("archive/version", "3")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    made = {
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_bytes(b"no pickle at all " * 50),
        "bytes": lambda path: path.write_bytes(bytes(range(256)) * 50),
        "pickle": lambda path: path.write_bytes(b"\x80\x02garbage" * 50),
        "other protocol": lambda path: path.write_bytes(b"\x80\x03}q\x00."),
        "cut zip": lambda path: path.write_bytes(b"PK\x03\x04" + b"xx" * 500),
        "zip": lambda path: in_zip(path, "a.txt", b"hello"),
        "zip of garbage": lambda path: in_zip(path, "archive/data.pkl", b"\x80\x02junk"),
        "array": lambda path: np.save(path.open("wb"), np.zeros(3)),
        "web page": lambda path: path.write_bytes(b"<!DOCTYPE html>"),
        "module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
        "program": lambda path: torch.save({"model": Hostile()}, path),
        "tensor": lambda path: torch.save(torch.zeros(3), path),
        "list": lambda path: torch.save([1, 2], path),
    }
    for name, make in made.items():
        path = tmp_path / f"{name}.pt"
        make(path)
        with pytest.raises(UserError) as error, warnings.catch_warnings():
            warnings.simplefilter("error")
            read_checkpoint(path)
        said = str(error.value)
        assert said.startswith(str(path)), name
        assert "weights_only" not in said, name
        assert "\n" not in said, name
