"""Real files of every format, rate and number of channels become the same waveform; damage has a name."""

from __future__ import annotations

import io

import numpy as np
import pytest

from data2vec2.data.source import BadSample
from data2vec2.modalities.audio.decoding import EXTENSIONS, FFMPEG_EXTENSIONS
from data2vec2.modalities.audio.reader import RECORDINGS
from data2vec2.modalities.audio.waveform import length_of, normalise, read_audio
from tests.unit.data.sounds import FORMATS, RATE, encoded, sound


def read(content: bytes, *part: float) -> np.ndarray:
    return read_audio(io.BytesIO(content), RATE, *part)


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the energy that differs."""
    return float(np.square(a - b).sum() / np.square(b).sum())


def reason(content: bytes, *part: float) -> str:
    with pytest.raises(BadSample) as caught:
        read(content, *part)
    return caught.value.reason


def test_every_extension_is_written_here() -> None:
    assert frozenset(FORMATS) == EXTENSIONS
    assert RECORDINGS.extensions == EXTENSIONS | FFMPEG_EXTENSIONS


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_every_format_and_rate(extension: str, rate: int) -> None:
    content = encoded(sound(4.0, rate), rate, extension)
    wave = read(content)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert abs(len(wave) - 4 * RATE) <= 2
    assert error(wave[: 4 * RATE - 2], sound(4.0)[: len(wave)][: 4 * RATE - 2]) < 0.05
    assert abs(length_of(io.BytesIO(content), RATE) - len(wave)) <= 1


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000])
def test_any_rate(rate: int) -> None:
    wave = read(encoded(sound(2.013, rate), rate))
    assert abs(len(wave) - 2.013 * RATE) <= 1
    assert error(wave[:32_000], sound(2.0)) < 0.002


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels_are_averaged(channels: int) -> None:
    waves = np.stack([sound(1.0, seed=seed) for seed in range(channels)], axis=1)
    assert np.allclose(read(encoded(waves, subtype="FLOAT")), waves.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_part_is_as_in_the_whole(extension: str, rate: int) -> None:
    content = encoded(sound(12.0, rate), rate, extension)
    whole = read(content)
    for start, count in ((0, 16_000), (1, 16_000), (40_000, 30_001), (99_999, 24_000), (160_000, 32_000)):
        part = read(content, start / RATE, count / RATE)
        assert len(part) == count
        assert error(part, whole[start : start + count]) < 1e-5
    beyond = read(content, 11.5, 4.0)
    assert len(beyond) == len(whole) - round(11.5 * RATE)
    assert reason(content, 14.0, 1.0) == "truncated"


def test_only_the_part_is_read() -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    file = Counted(encoded(sound(60.0)))
    read_audio(file, RATE, 30.0, 2.0)
    assert file.count < 5 * 2 * RATE
    file = Counted(encoded(sound(60.0)))
    length_of(file, RATE)
    assert file.count < 10_000


def test_normalise() -> None:
    wave = normalise(read(encoded(0.3 + 0.01 * sound(1.0), subtype="FLOAT")))
    assert wave.dtype == np.float32
    assert abs(wave.mean()) < 1e-5
    plain = 0.01 * sound(1.0)
    assert wave.std() == pytest.approx(plain.std() / np.sqrt(plain.var() + 1e-5), rel=1e-3)


def test_damage_has_a_name() -> None:
    wave = sound(2.0)
    assert reason(b"") == "empty file"
    assert reason(b"text") == "not audio"
    assert reason(np.random.default_rng(0).bytes(9_000)) == "not audio"
    assert reason(encoded(wave)[:10]) == "not audio"
    assert reason(encoded(wave, extension=".flac")[:50]) == "damaged"
    assert reason(encoded(wave, extension=".flac")[:20_000]) == "damaged"
    assert reason(encoded(wave[:0])) == "empty"
    assert reason(encoded(np.zeros(RATE, np.float32))) == "silent"
    assert reason(encoded(np.full(RATE, 0.5, np.float32))) == "silent"
    assert reason(encoded(1e-6 * wave, subtype="FLOAT")) == "silent"
    for value in (np.nan, np.inf, -np.inf):
        for rate in (RATE, 44_100):
            broken = wave.copy()
            broken[9_000] = value
            assert reason(encoded(broken, rate, subtype="FLOAT")) == "not finite"
    huge = np.stack([np.full(RATE, 3e38), np.full(RATE, 3e38)], axis=1).astype(np.float32)
    assert reason(encoded(huge, subtype="FLOAT")) == "not finite"


@pytest.mark.parametrize("rate", [0, 1, 2**31 - 1])
def test_a_header_with_an_absurd_rate(rate: int) -> None:
    content = bytearray(encoded(sound(2.0)))
    content[24:28] = rate.to_bytes(4, "little")
    assert reason(bytes(content)) == "damaged"


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("cut", [0, 1, 30, 60, 100, 500, 3_000, -100])
def test_cut_files_are_shorter_or_refused(extension: str, cut: int) -> None:
    content = encoded(sound(4.0), RATE, extension)[:cut]
    for part in ((), (1.0, 1.0)):
        try:
            wave = read(content, *part)
        except BadSample as found:
            assert found.reason in ("empty file", "not audio", "damaged", "truncated", "empty", "silent")
        else:
            assert len(wave) <= (RATE if part else 4 * RATE)


@pytest.mark.parametrize("extension", FORMATS)
def test_flipped_bytes_are_refused_or_heard(extension: str) -> None:
    content = encoded(sound(1.0), RATE, extension)
    for seed in range(30):
        draws = np.random.default_rng(seed)
        broken = bytearray(content)
        for place in draws.integers(0, min(len(content), 200 if seed % 2 else len(content)), 5):
            broken[place] = draws.integers(256)
        try:
            assert np.isfinite(read(bytes(broken))).all()
        except BadSample as found:
            assert found.reason
