"""What files of sound say of their lengths, and where in a file the sound begins.

Nothing here is decoded: chunks of WAV and AIFF, boxes of MP4, pages of Ogg, frames of MP3.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from data2vec2.data.source import BadSample

_UNKNOWN = 0x7F000000  # sizes from here on are what programs write that can't know them
_FULL = b"\xff" * 4  # such a size
_SEARCHED = 1 << 20  # bytes that are searched at once, and in which the first frame of an MP3 is looked for


def at(file: BinaryIO, place: int, count: int) -> bytes:
    """So many bytes from a place on, or what there is of them."""
    file.seek(place)
    return file.read(count)


def after_tags(file: BinaryIO, start: int) -> int:
    """Where the first thing begins that is no ID3v2 tag."""
    while (tag := at(file, start, 10))[:3] == b"ID3" and len(tag) == 10:
        length = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        start += 10 + length + (10 if tag[5] & 0x10 else 0)
    return start


def without_length(head: bytes) -> bytes:
    """The beginning of a FLAC without its number of samples, which are the last 36 bits of these 26 bytes."""
    return head[:21] + bytes([head[21] & 0xF0, 0, 0, 0, 0]) if len(head) >= 26 else b""


_CHUNKS = {  # a name and a size, where the first chunk is, which is the sound, what sizes count too, and their steps
    b"RIFF": ("<4sI", 12, b"data", 0, 2),
    b"RIFX": (">4sI", 12, b"data", 0, 2),
    b"RF64": ("<4sI", 12, b"data", 0, 2),
    b"BW64": ("<4sI", 12, b"data", 0, 2),
    b"FORM": (">4sI", 12, b"SSND", 0, 2),
    b"riff": ("<4s12xQ", 40, b"data", 24, 8),
    b"caff": (">4sq", 8, b"data", 0, 1),
}


_OTHERS = b".snd", b"NIST", b"Crea"
"""How other files begin that say how long they are."""
PADDING = 7
"""Bytes at most that the last chunk may lack."""
JOINED = "several files joined into one"
"""What is no file of its kind any more: a decoder hears the first one, or headers as sound."""


def checked_chunks(file: BinaryIO, start: int, size: int) -> tuple[bytes, int]:
    """What to show of the beginning of a file of chunks, AU, SPHERE or VOC, and how many bytes are beyond its claim.

    The size of the sound may be none, as where a recorder lost power: it then has what there is. Raises `BadSample`
    where another such file follows, or an MP4 behind an MP4.
    """
    head, end = _claimed(file, start, size)
    around = at(file, max(0, end - PADDING), PADDING + 8)
    if any(name in around[: PADDING + 4] for name in (*_CHUNKS, *_OTHERS)) or around[PADDING + 4 :] == b"ftyp":
        raise BadSample(JOINED)
    return head, size - end


def _claimed(file: BinaryIO, start: int, size: int) -> tuple[bytes, int]:
    """What to show of the beginning, and where a file ends by its own account."""
    magic = at(file, start, 12)
    if magic[:4] == b".snd" and len(magic) == 12:
        offset, length = struct.unpack(">II", magic[4:])
        return (magic[:8] + _FULL, size) if not 0 < length < _UNKNOWN else (b"", start + offset + length)
    if magic[:8] == b"NIST_1A\n":
        fields = at(file, start, 1024)
        said = dict(re.findall(rb"(channel_count|sample_count|sample_n_bytes) -[is]\d* (\d+)", fields))
        is_plain = len(said) == 3 and b"embedded" not in fields  # else compressed
        length = math.prod(map(int, said.values())) if is_plain else 0
        return b"", start + int(at(file, start + 8, 8)) + length if length else size
    if magic == b"Creative Voi":
        place = start + int.from_bytes(at(file, start + 20, 2), "little")
        while len(block := at(file, place, 4)) == 4 and block[0] and block not in _OTHERS:
            place += 4 + int.from_bytes(block[1:], "little")
        return b"", min(place + (block[:1] == b"\0"), size)
    if magic[4:8] == b"ftyp":
        place = start
        while len(box := at(file, place, 16)) == 16 and (place == start or box[4:8] != b"ftyp"):
            length = int.from_bytes(box[8:] if box[:4] == b"\0\0\0\1" else box[:4], "big")
            place += max(8, length) if length else size
        return b"", min(place, size)
    form, first, sound, more, step = _CHUNKS.get(magic[:4], ("", 0, b"", 0, 1))
    width, place, found, wide = struct.calcsize(form), start + first, -1, 0
    while form and len(chunk := at(file, place, width)) == width:
        name, length = struct.unpack(form, chunk)
        if name == b"ds64":  # the size of the sound in an RF64
            wide = int.from_bytes(at(file, place + 16, 8), "little")
        if name == sound:
            found = place + width
            if length < 0:
                return at(file, start, found - start - 8) + struct.pack(">q", size - found), size
            if width == 8 and length >= _UNKNOWN and not (length := wide):
                return b"", size
        elif chunk.startswith((b"ID3", b"TAG", b"APETAGEX")):
            return b"", size
        elif name in _CHUNKS or not (name.isascii() and name.decode().isprintable()):
            break
        place += width + -(-max(0, length - more) // step) * step
        if place >= size and name != sound:  # only what follows the sound is cut off
            return b"", size
    if found < 0:
        return b"", size
    if place == found < size:
        return at(file, start, found - start - 4) + _FULL, size
    return b"", place


def links(file: BinaryIO, start: int, size: int) -> list[tuple[int, int]]:
    """Where the links of a chain begin and end: Ogg files one behind the other."""
    first_pages = [
        place + match.start()
        for place in range(start, size, _SEARCHED)
        for match in re.finditer(rb"OggS\0[\2\3\6\7]", at(file, place, _SEARCHED + 5))
    ]
    starts, end = [], -1
    for place in first_pages:
        if place != end:  # else it begins together with the one before
            starts.append(place)
        table = at(file, place + 26, 256)
        end = place + 27 + table[0] + sum(table[1 : 1 + table[0]])
    return list(zip(starts or [start], [*starts[1:], size], strict=True))


def is_cut(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the last page of a link is not all there."""
    place = max(start, stop - 65_307)  # a page is no longer
    table = (end := at(file, place, stop - place))[end.rfind(b"OggS\0") + 26 :]
    return bool(table) and len(table) < 1 + table[0] + sum(table[1 : 1 + table[0]])


