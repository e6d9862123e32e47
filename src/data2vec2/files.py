"""Files and folders that are there whole or not at all, whenever the process dies, and what can go wrong with them.

Also what is read of others: JSON and YAML without surprises; checksums; the cache folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data2vec2.errors import UsageError, UserError

R = TypeVar("R")
CACHE_HINT = "; XDG_CACHE_HOME names another folder"
"""What the user can do where the cache folder can't be written."""
ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "ulimit -f allows no larger file",
    errno.EROFS: "nothing can be written there",
}
"""What is said beside the operating system's reason."""
PLAUSIBLE, RATIO = 1 << 30, 100
"""Bytes that any compressed file may unpack to, and how many times its own size a larger one."""
HIDDEN = "***"
_PART = "(?:key|token|secret|password|signature|sig|credential|auth)"
_IN_ADDRESS = re.compile(rf"(?i)((?<=://)(?=[^/?#@\s]+@)|[?&;][^=&\s]*{_PART}[^=&\s]*=)[^@&#\s]+|\bhf_\w{{16,}}")


def masked(text: str) -> str:
    """The same with `***` for keys, tokens and passwords in addresses."""
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}", text)


class WriteError(UserError):
    """Something could not be written; the message says what, why, and what to do."""

    def __init__(self, path: Path, number: int, hint: str = "") -> None:
        """`number` is the operating system's (`errno`)."""
        advice = f"; {ADVICE[number]}" if number in ADVICE else ""
        super().__init__(f"can't write {path}: {os.strerror(number)}{advice}{hint}")


@contextmanager
def whole_file(path: Path, *, exclusive: bool = False, shared: bool = False, hint: str = "") -> Iterator[Any]:
    """Open a binary file under a temporary name beside `path`, whose name it takes if the block succeeds.

    If the block fails, `path` is as before and the temporary file is gone; one that a killed process left is replaced.
    `exclusive` refuses it instead, as another process may be writing it; `shared` lets several processes write `path`
    at once, the last of which wins. `WriteError`, with `hint` at its end, where the file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp" if shared else f".{path.name}.tmp")
    if exclusive and temporary.exists():
        raise UserError(
            f"{temporary} exists: another process is writing {path}, or was killed while it did; "
            "if no one is, --overwrite replaces it"
        )
    ours = True  # even if a signal comes before `open` has returned
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb" if exclusive else "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        ours = not (exclusive and isinstance(error, FileExistsError))
        if (number := _number(error)) is None:
            raise
        raise WriteError(path, number, hint) from error
    finally:
        if ours:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False, hint: str = "") -> Iterator[Path]:
    """Make a folder under a temporary name beside `folder`, whose name it takes if the block succeeds.

    All is flushed to the disk first, and files may be read by whom the folder lets in. If the block fails, `folder` is
    as before and the temporary folder is gone. With `replace`, what is there is moved aside and then deleted.
    `WriteError`, with `hint` at its end, where the folder can't be written or is there already.
    """
    folder, token = folder.resolve(), secrets.token_hex(4)
    new, old = folder.with_name(f".{folder.name}.{token}.tmp"), folder.with_name(f".{folder.name}.{token}.old.tmp")
    try:
        new.mkdir(parents=True)
        yield new
        for path in (*new.rglob("*"), new):
            if path.is_file():  # safetensors' own are for their owner alone
                path.chmod(new.stat().st_mode & 0o666)
            _flush(path)
        if replace and folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        _flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        if (number := _number(error)) is None:
            raise
        raise WriteError(folder, number, hint) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where copies are kept: data2vec2 in XDG_CACHE_HOME, or in .cache of the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data2vec2"


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process has left of files and folders in `folder`, in which no other process may write."""
    for left in (*folder.glob(".*.tmp"), *folder.glob(".*.old-*")):  # the second by earlier versions
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def parse_json(text: str | bytes) -> Any:
    """What a text in JSON holds; `ValueError` for another, also for one that is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `UserError` where there is none."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; it must hold an object")
    return value


def check_unpacked(path: Any, size: int, packed: int) -> None:
    """`UserError` if `size` bytes of unpacked content are more than a file of `packed` bytes plausibly holds."""
    if size > PLAUSIBLE and size > RATIO * packed:
        raise UserError(
            f"{path} unpacks to more than {PLAUSIBLE >> 30} GiB and {RATIO} times its size, as files do that were made "
            "to fill a machine's memory or disk; if it is right, unpack it yourself and give what comes out"
        )


def unpacked(path: Any, opener: Callable[[Any], Any], packed: int | None = None) -> Iterator[bytes]:
    """The content of a compressed file (a path, or what opens like one, of `packed` bytes), piece by piece.

    `UserError` as of `check_unpacked`.
    """
    size, packed = 0, path.stat().st_size if packed is None else packed
    with path.open("rb") as raw, opener(raw) as file:
        while piece := file.read(1 << 20):
            check_unpacked(path, size := size + len(piece), packed)
            yield piece


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a `.npz` file; `UserError` as of `check_unpacked`, `ValueError` and zip's errors for another."""
    import numpy as np

    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array, not an archive of arrays")
    with file:
        assert file.zip is not None
        check_unpacked(path, sum(member.file_size for member in file.zip.infolist()), path.stat().st_size)
        return {name: file[name] for name in file.files}


class _Plain(yaml.SafeLoader):
    """YAML without aliases, ten lines of which can stand for more values than any memory has."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name); write the value out")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> Any:
        value = super().construct_yaml_int(node)
        if value.bit_length() > 8_192:  # Python can't write it in decimals
            raise yaml.YAMLError("it has a number of thousands of digits")
        return value


_Plain.add_constructor("tag:yaml.org,2002:int", _Plain.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """What a text in YAML holds; `ValueError` for another, also for one too deep to be read, or with aliases."""
    try:
        return yaml.load(text, Loader=_Plain)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path, read: Callable[[Any], R]) -> R:
    """What `read` makes of a run folder's configuration; `UserError` if it can't be read."""
    try:
        return read(parse_yaml(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as the configuration of a run: {error}") from error


def _number(error: BaseException | None) -> int | None:
    """What the operating system says (`errno`) of a write that failed; None for another error.

    Such as Arrow's of a damaged table, which is an OSError without a number.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, UserError | UsageError):  # which say themselves what could not be read or written
        return None
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # of safetensors
        return int(found[1])
    if re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # of NumPy
        return errno.ENOSPC
    return _number(error.__context__) if error and "inline_container" in str(error) else None  # of torch.save


def _flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open folders; its renames are flushed with the volume
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
