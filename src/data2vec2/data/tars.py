"""WebDataset: pictures or recordings in .tar files, which are listed once and then read in place.

The members of a sample share their name but for the extension: "a/07.jpg" has its label in "a/07.cls" (a number or a
word) or in "a/07.json" (under `label` or `labels`); a recording's transcript is in "a/07.txt" or in "a/07.json". Names
may have dots ("scan_2021.05.jpg"); yet beside "a.jpg", "a.seg.jpg" is no sample, unless something describes it alone,
and "a.png" is none. A sample whose description can't be read is a bad one.
What is called as a name up to its first dot ("s1.cls") describes the only sample of that beginning ("s1.input.jpg").
Archives that are joined end to end are read as one; a compressed one is unpacked into the cache folder. What was found
in a remote one is kept there, so that it is read from end to end only once.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data2vec2.data import remote
from data2vec2.data.account import MAX_EXAMPLES, Account
from data2vec2.data.kept import say
from data2vec2.data.labels import COLUMNS
from data2vec2.data.packed import DAMAGE, PACKINGS
from data2vec2.data.source import BadSample, Content, Listing, Spans, Split, by_part, parts_by_name
from data2vec2.errors import UserError
from data2vec2.files import CACHE_HINT, cache_folder, parse_json, unpacked, whole_file

_MAX_BYTES = 1 << 20  # of what describes a sample
_SAYS = (".cls", ".json", ".txt")
_DAMAGE = (*DAMAGE, tarfile.TarError)


class _Member(NamedTuple):
    """A file in an archive."""

    archive: int
    """Which of the archives that are joined in one file."""
    name: str
    offset: int
    size: int
    text: bytes | None = None
    """Its content, if it may describe a sample and is not too long for that."""

    @property
    def extension(self) -> str:
        """What follows the last dot of the name, with it and in small letters; "" for hidden files."""
        first, dot, extension = self.name.rpartition("/")[2].rpartition(".")
        return (dot + extension).lower() if first and not first.startswith(".") else ""

    @property
    def key(self) -> tuple[int, str]:
        """What the members of one sample share."""
        return self.archive, self.name[: len(self.name) - len(self.extension)]

    @property
    def beginning(self) -> tuple[int, str]:
        """The name up to the first dot."""
        folder, slash, stem = self.key[1].rpartition("/")
        return self.archive, folder + slash + stem.partition(".")[0]


def read(root: Path | remote.RemoteFolder, names: Sequence[str], content: Content) -> Listing:
    """The samples in .tar files below `root`, in the parts that these are called after; `UserError` for a bad file."""
    one_by_one = map if isinstance(root, Path) else remote.each
    of_part = by_part(names, str(root))
    parts, account = {}, Account(choices=parts_by_name(of_part))
    for part, files in of_part.items():
        sample_names: list[str] = []
        described: list[dict[str, Any]] = []
        places: list[tuple[int, int, int]] = []
        bad = account.part(part).bad
        paths = list(one_by_one(_unpacked, [root / name for name in files]))
        if packed := [name for name, path in zip(files, paths, strict=True) if path != root / name]:
            which = f"and {len(packed) - 1:,} more are compressed, and were" if packed[1:] else "is compressed, and was"
            account.choices.append(f"{packed[0]} {which} unpacked to {cache_folder()}")
        listed = one_by_one(_listed, [(path, f"{root / name}") for name, path in zip(files, paths, strict=True)])
        for place, (name, (members, replaced)) in enumerate(zip(files, listed, strict=True)):
            samples = _samples(members, content)
            said, faults, read_members = _descriptions(members, samples, content)
            account.beside |= {f"{name}/{one}, an earlier one": "replaced later in the archive" for one in replaced}
            shown: dict[str, _Member] = {}
            for sample in samples:
                again = f"{name}/{sample.name}" in shown  # in archives that are joined
                shown[f"{name}/{sample.name}" + (f"[{sample.archive + 1}]" if again else "")] = sample
            used = {*samples, *read_members}
            account.beside |= {f"{name}/{one.name}": _why_not(one, content) for one in members if one not in used}
            bad |= {called: faults[one.key] for called, one in shown.items() if one.key in faults}
            good = {called: one for called, one in shown.items() if called not in bad}
            sample_names += good
            described += [said.get(one.key, {}) for one in good.values()]
            places += [(place, one.offset, one.size) for one in good.values()]
        if bad and not places:
            first = account.part(part).listed(3)
            raise UserError(f"none of the {content.many} in {', '.join(files)} of {root} can be used:{first}")
        if not places:
            known = ", ".join(sorted(content.extensions))
            raise UserError(f"no {content.many} ({known}) in {', '.join(files)} of {root}")
        labels, texts = ([one.get(what) for one in described] for what in ("label", "transcript"))
        folders = {name.rpartition("/")[0] for name in sample_names}
        if len(folders) > len(files) and not any(described):
            some = ", ".join(sorted(folders)[:MAX_EXAMPLES]) + ", ..." * (len(folders) > MAX_EXAMPLES)
            account.remarks.append(f"folders in archives are neither parts nor classes ({some}); unpack them for that")
        source = Spans(tuple(paths), np.array(places, dtype=np.int64))
        parts[part] = Split(tuple(sample_names), labels, source, texts if content.texts else None)
    return Listing("WebDataset tars", parts, account=account)


Archive = Path | remote.RemoteFile


def _unpacked(path: Archive) -> Archive:
    """The file itself, or for a compressed one its content, which is written to the cache folder if need be."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        opener = next((one.opener for one in PACKINGS.values() if start.startswith(one.magic)), None)
        if opener is None:
            return path
        if isinstance(path, Path):
            stat = path.stat()
            identity = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        else:
            identity = path.key
        key = hashlib.sha256(f"{identity}\0tar".encode()).hexdigest()[:32]
        copy = cache_folder() / f"{key}.tar"
        if not copy.is_file():
            hint = f", where {path} is unpacked for random access{CACHE_HINT}"
            with whole_file(copy, shared=True, hint=hint) as file:
                file.writelines(unpacked(path, opener, None if isinstance(path, Path) else path.size))
    except _DAMAGE as error:
        raise UserError(f"can't unpack {path}: {error}; download or create it again") from error
    return copy


