"""Files at URLs: read by ranges of bytes, which are kept in pieces in the cache folder (extra `remote`).

A URL may stand for several files: `{000..123}` counts, `{a,b}` lists, `*` is matched by the server's listing, and a
folder is listed as a whole. The pieces lie in `remote` of the cache folder. Where they take more than
`DATA2VEC2_CACHE_GIB` (20) together, those that were not read for the longest time are deleted. A server that does not
answer is asked again, with longer and longer pauses, for `DATA2VEC2_WAIT_S` seconds (300).
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from data2vec2.data.kept import keep, kept, say, setting
from data2vec2.data.source import extension_of
from data2vec2.errors import UserError

T = TypeVar("T")
S = TypeVar("S")
PIECE = 1 << 18
"""Bytes of a piece: about what a server sends in the time that asking takes."""
FORMAT = 1
"""Of what is kept; another number finds nothing that older versions kept."""
_AHEAD = 1 << 22  # bytes that are asked for at once where a file is read from end to end
_AT_ONCE = 8  # files
_CONNECT_S, _SILENCE_S = 10, 30
_LASTING = (401, 403, 404, 405, 410, 416)  # answers that asking again does not change
_VERSIONS = ("etag", "content-md5", "digest", "last-modified", "lastmodified", "mtime", "md5hash", "blob_id", "sha256")
"""What servers and file systems call that by which a file of the same size is known to be another, in any case."""


def is_url(data: str | Path) -> bool:
    """Whether it names something on a server: `https://`, `s3://`, `hf://` and so on."""
    return isinstance(data, str) and re.match(r"[a-z][a-z0-9+.-]+://", data) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL. Can be pickled. All that reads raises `UserError` where the server stays away."""

    url: str
    size: int
    key: str
    """Another one for another URL, size, or version of the file."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """As of a path: what stands behind the last slash."""
        return Path(_path_of(self.url)).name

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """As `Path.open`; without buffering nothing is read ahead."""
        raw = _Ranges(self)
        return io.BufferedReader(raw, _AHEAD) if buffering else raw  # type: ignore[return-value]

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, those that are not kept yet from the server."""
        stop = min(stop, self.size)
        numbers = range(start // PIECE, -(-stop // PIECE))
        pieces = {number: kept(self._piece(number), self._end(number) - number * PIECE) for number in numbers}
        missing = [number for number in numbers if pieces[number] is None]
        while missing:
            run = [number for place, number in enumerate(missing) if number == missing[0] + place]
            content = self.fetch(run[0] * PIECE, self._end(run[-1]))
            for place, number in enumerate(run):
                pieces[number] = content[place * PIECE : (place + 1) * PIECE]
                keep(self._piece(number), pieces[number] or b"")
            missing = missing[len(run) :]
        first = start - numbers.start * PIECE
        return b"".join(piece or b"" for piece in pieces.values())[first : first + max(0, stop - start)]

    def fetch(self, start: int, stop: int) -> bytes:
        """The same bytes, always from the server."""

        def ask() -> bytes:
            content: bytes = _system(self.url).cat_file(self.url, start=start, end=stop)
            if len(content) != stop - start:
                hint = "; it must support ranges" if len(content) > stop - start else ""
                raise OSError(f"the answer has {len(content):,} bytes, not {stop - start:,}{hint}")
            return content

        return asked(self.url, ask) if stop > start else b""

    def _piece(self, number: int) -> str:
        return f"{self.key}/{number}"

    def _end(self, number: int) -> int:
        return min(self.size, (number + 1) * PIECE)


class _Ranges(io.RawIOBase):
    """A remote file that is read from some place on."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self.place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = (0, self.place, self.file.size)[whence] + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        content = self.file.read(self.place, self.place + len(buffer)) if self.place < self.file.size else b""
        memoryview(buffer)[: len(content)] = content
        self.place += len(content)
        return len(content)


@dataclass(frozen=True)
class RemoteFolder:
    """Files that are known by their names below a URL: `folder / name`, as of a path."""

    url: str
    files: Mapping[str, RemoteFile]

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemoteFile:
        return self.files[name]


def find(url: str) -> tuple[str, dict[str, str]]:
    """The folder that a URL is about, and the URLs of all files that it stands for, by their sorted names below it."""
    folder = re.split(r"[{*]", _path_of(url))[0].rpartition("/")[0]
    found: list[str] = []
    for one in _braces(url):
        if "*" in one:
            found += _listed(one, "glob")
        elif extension_of(_path_of(one)):
            found.append(one)
        else:
            folder = one.rstrip("/") if one == url else folder
            found += _listed(one, "find")
    names = {_path_of(one).removeprefix(folder + "/"): one for one in found}
    if not names:
        raise UserError(f"there are no files at {url}; name .tar or .parquet files, as in {folder}/{{000..123}}.tar")
    return folder, dict(sorted(names.items()))


def opened(folder: str, files: Mapping[str, str]) -> RemoteFolder:
    """Files with the sizes and versions that their servers tell now; `UserError` for one that is not there."""
    _system(folder).invalidate_cache()
    return RemoteFolder(folder, dict(zip(files, each(_looked_at, files.values()), strict=True)))


def each(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What a function makes of items, in their order, of several at once."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _path_of(url: str) -> str:
    """A URL without what follows the path of a web page's."""
    return url.partition("?")[0] if url.startswith("http") else url


def _braces(url: str) -> list[str]:
    """The URLs that one with braces stands for, in order."""
    if not (found := re.search(r"\{([^{}]*)\}", url)):
        return [url]
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", found[1]):
        options = [f"{number:0{len(span[1])}}" for number in range(int(span[1]), int(span[2]) + 1)]
    else:
        options = found[1].split(",")
    return [one for option in options for one in _braces(url[: found.start()] + option + url[found.end() :])]


def _listed(url: str, how: Literal["glob", "find"]) -> list[str]:
    system = _system(url)
    return [str(system.unstrip_protocol(path)) for path in asked(url, lambda: list(getattr(system, how)(url)))]


def _looked_at(url: str) -> RemoteFile:
    """Size and version of a file."""

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = _system(url).info(url)
        if found.get("size") is None:
            raise ValueError("its server does not say how large it is")
        return found

    info = asked(url, ask)
    versions = sorted(f"{name}={value}" for name, value in info.items() if name.lower() in _VERSIONS)
    text = "\0".join((url, str(info["size"]), *versions, str(FORMAT)))
    return RemoteFile(url, int(info["size"]), hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32])


