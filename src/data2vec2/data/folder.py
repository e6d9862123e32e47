"""Finding pictures in a folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data2vec2.errors import UserError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class FolderPart:
    """The pictures of one part: names relative to the root (posix, sorted) and the label of each ("" is none)."""

    names: tuple[str, ...]
    labels: tuple[str, ...]


def scan(root: Path) -> tuple[list[str], dict[str, int]]:
    """Names of all pictures below `root` (posix, sorted), and how many other files there are of each extension.

    Hidden files and folders are skipped. Links are followed, except a link to a folder that holds it. A link to
    nothing counts as a file, so that it is reported when it is read. `UserError` for a folder that can't be listed.
    """
    names: list[str] = []
    others: Counter[str] = Counter()
    todo = [(root, "", frozenset((os.path.realpath(root),)))]
    while todo:
        folder, prefix, ancestors = todo.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(f"can't list the folder {folder}: {error.strerror}") from error
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in ancestors:
                    todo.append((Path(entry.path), name + "/", ancestors | {real}))
            elif entry.is_file() or not Path(entry.path).exists():
                extension = Path(entry.name).suffix.lower()
                if extension in EXTENSIONS:
                    names.append(name)
                else:
                    others[extension or "no extension"] += 1
    return sorted(names), dict(sorted(others.items()))


def split_parts(root: Path, names: list[str]) -> tuple[dict[str, FolderPart], int]:
    """Parts ("train", "val", "test") of the scanned names, and how many pictures lie beside the parts.

    Where the sub-folders with pictures are train and any of val, valid, validation and test (any case), they are the
    parts; else all is "train". A label is the first folder below the part. `UserError` for two folders of one part.
    """
    tops = {name.split("/")[0] for name in names if "/" in name}
    part_of = {top: _PARTS[top.lower()] for top in sorted(tops) if top.lower() in _PARTS}
    if len(part_of) < len(tops) or "train" not in part_of.values():
        return {"train": _part(names, 0)}, 0
    parts: dict[str, FolderPart] = {}
    for top, part in part_of.items():
        if part in parts:
            same = " and ".join(name for name, other in part_of.items() if other == part)
            raise UserError(f"{root} has more than one {part} part: {same}; keep one, or name a folder inside")
        parts[part] = _part([name for name in names if name.startswith(top + "/")], 1)
    return parts, sum("/" not in name for name in names)


def _part(names: list[str], depth: int) -> FolderPart:
    """The part whose labels are the folder names at `depth`."""
    folders = (name.split("/")[:-1] for name in names)
    return FolderPart(tuple(names), tuple(path[depth] if len(path) > depth else "" for path in folders))
