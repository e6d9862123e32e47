"""What is written is there whole or not at all, whatever happens to the process."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from data2vec2 import files
from data2vec2.errors import UserError
from data2vec2.files import parse_json, parse_yaml, read_json, sha256_of, unpacked, whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_files_of_a_folder_may_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_folder(tmp_path / "a") as new:
            save_file({"x": torch.zeros(2)}, new / "x.safetensors")
            (new / "y.txt").write_text("y")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o640}


@pytest.mark.parametrize("options", [{}, {"exclusive": True}, {"shared": True}])
def test_a_file_is_there_at_the_end_of_the_block(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "new" / "f"
    for content in (b"one", b"two"):
        with whole_file(path, **options) as file:
            file.write(content)
            assert not path.exists() or path.read_bytes() == b"one"
            assert len(names(tmp_path / "new")) == 1 + path.exists()
        assert (names(tmp_path / "new"), path.read_bytes()) == (["f"], content)


@pytest.mark.parametrize("options", [{}, {"exclusive": True}, {"shared": True}])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file(tmp_path: Path, options: dict[str, bool], error: type[BaseException]) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(error), whole_file(tmp_path / "f", **options) as file:
        file.write(b"new")
        raise error
    assert (names(tmp_path), (tmp_path / "f").read_text()) == (["f"], "old")


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    for path in (tmp_path / "f" / "below", tmp_path / "f" / "far" / "below"):
        with pytest.raises(UserError, match=r"can't write .*below: .*; try"), whole_file(path, hint="; try"):
            raise AssertionError("the file was not opened")
        with pytest.raises(UserError, match=r"can't write .*below: .*; try"), whole_folder(path, hint="; try"):
            raise AssertionError("the folder was not made")
    with pytest.raises(UserError, match="No space left on device; free some space"), whole_file(tmp_path / "g"):
        raise OSError(28, "disk full")
    with pytest.raises(OSError, match="a damaged table"), whole_file(tmp_path / "g"):
        raise OSError("a damaged table")
    assert names(tmp_path) == ["f"]


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with whole_file(tmp_path / "f", exclusive=True) as file:
        refused = whole_file(tmp_path / "f", exclusive=True)
        with pytest.raises(UserError, match=r"another process is writing .*--overwrite replaces it"), refused:
            pass
        file.write(b"first")
    assert (tmp_path / "f").read_bytes() == b"first"
    with whole_file(tmp_path / "g", shared=True) as one, whole_file(tmp_path / "g", shared=True) as other:
        one.write(b"one")
        other.write(b"the other")
    assert (tmp_path / "g").read_bytes() == b"one", "the last to end"
    assert names(tmp_path) == ["f", "g"]


def test_a_signal_as_the_file_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def interrupted(path: Path, *arguments: Any) -> Any:
        original(path, *arguments).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "f", exclusive=True):
        raise AssertionError("the file was not opened")
    assert not list(tmp_path.iterdir())


def test_a_file_that_another_process_makes_at_the_same_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".f.tmp").write_bytes(b"of another")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(UserError, match="File exists"), whole_file(tmp_path / "f", exclusive=True):
        raise AssertionError("the file was not opened")
    assert (tmp_path / ".f.tmp").read_bytes() == b"of another"


# Folders


def test_a_folder_is_there_at_the_end_of_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for content in ("one", "two"):
        with whole_folder(folder, replace=content == "two") as new:
            (new / "sub").mkdir()
            (new / "sub" / content).write_text(content)
            assert not folder.exists() or names(folder / "sub") == ["one"]
        assert (names(tmp_path / "new"), names(folder / "sub")) == (["folder"], [content])
    with pytest.raises(UserError, match=r"can't write .*folder"), whole_folder(folder) as new:
        (new / "three").write_text("three")
    assert (names(tmp_path / "new"), names(folder / "sub")) == (["folder"], ["two"])


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_folder(tmp_path: Path, replace: bool, error: type[BaseException]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(error), whole_folder(folder, replace=replace) as new:
        (new / "new").write_text("new")
        raise error
    assert (names(tmp_path), names(folder)) == (["folder"], ["old"])


def test_a_failed_renaming_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, original = tmp_path / "folder", Path.rename
    folder.mkdir()
    (folder / "old").write_text("old")

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp" and target == folder and (path / "new").exists():
            raise OSError(5, "no luck")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UserError, match="Input/output error"), whole_folder(folder, replace=True) as new:
        (new / "new").write_text("new")
    assert (names(tmp_path), names(folder)) == (["folder"], ["old"])


# What is read


def test_json_and_yaml_that_can_not_be_read() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{name}: &{name} [*{last}, *{last}]\n" for last, name in pairwise("abcdefgh"))
    assert parse_yaml("a: [1, 2]\nb: {c: 1.5}") == {"a": [1, 2], "b": {"c": 1.5}}
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(text)
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_yaml(text)
    with pytest.raises(ValueError, match="alias"):
        parse_yaml(bomb)
    for text in ("!!python/object/apply:os.getcwd []", "a: [", "9" * 5000, "\0"):
        with pytest.raises(ValueError):
            parse_yaml(text)


def test_a_json_file_that_holds_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, said in ((b"[1]", "holds a list"), (b"{", "not valid JSON"), (b"\xff", "not valid JSON")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"a.json.*{said}"):
            read_json(path)
    with pytest.raises(UserError, match="No such file"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("mean", [1, 50])
def test_only_what_is_packed_a_hundredfold_and_large_is_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: int
) -> None:
    path, content = tmp_path / "a.gz", random.Random(0).randbytes(1000)
    path.write_bytes(gzip.compress(content * (20 * mean)))
    monkeypatch.setattr(files, "PLAUSIBLE", 20_000)
    assert mean == 1 or len(content) * 20 * mean > 100 * path.stat().st_size
    if mean == 1:
        assert b"".join(unpacked(path, gzip.open)) == content * 20
    else:
        with pytest.raises(UserError, match="unpack it yourself"):
            list(unpacked(path, gzip.open))


# Both


def write_file(path: Path) -> str:
    return f"with whole_file(Path({str(path)!r})) as file:\n    write(file)"


def write_folder(path: Path) -> str:
    return f"with whole_folder(Path({str(path)!r}), replace=True) as new:\n    write((new / 'big').open('wb'))"


@pytest.mark.skipif(os.name == "nt", reason="kills")
@pytest.mark.parametrize("kind", [write_file, write_folder])
def test_a_killed_process_leaves_what_was_there(tmp_path: Path, kind: Callable[[Path], str]) -> None:
    path = tmp_path / "target"
    if kind is write_folder:
        path.mkdir()
    old = path / "big" if kind is write_folder else path
    old.write_text("old")
    program = (
        "from pathlib import Path\nfrom data2vec2.files import whole_file, whole_folder\n"
        "def write(file):\n"
        "    while True:\n"
        "        file.write(b'x' * 100_000)\n"
        "        print('written', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program + kind(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert old.read_text() == "old"
    (left,) = [name for name in names(tmp_path) if name != "target"]
    assert left.startswith(".target.") and left.endswith(".tmp")
    if kind is write_file:
        with whole_file(path) as file:
            file.write(b"new")
        assert (names(tmp_path), path.read_text()) == (["target"], "new"), "what the killed process left is replaced"


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content" * 100_000)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"content" * 100_000).hexdigest()
