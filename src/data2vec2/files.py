"""Files and folders that are there whole or not at all, whenever the process dies; checksums; the cache folder."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from data2vec2.errors import UserError

CACHE_HINT = "; XDG_CACHE_HOME names another folder"
"""What the user can do where the cache folder can't be written."""


@contextmanager
def whole_file(path: Path, *, exclusive: bool = False, shared: bool = False, hint: str = "") -> Iterator[Any]:
    """Open a binary file under a temporary name beside `path`, whose name it takes if the block succeeds.

    If the block fails, `path` is as before and the temporary file is gone; one that a killed process left is replaced.
    `exclusive` refuses it instead, as another process may be writing it; `shared` lets several processes write `path`
    at once, the last of which wins. `UserError`, with `hint` at its end, where the file can't be written.
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
    except OSError as error:
        ours = not (exclusive and isinstance(error, FileExistsError))
        _tell(path, error, hint)
    finally:
        if ours:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False, hint: str = "") -> Iterator[Path]:
    """Make a folder under a temporary name beside `folder`, whose name it takes if the block succeeds.

    All is flushed to the disk first. If the block fails, `folder` is as before and the temporary folder is gone.
    With `replace`, what is there is moved aside and then deleted. `UserError`, with `hint` at its end, where the folder
    can't be written or is there already.
    """
    folder, token = folder.resolve(), secrets.token_hex(4)
    new, old = folder.with_name(f".{folder.name}.{token}.tmp"), folder.with_name(f".{folder.name}.{token}.old.tmp")
    try:
        new.mkdir(parents=True)
        yield new
        for path in (*new.rglob("*"), new):
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
    except OSError as error:
        _tell(folder, error, hint)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where copies are kept: data2vec2 in XDG_CACHE_HOME, or in .cache of the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data2vec2"


def _tell(path: Path, error: OSError, hint: str) -> NoReturn:
    """Raise what the user is told; an error without a number, such as Arrow's of a damaged table, is raised again."""
    if error.errno is None:
        raise error
    raise UserError(f"can't write {path}: {error.strerror or error}{hint}") from error


def _flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open folders; its renames are flushed with the volume
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
