"""Files of sound are decoded to their ends, whatever their headers say of how long they are.

libsndfile gives no more than a header claims, so it is shown none: FLAC without its number of samples, an MP3 from its
first frame on with a size that no guess falls short of, the links of an Ogg chain one by one. What it can't read at all
is left to ffmpeg, where PyAV is installed.

Shapes: `S` frames, `C` channels.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from data2vec2.data.source import BadSample

EXTENSIONS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf", ".sph")
)
FFMPEG_EXTENSIONS = frozenset(
    (".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".mov", ".amr", ".3gp", ".ac3", ".ape", ".wv")
)
"""Extensions of what only ffmpeg decodes."""
NEEDS_FFMPEG = "needs pip install 'data2vec2[ffmpeg]'"
"""Why a recording can't be read that libsndfile does not know and ffmpeg does."""
SLACK_S = 0.25
"""Seconds by which a file may be shorter or longer than it says."""
_BLOCK = 1 << 16  # numbers that are decoded at once
_UNKNOWN = 0x7F000000  # sizes from here on are what programs write that can't know them
_FULL = b"\xff" * 4  # such a size
_ENDLESS = 1 << 50  # bytes; the length of an MP3 is guessed from its size
_SEARCHED = 1 << 20  # bytes in which the first frame of an MP3 is looked for
_NOT_RECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_PLAIN = dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1) | {"PCM_16": 2, "PCM_24": 3}
_PLAIN |= {"PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}  # bytes of a number

Blocks = Iterator[NDArray[np.float32]]


@dataclass(frozen=True)
class Sound:
    """A file that is open to be decoded."""

    rate: int
    blocks: Callable[[int, float], Blocks]
    """Blocks `SC` from a frame on, and of about so many frames at most; raises `BadSample` or what else goes wrong."""
    frames: int | None = None
    """How many there are, where they are plain numbers whose bytes are there; None: decoding tells."""


@contextmanager
def opened(file: BinaryIO) -> Iterator[Sound]:
    """What decodes a file, as long as it stays open; whatever goes wrong inside the block is a `BadSample`."""
    try:
        with ExitStack() as stack:
            yield _sound(file, stack)
    except BadSample:
        raise
    except Exception as error:
        raise BadSample("too large" if isinstance(error, MemoryError) else "damaged") from error


def _sound(file: BinaryIO, stack: ExitStack) -> Sound:
    size = file.seek(0, io.SEEK_END)
    if not size:
        raise BadSample("empty file")
    start = _after_tags(file, 0)
    magic = _at(file, start, 36)
    try:
        if magic.startswith(b"OggS"):
            return _joined([_link(file, *link, stack) for link in _links(file, start, size)])
        if magic.startswith(b"fLaC"):
            return _by_libsndfile(_Part(file, start, size, _without_length(magic)), stack)
        if magic[:1] == b"\xff" and magic[1:2] >= b"\xe0":
            return _mp3(file, start, size, stack)
        head, excess = _checked_chunks(file, start, size)
        return _by_libsndfile(_Part(file, start, size, head), stack, excess)
    except soundfile.LibsndfileError as error:
        if error.code != _NOT_RECOGNISED:
            raise
        if _FFMPEG.match(magic):
            return _by_ffmpeg(file, start, size, stack)
        if _first_frame(file, start, size) is not None:
            return _mp3(file, start, size, stack)
        raise BadSample("not audio") from error


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _after_tags(file: BinaryIO, start: int) -> int:
    """Where the first thing begins that is no ID3v2 tag."""
    while (tag := _at(file, start, 10))[:3] == b"ID3" and len(tag) == 10:
        length = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        start += 10 + length + (10 if tag[5] & 0x10 else 0)
    return start


# libsndfile


class _Part:
    """A part of a file as libsndfile calls it: these calls must not raise, for the error would be printed and lost."""

    def __init__(self, file: BinaryIO, start: int, stop: int, head: bytes = b"", endless: bool = False) -> None:
        """`head` stands in for the part's first bytes; an `endless` one pretends to have no end."""
        self.file, self.start, self.size, self.place = file, start, stop - start, 0
        self.head, self.endless = head, endless

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = _ENDLESS if self.endless and not offset else self.size
        place = (0, self.place, end)[whence] + offset
        if place >= 0:  # damaged headers ask for places before the start
            self.place = place
        return self.place

    def read(self, count: int = -1) -> bytes:
        content = self.head[self.place : self.place + count]
        with suppress(OSError):
            self.file.seek(self.start + self.place + len(content))
            content += self.file.read(max(0, min(count, self.size - self.place) - len(content)))
        self.place += len(content)
        return content


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read on and on: soundfile itself seeks after each read, and cuts what a header does not claim."""

    def seekable(self) -> bool:
        return False

    @property
    def can_seek(self) -> bool:
        return bool(super().seekable())


def _by_libsndfile(part: _Part, stack: ExitStack, excess: int = 0) -> Sound:
    """`excess`: bytes that there are beyond (negative: less than) what the file says of itself."""
    decoder = stack.enter_context(_Decoder(part))
    rate, width = decoder.samplerate, _PLAIN.get(decoder.subtype, 0) * decoder.channels
    if not 1_000 <= rate <= 1_000_000:
        raise BadSample("damaged")
    if abs(excess) > SLACK_S * rate * (width or (part.size - excess) / max(1, decoder.frames)):
        raise BadSample("truncated" if excess < 0 else "longer than its header says")
    is_known = bool(width) and 0 <= decoder.frames * width <= part.size

    def blocks(start: int, count: float) -> Blocks:
        place = 0
        if start and decoder.can_seek:
            try:
                place = decoder.seek(min(start, decoder.frames))
            except soundfile.LibsndfileError as error:  # FLAC, behind its end
                raise BadSample("truncated") from error
        stop = min(start + count, decoder.frames)
        while place < stop:
            wanted = int(min(stop - place, max(1, _BLOCK // decoder.channels)))
            block_SC = decoder.read(wanted, dtype="float32", always_2d=True)
            place += len(block_SC)
            yield block_SC[max(0, start - place + len(block_SC)) :]
            if len(block_SC) < wanted:
                if decoder.frames < _ENDLESS and decoder.frames - place > SLACK_S * rate:
                    raise BadSample("truncated")
                return
        rest = part.start + part.place
        if (
            place == decoder.frames
            and "MPEG" in decoder.subtype
            and _first_frame(part.file, rest, part.start + part.size)
        ):
            raise BadSample("longer than its header says")

    return Sound(rate, blocks, decoder.frames if is_known else None)


def _without_length(head: bytes) -> bytes:
    """The beginning of a FLAC without its number of samples, which are the last 36 bits of these 26 bytes."""
    return head[:21] + bytes([head[21] & 0xF0, 0, 0, 0, 0]) if len(head) >= 26 else b""


_CHUNKS = {b"RIFF": ("<4sI", b"data"), b"RIFX": (">4sI", b"data"), b"FORM": (">4sI", b"SSND")}


def _checked_chunks(file: BinaryIO, start: int, size: int) -> tuple[bytes, int]:
    """What to show of the beginning of a WAV, AIFF or AU, and how many bytes there are beyond what it claims.

    The size of the sound may be none, as where a recorder lost power: it then has what there is.
    """
    magic = _at(file, start, 12)
    if magic[:4] == b".snd" and len(magic) == 12:
        offset, length = struct.unpack(">II", magic[4:])
        return (magic[:8] + _FULL, 0) if not 0 < length < _UNKNOWN else (b"", size - start - offset - length)
    form, sound = _CHUNKS.get(magic[:4], ("", b""))
    place, found = start + 12, -1
    while form and len(chunk := _at(file, place, 8)) == 8:
        name, length = struct.unpack(form, chunk)
        if name == sound:
            found = place + 8
            if length >= _UNKNOWN:
                return b"", 0
        elif chunk.startswith((b"ID3", b"TAG", b"APETAGEX")):
            return b"", 0
        elif not (name.isascii() and name.decode().isprintable()):
            break
        place += 8 + length + length % 2
        if place >= size and name != sound:  # only what follows the sound is cut off
            return b"", 0
    if found < 0:
        return b"", 0
    if place == found < size:
        return _at(file, start, found - start - 4) + _FULL, 0
    return b"", size - place


# Ogg


def _links(file: BinaryIO, start: int, size: int) -> list[tuple[int, int]]:
    """Where the links of a chain begin and end: Ogg files one behind the other."""
    first_pages = [
        place + match.start()
        for place in range(start, size, _SEARCHED)
        for match in re.finditer(rb"OggS\0[\2\3\6\7]", _at(file, place, _SEARCHED + 5))
    ]
    starts, end = [], -1
    for place in first_pages:
        if place != end:  # else it begins together with the one before
            starts.append(place)
        table = _at(file, place + 26, 256)
        end = place + 27 + table[0] + sum(table[1 : 1 + table[0]])
    return list(zip(starts or [start], [*starts[1:], size], strict=True))


def _link(file: BinaryIO, start: int, stop: int, stack: ExitStack) -> Sound:
    if b"\x7fFLAC" in _at(file, start, 300):
        flac = b"".join(_payload(file, start, stop))[9:]  # libsndfile knows FLAC by itself alone
        return _by_libsndfile(_Part(io.BytesIO(flac), 0, len(flac), _without_length(flac[:26])), stack)
    return _by_libsndfile(_Part(file, start, stop), stack)


def _payload(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """What the pages of the first stream of a link hold."""
    serial = b""
    while start < stop:
        head = _at(file, start, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            raise BadSample("damaged")
        serial = serial or head[14:18]
        length = sum(table := file.read(head[26]))
        if head[14:18] == serial:
            yield file.read(length)
        start += 27 + len(table) + length


def _joined(links: list[Sound]) -> Sound:
    """Sounds one after another."""
    if len(links) == 1:
        return links[0]
    if len({link.rate for link in links}) > 1:
        raise BadSample("parts of several sample rates")

    def blocks(start: int, count: float) -> Blocks:
        place, channels = 0, 0
        for link in links:
            for block_SC in link.blocks(0, start + count - place):
                channels = channels or block_SC.shape[1]
                if block_SC.shape[1] != channels:
                    raise BadSample("parts of several numbers of channels")
                place += len(block_SC)
                yield block_SC[max(0, start - place + len(block_SC)) :]

    return Sound(links[0].rate, blocks)


# MP3


_KBITS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _frame_bytes(head: bytes) -> int:
    """Size of the frame of MPEG audio, layer III, that begins so; 0: it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return 0
    kbits, rate, version = head[2] >> 4, head[2] >> 2 & 3, {0x18: 1, 0x10: 2, 0x00: 4}[head[1] & 0x18]
    if kbits in (0, 15) or rate == 3:
        return 0
    hertz = (44_100, 48_000, 32_000)[rate] // version
    return (144_000 if version == 1 else 72_000) * _KBITS[min(version, 2)][kbits - 1] // hertz + (head[2] >> 1 & 1)


def _first_frame(file: BinaryIO, start: int, size: int) -> int | None:
    """Where frames follow each other, from `start` on."""
    for match in re.finditer(rb"\xff[\xe2-\xff]", _at(file, start, _SEARCHED)):
        place = first = start + match.start()
        for _ in range(4):
            length = _frame_bytes(_at(file, place, 4))
            place += length
            if not length or place > size:
                break
        else:
            return first
    return None


def _mp3(file: BinaryIO, start: int, size: int, stack: ExitStack) -> Sound:
    """An MP3 from its first frame on; as soon as it claims less than there is, nothing of its tag is believed."""
    if not (length := _frame_bytes(_at(file, start, 4))):
        first = _first_frame(file, start, size)
        if first is None:
            return _by_libsndfile(_Part(file, start, size, endless=True), stack)
        start, length = first, _frame_bytes(_at(file, first, 4))
    tag = re.search(rb"(?:Xing|Info)(...)(.)(.{8})", _at(file, start, min(length, 200)), re.DOTALL)
    if tag is None:
        return _by_libsndfile(_Part(file, start, size, endless=True), stack)
    flags, at = tag[2][0], 4 if tag[2][0] & 1 else 0
    claimed = int.from_bytes(tag[3][at : at + 4], "big") if flags & 2 else 0
    beyond = _after_tags(file, start + claimed)
    if not claimed or (beyond < size and _first_frame(file, beyond + length, size) is not None):
        return _by_libsndfile(_Part(file, start + length, size, endless=True), stack)
    return _by_libsndfile(_Part(file, start, size), stack)


# ffmpeg


_FFMPEG = re.compile(
    rb"....ftyp|\x1aE\xdf\xa3|0&\xb2u\x8ef|#!AMR|\xff[\xf0\xf1\xf8\xf9]|ADIF|\x0bw|wvpk|MAC |TTA1|FLV\x01|\.RMF|DSD ",
    re.DOTALL,
)
"""How files begin that only ffmpeg knows: MP4, Matroska and WebM, WMA, AMR, AAC, AC-3 and others; it gets no others."""


def _by_ffmpeg(file: BinaryIO, start: int, size: int, stack: ExitStack) -> Sound:
    """The first stream of sound, converted to floating point only."""
    try:
        import av
    except ImportError as error:
        raise BadSample(NEEDS_FFMPEG) from error
    try:
        container = stack.enter_context(av.open(_Part(file, start, size), metadata_errors="ignore"))
    except av.FFmpegError as error:
        raise BadSample("damaged") from error
    if not container.streams.audio:
        raise BadSample("no sound in it")
    stream = container.streams.audio[0]
    rate, is_exact = int(stream.rate), "mp4" in container.format.name  # in others times are rounded or guessed
    begin, claimed = stream.start_time or 0, (stream.duration or 0) if is_exact else 0

    def blocks(start: int, count: float) -> Blocks:
        plain, place = av.AudioResampler(format="fltp"), 0
        if start and is_exact:
            container.seek(begin + int(start / rate / stream.time_base), stream=stream)
            place = -1
        for frame in chain(container.decode(stream), (None,)):
            if place < 0:
                place = start if frame is None else round((frame.pts - begin) * stream.time_base * rate)
            for part in plain.resample(frame):
                block_SC = part.to_ndarray().T
                place += len(block_SC)
                yield block_SC[max(0, start - place + len(block_SC)) :]
            if place >= start + count:
                return
        if place < (claimed * stream.time_base - SLACK_S) * rate:
            raise BadSample("truncated")

    return Sound(rate, blocks)