Listed = tuple[list[_Member], list[str]]


def _listed(given: tuple[Archive, str]) -> Listed:
    """What `_members` finds in a file that is called so; of a remote one as it was kept, if it was."""
    path, where = given
    index = None if isinstance(path, Path) else cache_folder() / f"index-{path.key}.json"
    if index:
        with suppress(OSError, ValueError, KeyError, TypeError):
            held = parse_json(index.read_bytes())
            rows = [(*one[:4], None if one[4] is None else one[4].encode("latin-1")) for one in held["members"]]
            return [_Member._make(row) for row in rows], held["replaced"]
        say(f"{where} is read from end to end once, to find what is in it")
    try:
        with path.open("rb") as file:
            members, replaced = _members(file, where)
    except _DAMAGE as error:
        raise UserError(f"can't read {where} as a .tar file: {error}; download or create it again") from error
    if index:
        rows = [(*one[:4], None if one.text is None else one.text.decode("latin-1")) for one in members]
        with whole_file(index, shared=True, hint=f", where what is in {where} is kept{CACHE_HINT}") as kept:
            kept.write(json.dumps({"members": rows, "replaced": replaced}).encode())
    return members, replaced


def _members(file: BinaryIO, path: str) -> Listed:
    """All files in the archives that are joined in one; of those of the same name in one archive the last.

    And the names of those that are replaced so.
    """
    found: dict[tuple[int, str], _Member] = {}
    replaced = list[str]()
    start, archive = 0, 0
    while start >= 0:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all it has seen
                if _checked(member, path):
                    name = member.name.removeprefix("./")
                    if (archive, name) in found:
                        replaced.append(name)
                    one = _Member(archive, name, member.offset_data, member.size)
                    if one.extension in _SAYS and one.size <= _MAX_BYTES:
                        file.seek(one.offset)
                        one = one._replace(text=file.read(one.size))
                    found[archive, name] = one
            end = tar.offset
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
            raise UserError(f"{path} is damaged or cut off after {end:,} bytes; download or create it again")
        start, archive = _next_archive(file), archive + 1
    return list(found.values()), replaced