@cache
def _of_protocol(protocol: str) -> Any:
    """The file system of fsspec."""
    import fsspec

    if protocol not in ("http", "https"):
        return fsspec.filesystem(protocol)
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    own = {"client_kwargs": {"timeout": timeout}, "headers": {"Accept-Encoding": "identity"}}
    return fsspec.filesystem(protocol, **own)


def _system(url: str) -> Any:
    protocol = url.partition("://")[0]
    try:
        return _of_protocol(protocol)
    except ImportError as error:
        more = "" if protocol in ("http", "https") else f", and a library for {protocol}:// ({error})"
        raise UserError(f"{url} needs pip install 'data2vec2[remote]'{more}") from error
    except ValueError as error:
        raise UserError(f"{url}: {error}; give https://, s3:// or hf://, or a path") from error


def asked(url: str, ask: Callable[[], T]) -> T:
    """What a server answers, which is asked again while there is hope; `UserError` where there is none."""
    begun, pause, tries = time.monotonic(), 0.25, 1
    while True:
        try:
            found = ask()
        except UserError:
            raise
        except Exception as error:  # the list of what libraries raise is open-ended
            reason, lasts = _reason(error)
            if lasts:
                raise UserError(f"{url} can't be read: {reason}; check the URL, and what gives access to it") from error
            waited, patience = time.monotonic() - begun, setting("DATA2VEC2_WAIT_S", 300)
            if waited + pause > patience:
                raise UserError(
                    f"{url} can't be read: {reason} ({tries} tries in {waited:.0f} s); check server and network, then "
                    "go on (a run with --resume). DATA2VEC2_WAIT_S sets how many seconds are waited"
                ) from error
            if tries == 1:
                say(f"{url}: {reason}; it is asked again for up to {patience:g} s")
            time.sleep(pause)
            pause, tries = min(2 * pause, 30), tries + 1
        else:
            if tries > 1:
                say(f"{url}: answered at try {tries}, after {time.monotonic() - begun:.1f} s")
            return found


def _reason(error: BaseException) -> tuple[str, bool]:
    """Why something could not be read, and whether asking again is of no use."""
    root = error
    while root.__cause__ is not None and getattr(root, "status", None) is None:
        root = root.__cause__
    text = f"{getattr(root, 'message', root)}".split("\n", 1)[0] or type(root).__name__
    if status := getattr(root, "status", None):
        return f"the server answers {status} {text}", status in _LASTING
    if isinstance(root, FileNotFoundError):
        return "it does not exist", True
    return text, isinstance(root, PermissionError | IsADirectoryError | ValueError | ImportError)