def payload(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """What the pages of the first stream of a link hold."""
    serial = b""
    while start < stop:
        head = at(file, start, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            raise BadSample("damaged")
        serial = serial or head[14:18]
        length = sum(table := file.read(head[26]))
        if head[14:18] == serial:
            yield file.read(length)
        start += 27 + len(table) + length


_LAYER_3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBITS = {  # by whether it is MPEG 1, and by layer
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): _LAYER_3,
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}


def frame_bytes(head: bytes) -> int:
    """Size of the frame of MPEG audio that begins so; 0: it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE2 or head[1] & 0x18 == 0x08 or not head[1] & 6:
        return 0
    layer, kbits, rate, padding = 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if kbits in (0, 15) or rate == 3:
        return 0
    version = {0x18: 1, 0x10: 2, 0x00: 4}[head[1] & 0x18]
    bits = 1000 * _KBITS[version == 1, layer][kbits - 1]
    hertz = (44_100, 48_000, 32_000)[rate] // version
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version > 1 else 144) * bits // hertz + padding


def first_frame(file: BinaryIO, start: int, size: int) -> int | None:
    """Where four frames of one kind follow each other, from `start` on."""
    for match in re.finditer(rb"\xff[\xe2-\xff]", at(file, start, _SEARCHED)):
        place, kinds = start + match.start(), set[tuple[int, int]]()
        for _ in range(4):
            length = frame_bytes(head := at(file, place, 4))
            place += length
            if not length or place > size or len(kinds | {(head[1] & 0xFE, head[2] & 0x0C)}) > 1:
                break
            kinds.add((head[1] & 0xFE, head[2] & 0x0C))
        else:
            return start + match.start()
    return None


def mp3_start(file: BinaryIO, start: int, size: int) -> tuple[int, bool]:
    """Where an MP3 begins, and whether its tag says how long it is.

    A tag that claims less than there is, as the first of several files that were put together does, is left out.
    """
    if (found := first_frame(file, start, size)) is None and size - start > 10_000:  # of which there may be too few
        raise BadSample("not audio")
    length = frame_bytes(at(file, start := start if found is None else found, 4))
    tag = re.search(rb"(?:Xing|Info)...(.)(.{8})", at(file, start, min(length, 200)), re.DOTALL)
    if tag is None:
        return start, False
    flags, counts = tag[1][0], tag[2]
    claimed = int.from_bytes(counts[4:] if flags & 1 else counts[:4], "big") if flags & 2 else 0
    if not claimed or first_frame(file, after_tags(file, start + claimed) + length, size) is not None:
        return start + length, False
    return start, True