def _next_archive(file: BinaryIO) -> int:
    """Where the next archive begins, behind zeros; -1: nowhere."""
    while block := file.read(1 << 16):
        if rest := block.lstrip(b"\0"):
            return (file.tell() - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    return -1


def _checked(member: tarfile.TarInfo, path: str) -> bool:
    """Whether a member is a file; `UserError` for what could lead elsewhere."""
    name = member.name.replace("\\", "/")
    if re.match(r"(/|[A-Za-z]:/)", name) or ".." in name.split("/"):
        raise UserError(f"{path} has a member {member.name!r}, whose path leaves the archive; remove it")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(f"{path} has a member {member.name!r}, which is not a regular file; remove it")
    return member.isreg()


def _describe(content: Content) -> tuple[str, ...]:
    """Extensions of what describes a sample."""
    return _SAYS if content.texts else _SAYS[:2]


def _samples(members: Sequence[_Member], content: Content) -> list[_Member]:
    """Those that are samples, and not another picture or recording of one, as "a.png" may be the mask of "a.jpg"."""
    able = [one for one in members if one.extension in content.extensions]
    keys: dict[tuple[int, str], _Member] = {}
    for one in sorted(able, key=lambda one: (one.extension == ".png", one.extension)):
        keys.setdefault(one.key, one)
    able = [one for one in able if keys[one.key] is one]
    described = {one.key for one in members if one.extension in _describe(content)}

    return [one for one in able if one.key == one.beginning or one.key in described or one.beginning not in keys]


def _descriptions(
    members: Sequence[_Member], samples: Sequence[_Member], content: Content
) -> tuple[dict[tuple[int, str], dict[str, Any]], dict[tuple[int, str], str], list[_Member]]:
    """The "label" and the "transcript" of samples by key, why others can't be read, and the members that say either."""
    count, used = Counter(one.beginning for one in samples), []
    of = {one.beginning: one.key for one in samples if count[one.beginning] == 1} | {
        one.key: one.key for one in samples
    }
    said: dict[tuple[int, str], dict[str, Any]] = {}
    faults: dict[tuple[int, str], str] = {}
    for one in members:
        if one.extension in _describe(content) and (key := of.get(one.key)):
            try:
                found = _described(one, content)
            except BadSample as error:
                faults[key] = error.reason
                used.append(one)
                continue
            if known := {what: value for what, value in found.items() if value is not None}:
                said[key] = said.get(key, {}) | known
                used.append(one)
    return said, faults, used


def _described(member: _Member, content: Content) -> dict[str, Any]:
    """The "label" and the "transcript" in a .cls, .txt or .json member, as far as it has them; raises `BadSample`."""
    if member.text is None:
        raise BadSample(f"{member.extension} of too many bytes for a label or a transcript")
    what = "transcript" if member.extension == ".txt" else "label"
    try:
        text = member.text.decode("utf-8-sig")
        described = parse_json(text) if member.extension == ".json" else text.strip()
    except ValueError as error:
        raise BadSample(f"{member.extension} that can't be read") from error
    if isinstance(described, list) and not all(isinstance(one, str | int) for one in described):
        return {}  # of boxes, say
    if not isinstance(described, dict):
        return {what: described}
    known = {"label": COLUMNS, "transcript": content.texts}
    return {key: next((described[name] for name in among if name in described), None) for key, among in known.items()}


def _why_not(one: _Member, content: Content) -> str:
    """Why a member is no sample, and describes none."""
    name = one.name.rpartition("/")[2]
    if name.startswith("."):
        return "hidden"
    if one.extension in _describe(content):
        return f"{one.extension} that describes no sample"
    return name[name.index(".") :].lower() if one.extension in content.extensions else one.extension or "no extension"
