"""Files that were made to do harm: nothing of them is run, nothing hangs, and what is refused is named."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data2vec2 import files
from data2vec2.errors import UserError
from data2vec2.interop.fairseq.original import read_checkpoint
from tests.integration.helpers import PRETRAINED, run_here, words

# Pickles, which `.pt` files are


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


OPCODES: dict[str, Callable[[str, str, bytes], bytes]] = {
    "reduce": lambda module, name, arguments: f"c{module}\n{name}\n(".encode() + arguments + b"tR",
    "stack global": lambda module, name, arguments: text(module) + text(name) + b"\x93(" + arguments + b"tR",
    "inst": lambda module, name, arguments: b"(" + arguments + f"i{module}\n{name}\n".encode(),
    "obj": lambda module, name, arguments: f"(c{module}\n{name}\n".encode() + arguments + b"o",
    "newobj": lambda module, name, arguments: f"c{module}\n{name}\n(".encode() + arguments + b"t\x81",
    "build": lambda module, name, arguments: (
        b"ctorch\nTensor\n(" + f"c{module}\n{name}\n(".encode() + arguments + b"tRdb"
    ),
}
"""Ways in which a pickle calls a function of a module."""
COMMAND = "{python} -c \"open('{canary}', 'w')\""
CODE = "open('{canary}', 'w')"
CALLS = {
    "os.system": COMMAND,
    "posix.system": COMMAND,
    "subprocess.getoutput": COMMAND,
    "builtins.eval": CODE,
    "builtins.exec": CODE,
    "__builtin__.eval": CODE,
    "timeit.timeit": CODE,
    "runpy.run_path": "{script}",
    "torch.utils.cpp_extension.subprocess.getoutput": COMMAND,
    "numpy.testing._private.utils.runstring": CODE,
    "pty.spawn": "{script}",
}
"""Functions that do harm, and what they are called with."""


def as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def zipped(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")


def legacy(path: Path, content: bytes) -> None:
    """As PyTorch before 1.6 saved it."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts) + content + pickle.dumps([], 2))


CONTAINERS = {"pickle": as_it_is, "zip": zipped, "legacy": legacy}
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "all": lambda call: b"\x80\x04" + call + b".",
    "model": lambda call: b"\x80\x04}" + text("model") + call + b"s.",
    "cfg": lambda call: b"\x80\x04}" + text("cfg") + b"}" + text("model") + call + b"ss.",
    "key": lambda call: b"\x80\x04}" + call + b"Ns.",
}
"""Where in the file the call stands."""


def hostile(path: Path, container: str, call: str, opcode: str = "reduce", place: str = "model") -> Path:
    """A file that makes the file `canary` beside it if it is run; returns that."""
    canary, script = path.with_name("canary"), path.with_name("script.py")
    script.write_text(f"#!{sys.executable}\nopen({str(canary)!r}, 'w')\n")
    script.chmod(0o755)
    argument = CALLS[call].format(python=sys.executable, canary=canary, script=script)
    module, name = call.rsplit(".", 1)
    CONTAINERS[container](path, PLACES[place](OPCODES[opcode](module, name, text(argument))))
    return canary


def test_the_canary_sings(tmp_path: Path) -> None:
    """So that the tests below could fail: Python's own pickle runs these files."""
    for call in ("os.system", "builtins.eval", "subprocess.getoutput"):
        for opcode in ("reduce", "stack global", "inst", "obj"):
            canary = hostile(tmp_path / "a.pt", "pickle", call, opcode)
            program = f"import pickle; pickle.load(open({str(tmp_path / 'a.pt')!r}, 'rb'))"
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
            assert canary.exists(), (call, opcode)
            canary.unlink()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("call", CALLS)
def test_no_file_of_the_original_is_run(tmp_path: Path, container: str, call: str) -> None:
    for opcode in OPCODES:
        for place in PLACES:
            canary = hostile(tmp_path / "a.pt", container, call, opcode, place)
            with pytest.raises(UserError, match=r"a\.pt (can't be read|calls|holds)") as error:
                read_checkpoint(tmp_path / "a.pt")
            assert not canary.exists(), (opcode, place)
            assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_allowed_is_not_run_either(
    tmp_path: Path, container: str, untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.pt"
    for opcode in OPCODES:
        canary = hostile(file, container, "os.system", opcode)
        for given in (
            ["convert", file, tmp_path / "out", "--allow", "os.system"],
            ["convert", file, tmp_path / "out"],
            ["pretrain", "image_tiny", tmp_path, "--out", tmp_path / "run", "--init-from", file],
        ):
            assert run_here(given) == 1
            assert "Traceback" not in capsys.readouterr().err
            assert not canary.exists()
            assert not (tmp_path / "out").exists()


# Run folders

DEEP = "[" * 100_000
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)),
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "deep": DEEP.encode(),
    "deep objects": b'{"a":' * 100_000,
    "huge number": b'{"step": ' + b"9" * 100_000 + b"}",
    "odd numbers": b'{"step": NaN, "state": 1e999, "updates": -Infinity, "rows": [{"features": NaN}], "parts": 3}',
    "bomb": BOMB.encode(),
    "merged bomb": MERGED.encode(),
    "huge hex": b"recipe: image_tiny\ntrain: {updates: 0x" + b"f" * 9000 + b"}",
    "python": b"!!python/object/apply:os.system ['touch canary']",
    "markup": b'{"state": "<script>document.title=1</script>", "message": "<img src=x onerror=document.title=1>"}',
}
FILES = {
    "config.yaml": ("resume", "report", "compare", "convert", "evaluate"),
    "environment.json": ("report", "compare", "evaluate", "resume"),
    "status.json": ("report", "compare", "resume"),
    "metrics.jsonl": ("report", "compare", "resume"),
    "data.json": ("report", "resume"),
    "scores.json": ("report", "compare", "evaluate", "resume"),
    "other_scores.json": ("report", "compare", "evaluate"),
    "split.json": ("evaluate",),
    "checkpoints/step-12/state.json": ("resume", "convert"),
    "exported/config.json": ("evaluate", "embed", "export", "convert export", "predict", "finetune"),
    "exported/preprocessor_config.json": ("evaluate", "embed", "export", "predict", "finetune"),
    "masks.npz": ("report",),
    "transcripts.jsonl": ("report",),
}
"""Files of a run, and the verbs that read them."""


