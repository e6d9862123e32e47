"""Files of sound are decoded to their ends, whatever their headers say of how long they are.

libsndfile gives no more than a header claims, so it is shown none: FLAC without its number of samples, an MP3 from its
first frame on with a size that no guess falls short of, the links of an Ogg chain one by one. What it can't read at all
is left to ffmpeg, where PyAV is installed.

Shapes: `S` frames, `C` channels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from data2vec2.data.source import BadSample
from data2vec2.modalities.audio import containers

EXTENSIONS = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .mpga .aiff .aif .aifc .au .w64 .caf .sph .voc".split()  # noqa: SIM905
)
FFMPEG_EXTENSIONS = frozenset(
    ".m4a .m4b .mp4 .aac .wma .webm .mka .mkv .mov .amr .3gp .ac3 .ape .wv .tta .spx".split()  # noqa: SIM905
)
"""Extensions of what only ffmpeg decodes."""
NEEDS_FFMPEG = "needs pip install 'data2vec2[ffmpeg]'"
"""Why a recording can't be read that libsndfile does not know and ffmpeg does."""
OTHER_PARTS = "parts of several sample rates or numbers of channels"
"""What an MP3 is of which the decoder reads the first part only."""
POINTER = "not fetched from Git LFS: run git lfs pull"
"""What is only a pointer to a file."""
SLACK_S = 0.25
"""Seconds by which a file may be shorter or longer than it says."""
_BLOCK = 1 << 16  # numbers that are decoded at once
_ENDLESS = 1 << 50  # bytes; the length of an MP3 is guessed from its size
_NOT_RECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_PLAIN = dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1) | {"PCM_16": 2, "PCM_24": 3}
_PLAIN |= {"PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}  # bytes of a number

Blocks = Iterator[NDArray[np.float32]]


@dataclass(frozen=True)
class Sound:
    """A file that is open to be decoded."""

    rate: int
    blocks: Callable[[int, float], Blocks]
    """Blocks `SC` from a frame on, of about so many frames at most; raises `BadSample` or what else goes wrong."""
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
    if not containers.at(file, 0, 1):
        raise BadSample("empty file")
    size = file.seek(0, io.SEEK_END)
    if not containers.at(file, size - 1, 1):  # a member of an archive that is cut
        raise BadSample("truncated")
    start = containers.after_tags(file, 0)
    if containers.at(file, max(0, size - 128), 3) == b"TAG":  # ID3v1
        size -= 128
    magic, excess = containers.at(file, start, 100), 0
    try:
        if magic.startswith(b"OggS"):
            return _joined([_link(file, *link, stack) for link in containers.links(file, start, size)])
        if magic.startswith(b"fLaC"):
            return _by_libsndfile(_Part(file, start, size, containers.without_length(magic)), stack)
        if magic[:1] == b"\xff" and magic[1] >= 0xE0 and magic[1] & 6:  # else it may be AAC
            return _mp3(file, start, size, stack)
        head, excess = containers.checked_chunks(file, start, size)
        if magic.startswith(b"BW64"):  # as libsndfile calls it
            head = b"RF64" + head[4:]
        return _by_libsndfile(_Part(file, start, size, head), stack, excess)
    except soundfile.LibsndfileError as error:
        if _FFMPEG.match(containers.at(file, start, 1024)):
            if excess < -containers.PADDING:
                raise BadSample("truncated") from error
            return _by_ffmpeg(file, start, size, stack)
        if error.code != _NOT_RECOGNISED:
            raise
        start = start if start < size else 0  # a tag may be wrong, too
        if containers.first_frame(file, start, size) is not None:
            return _mp3(file, start, size, stack)
        raise BadSample(POINTER if magic.startswith(b"version https://git-lfs") else "not audio") from error


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

    def read(self, count: int) -> bytes:
        content = self.head[self.place : self.place + count]
        with suppress(OSError):
            self.file.seek(self.start + self.place + len(content))
            rest = self.file.read(max(0, min(count, self.size - self.place) - len(content)))
            content = content + rest if content else rest
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
                if not part.endless and decoder.frames < _ENDLESS and decoder.frames - place > SLACK_S * rate:
                    raise BadSample("truncated")
                stop = decoder.frames
                break
        rest, end = part.start + part.place, part.start + part.size
        if stop == decoder.frames and "MPEG" in decoder.subtype and containers.first_frame(part.file, rest, end):
            raise BadSample(OTHER_PARTS if part.endless else "longer than its header says")

    return Sound(rate, blocks, decoder.frames if is_known else None)


def _link(file: BinaryIO, start: int, stop: int, stack: ExitStack) -> Sound:
    if containers.is_cut(file, start, stop):
        raise BadSample("truncated")
    if b"\x7fFLAC" in containers.at(file, start, 300):
        flac = b"".join(containers.payload(file, start, stop))[9:]  # libsndfile knows FLAC by itself alone
        return _by_libsndfile(_Part(io.BytesIO(flac), 0, len(flac), containers.without_length(flac[:26])), stack)
    return _by_libsndfile(_Part(file, start, stop), stack)


def _joined(sounds: list[Sound]) -> Sound:
    """Sounds one after another."""
    if len(sounds) == 1:
        return sounds[0]
    if len({sound.rate for sound in sounds}) > 1:
        raise BadSample("parts of several sample rates")

    def blocks(start: int, count: float) -> Blocks:
        place, channels = 0, 0
        for sound in sounds:
            for block_SC in sound.blocks(0, start + count - place):
                channels = channels or block_SC.shape[1]
                if block_SC.shape[1] != channels:
                    raise BadSample("parts of several numbers of channels")
                place += len(block_SC)
                yield block_SC[max(0, start - place + len(block_SC)) :]

    return Sound(sounds[0].rate, blocks)


def _mp3(file: BinaryIO, start: int, size: int, stack: ExitStack) -> Sound:
    start, is_told = containers.mp3_start(file, start, size)
    return _by_libsndfile(_Part(file, start, size, endless=not is_told), stack)


# ffmpeg


_FFMPEG = re.compile(
    rb"....ftyp|\x1aE\xdf\xa3|0&\xb2u\x8ef|#!AMR|\xff[\xf0\xf1\xf8\xf9]|ADIF|\x0bw|wvpk|MAC |TTA1|FLV\x01|\.RMF|DSD |"
    rb"OggS.*(?:Speex  |\x80theora|fishead)|caff....desc.{16}(?!lpcm|[au]law)|"
    rb"NIST_1A\n.*sample_coding -s\d+ pcm,embedded-shorten|"
    rb"(?:RIFF....WAVEfmt ....(?!U\0)|riff.{36}fmt .{20})(?![\x01-\x03\x06\x07\x111@]\0|\xfe\xff)..",
    re.DOTALL,
)
"""How files begin that only ffmpeg knows: MP4, Matroska and WebM, WMA, AMR, AAC, AC-3, compressed SPHERE and others.

It gets no others, for of a list of files it would open these.
"""


def _by_ffmpeg(file: BinaryIO, start: int, size: int, stack: ExitStack) -> Sound:
    """The first stream of sound, converted to floating point only."""
    try:
        import av
    except ImportError as error:
        raise BadSample(NEEDS_FFMPEG) from error
    try:
        container: Any = stack.enter_context(av.open(_Part(file, start, size), metadata_errors="ignore"))
    except av.FFmpegError as error:
        raise BadSample("damaged") from error
    if not container.streams.audio:
        raise BadSample("no sound in it")
    stream, form = container.streams.audio[0], container.format.name
    if stream.codec_context is None:
        raise BadSample("in a codec that ffmpeg does not know")
    rate, is_exact = int(stream.rate), "mp4" in form  # in others times are rounded or guessed
    begin, claimed = stream.start_time or 0, (stream.duration or 0) if is_exact else 0

    def decoded() -> Iterator[Any]:
        try:
            yield from container.decode(stream)
        except av.FFmpegError as error:  # such as AAC within WAV, which says nowhere how long its packets are
            if form not in ("wav", "w64", "caf"):
                raise
            what = f"{stream.codec_context.name} within {form} that ffmpeg can't decode"
            raise BadSample(f"{what}: export it as FLAC") from error

    def blocks(start: int, count: float) -> Blocks:
        plain: Any = av.AudioResampler(format="fltp")
        place = 0
        if start and is_exact:
            container.seek(begin + int(start / rate / stream.time_base), stream=stream)
            place = -1
        for frame in chain(decoded(), (None,)):
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