def command(verb: str, run: Path, data: Path, out: Path) -> list[object]:
    quick = words("--train.updates 1 --train.batch-size 8 --train.device cpu --train.processes 1")
    return {
        "resume": ["pretrain", "image_tiny", data, "--out", run, *PRETRAINED, "--resume"],
        "report": ["report", run],
        "compare": ["report", run, run.with_name("other"), "--out", out / "page.html"],
        "convert": ["convert", run, out / "file.pt", "--to", "fairseq"],
        "convert export": ["convert", run / "exported", out / "file.pt", "--to", "fairseq"],
        "evaluate": ["evaluate", run, data, "--max-samples", 60],
        "embed": ["embed", run, data, "--out", out / "features.npy"],
        "export": ["export", run, out / "program", "--to", "torch"],
        "predict": ["predict", run, data],
        "finetune": ["finetune", "classify", run, data, "--out", out / "tuned", *quick],
    }[verb]


QUICK = {("metrics.jsonl", "report"), ("status.json", "report"), ("checkpoints/step-12/state.json", "convert")}


@pytest.mark.parametrize(
    ("file", "verb"),
    [
        pytest.param(file, verb, marks=[] if (file, verb) in QUICK else pytest.mark.fault)
        for file, verbs in FILES.items()
        for verb in verbs
    ],
)
def test_a_hostile_file_in_a_run(
    tmp_path: Path, pretrained: Path, small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    file: str, verb: str,
) -> None:  # fmt: skip
    """Each verb that reads it ends well, or says what is wrong with which file."""
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for kind, content in CONTENTS.items():
        run = shutil.copytree(pretrained, tmp_path / kind / "run")
        shutil.copytree(pretrained, tmp_path / kind / "other")
        (run / file).write_bytes(content)
        try:
            code = run_here(command(verb, run, small, tmp_path / kind))
        except BaseException as error:
            wrong[kind] = repr(error)[:500]
            continue
        said = capsys.readouterr().err
        if code not in (0, 1, 2) or "Traceback" in said or (code and Path(file).name not in said):
            wrong[kind] = f"{code}: {said[-500:]}"
        if len(said) > 20_000:
            wrong[kind] = f"{len(said)} bytes are said"
        for page in (run / "report.html", tmp_path / kind / "page.html"):
            if page.exists():
                assert "<script>document" not in page.read_text() and "<img src=x" not in page.read_text()
    assert not (tmp_path / "canary").exists()
    assert not wrong


# What unpacks to more than there is room for


def tarred(content: bytes) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            member = tarfile.TarInfo("a.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        return file.getvalue()


ZEROS = bytes(8 << 20)
BOMBS: dict[str, Callable[[], bytes]] = {
    "train-images-idx3-ubyte.gz": lambda: gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 8, 1024, 1024) + ZEROS),
    "a.npz": lambda: compressed(np.zeros((8, 1024, 1024), np.uint8)),
    "a.tar.gz": lambda: gzip.compress(tarred(ZEROS)),
    "a.tar.xz": lambda: lzma.compress(tarred(ZEROS)),
    "a.tar.bz2": lambda: bz2.compress(tarred(ZEROS)),
    "a.txt.gz": lambda: gzip.compress(ZEROS),
    "a.json.xz": lambda: lzma.compress(b"[" + b" " * (8 << 20)),
    "a.csv.bz2": lambda: bz2.compress(b"text,label\n" + ZEROS),
    "a.tar.zst": lambda: pa.compress(tarred(ZEROS), "zstd", asbytes=True),
}


def compressed(array: Any) -> bytes:
    with io.BytesIO() as file:
        np.savez_compressed(file, images=array)
        return file.getvalue()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "PLAUSIBLE", 4 << 20)
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    assert run_here(["inspect", path]) == 1
    assert f"{path} unpacks to more than" in " ".join(capsys.readouterr().err.split())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_bomb_in_a_report_is_a_sentence(tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PLAUSIBLE", 4 << 20)
    run = shutil.copytree(pretrained, tmp_path / "run")
    (run / "masks.npz").write_bytes(compressed(np.zeros((8, 1024, 1024), np.uint8)))
    assert run_here(["report", run]) == 0
    assert "unpacks to more than" in (run / "report.html").read_text()
