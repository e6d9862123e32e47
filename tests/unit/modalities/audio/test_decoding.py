"""A header is a claim: real files that say too much, too little or nothing of their length are heard as they are."""

from __future__ import annotations

import importlib.util
import io
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data2vec2.data.source import BadSample
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.containers import JOINED, frame_bytes
from data2vec2.modalities.audio.decoding import NEEDS_FFMPEG, OTHER_PARTS, POINTER
from data2vec2.modalities.audio.waveform import Windows, length_of, normalise, read_audio
from tests.unit.data.sounds import RATE, encoded, sound

SECONDS = 12.0
WAVE = sound(SECONDS)


def ffmpeg(path: Path, *options: str, wave: np.ndarray = WAVE) -> bytes:
    """A file as ffmpeg writes it."""
    if not shutil.which("ffmpeg"):
        pytest.skip("needs ffmpeg")
    command = ["ffmpeg", "-v", "error", "-y", "-i", "-", *options, str(path)]
    done = subprocess.run(command, input=encoded(wave, subtype="FLOAT"), stderr=subprocess.PIPE, check=False)
    if b"ncoder" in done.stderr:
        pytest.skip(f"this ffmpeg can't write it: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr
    return path.read_bytes()


def heard(content: bytes, wave: np.ndarray = WAVE, shift: int = 0) -> None:
    """The file is that waveform, whole, in parts and in windows, and as long."""
    whole = read_audio(io.BytesIO(content), RATE)
    seconds = len(wave) / RATE
    assert abs(len(whole) - shift - len(wave)) <= 0.15 * RATE
    assert length_of(io.BytesIO(content), RATE) == pytest.approx(len(whole), abs=1)
    own = whole[shift:][: len(wave)]
    assert np.corrcoef(own, wave[: len(own)])[0, 1] > 0.98
    for start_s in (0.0, 2.3, seconds - 1.5):
        part = read_audio(io.BytesIO(content), RATE, start_s, 1.0)
        expected = whole[round(start_s * RATE) :][:RATE]
        assert np.abs(part - expected).max() < 0.02
    config = AudioConfig()
    windows = Windows(config, lambda: io.BytesIO(content), 3.0, 0.5)
    assert windows.only is None and windows.total == pytest.approx(len(whole), abs=1)
    normal, place = normalise(whole), 0
    for window, kept in windows:
        count = len(range(*kept.indices(config.num_tokens(len(window)))))
        begin = (place - kept.start) * config.hop
        assert np.abs(window - normal[begin : begin + len(window)]).max() < 0.02
        place += count
    assert place == config.num_tokens(windows.total)


def reason(content: bytes) -> str:
    with pytest.raises(BadSample) as caught:
        read_audio(io.BytesIO(content), RATE)
    with pytest.raises(BadSample) as measured:
        length_of(io.BytesIO(content), RATE)
    assert measured.value.reason == caught.value.reason
    return caught.value.reason


def patched(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


# FLAC


@pytest.mark.parametrize("frames", [0, 1, 50_000, len(WAVE) ^ (1 << 28), 2**36 - 1])
def test_flac_of_any_claimed_length(frames: int) -> None:
    content = encoded(WAVE, extension=".flac")
    heard(patched(content, 21, bytes([content[21] & 0xF0 | frames >> 32]) + (frames & 0xFFFFFFFF).to_bytes(4, "big")))


def test_flac_that_is_cut_is_damaged() -> None:
    content = encoded(WAVE, extension=".flac")
    assert reason(content[: len(content) // 2]) == "damaged"


def test_flac_behind_a_tag() -> None:
    heard(b"ID3\4\0\0\0\0\1\0" + bytes(128) + encoded(WAVE, extension=".flac"))


# MP3


def variable(wave: np.ndarray = WAVE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.4)
    return file.getvalue()


def first(content: bytes) -> int:
    """Bytes of the first frame, which has the tag."""
    assert b"Xing" in content[:100]
    return frame_bytes(content[:4])


@pytest.mark.parametrize("extension", [".flac", ".mp3", ".wav", ".ogg"])
def test_a_tag_of_old_at_the_end(extension: str) -> None:
    heard(encoded(WAVE, extension=extension) + b"TAG".ljust(128, b"x"))


def test_mp3_without_its_tag() -> None:
    """Half of it is silence in small frames, so that any guess from the first frames is far off."""
    for halves in ((WAVE, 0.001 * WAVE), (0.001 * WAVE, WAVE)):
        wave = np.concatenate(halves)
        content = variable(wave)[first(variable(wave)) :]
        with soundfile.SoundFile(io.BytesIO(content)) as guessed:
            assert abs(guessed.frames - len(wave)) > 0.1 * len(wave)
        heard(content, wave, 1_105)
        heard(content + b"TAG" + bytes(125), wave, 1_105)


def test_mp3_with_a_wrong_tag() -> None:
    content = variable()
    place = content.index(b"Xing") + 8
    assert reason(patched(content, place, (100).to_bytes(4, "big"))) == "longer than its header says"
    assert reason(patched(content, place, (10**6).to_bytes(4, "big"))) == "truncated"
    heard(patched(content, place + 4, (100).to_bytes(4, "big")), shift=1_105)  # then the tag is not believed
    assert reason(content[: len(content) // 2]) == "truncated"


def test_mp3_of_many_bits_without_a_tag() -> None:
    wave, file = sound(SECONDS, 32_000), io.BytesIO()
    soundfile.write(file, wave, 32_000, format="MP3", bitrate_mode="CONSTANT", compression_level=0.0)
    content = file.getvalue()
    heard(content[frame_bytes(content[:4]) :], shift=round(1_105 / 2))


def test_several_mp3s_in_one_file() -> None:
    one, other = sound(6.0), sound(6.0, seed=1)
    content = encoded(one, extension=".mp3") + encoded(other, extension=".mp3")
    assert length_of(io.BytesIO(content), RATE) == pytest.approx(12 * RATE, abs=6_000)
    whole = read_audio(io.BytesIO(content), RATE)
    assert np.correlate(whole[-6 * RATE :], other, "same").max() > 0.9 * np.square(other).sum()
    for kind in (encoded(sound(6.0, 48_000), 48_000, ".mp3"), encoded(np.stack([one, other], 1), extension=".mp3")):
        for joined in (content + kind, kind + b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + content):
            assert reason(joined) == OTHER_PARTS


@pytest.mark.parametrize("junk", [bytes(5_000), b"HTTP/1.1 200 OK\r\n\r\n", np.random.default_rng(0).bytes(300_000)])
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x7f" + bytes(127), b"ID3\4\0\0\x7f\x7f\x7f\x7f"])
def test_junk_before_the_first_frame_of_an_mp3(junk: bytes, tag: bytes) -> None:
    heard(tag + junk + encoded(WAVE, extension=".mp3"))


# Ogg


@pytest.mark.parametrize("extension", [".ogg", ".opus"])
def test_links_of_a_chain(extension: str) -> None:
    parts = [sound(5.0, seed=seed) for seed in range(3)]
    files = [encoded(part, extension=extension) for part in parts]
    heard(b"".join(files), np.concatenate(parts))
    heard(files[0] + files[0], np.concatenate([parts[0], parts[0]]))  # of the same serial number


@pytest.mark.parametrize("extension", [".ogg", ".opus"])
def test_ogg_that_is_cut(extension: str) -> None:
    content = encoded(WAVE, extension=extension)
    assert reason(content[: len(content) // 2]) == "truncated"
    assert reason(content[: len(content) // 2] + content) == "truncated"
    unclosed = io.BytesIO(content[: content.rindex(b"OggS")])
    assert SECONDS - 1.5 < length_of(unclosed, RATE) / RATE < SECONDS  # of a stream; a page has up to a second


def test_links_that_do_not_fit_together() -> None:
    content = encoded(sound(3.0), extension=".ogg")
    assert reason(content + encoded(sound(3.0, 48_000), 48_000, ".ogg")) == "parts of several sample rates"
    assert reason(content + encoded(np.stack([sound(3.0)] * 2, 1), extension=".ogg")) == (
        "parts of several numbers of channels"
    )


def test_ogg_flac(tmp_path: Path) -> None:
    content = ffmpeg(tmp_path / "a.oga", "-c:a", "flac")
    heard(content)
    heard(content + content, np.concatenate([WAVE, WAVE]))
    assert reason(content[: len(content) // 2]) == "truncated"


# Plain numbers, and codecs that can't seek


SIZES = {
    ".wav": (lambda content: content.index(b"data") + 4, "<I"),
    ".aiff": (lambda content: content.index(b"SSND") + 4, ">I"),
    ".au": (lambda content: 8, ">I"),
}


@pytest.mark.parametrize("extension", SIZES)
def test_sizes_of_plain_files(extension: str) -> None:
    content = encoded(WAVE, extension=extension)
    place, form = SIZES[extension][0](content), SIZES[extension][1]
    assert reason(content[: len(content) // 2]) == "truncated"
    for size in (0, 0x7FFFF000, 2**32 - 1):  # a recorder that lost power, and pipes
        heard(patched(content, place, struct.pack(form, size)))
    for size, why in ((50_000, "longer than its header says"), (10**7, "truncated")):
        assert reason(patched(content, place, struct.pack(form, size))) == why


WIDE = {
    "W64": lambda content, size: patched(content, content.index(b"data") + 16, struct.pack("<Q", size + 24)),
    "RF64": lambda content, size: patched(content, content.index(b"ds64") + 16, struct.pack("<Q", size)),
    "CAF": lambda content, size: patched(content, content.index(b"data") + 4, struct.pack(">q", size + 4)),
    "NIST": lambda content, size: content.replace(b"count -i %d" % len(WAVE), b"count -i %d" % (size // 2), 1),
}


@pytest.mark.parametrize("kind", WIDE)
def test_sizes_of_large_files_and_of_sphere(kind: str) -> None:
    """These take what is there for what they claim, or less."""
    file = io.BytesIO()
    soundfile.write(file, WAVE, RATE, format=kind, subtype="PCM_16")
    content = file.getvalue()
    heard(content)
    if kind == "RF64":
        heard(b"BW64" + content[4:])
    assert reason(content[: len(content) // 2]) == ("damaged" if kind == "CAF" else "truncated")
    assert reason(WIDE[kind](content, 100_000)) == "longer than its header says"


def test_a_caf_that_was_not_closed() -> None:
    content = encoded(WAVE, extension=".caf")
    heard(patched(content, content.index(b"data") + 4, b"\xff" * 8))


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "CAF", "AIFF", "AU", "NIST", "VOC"])
def test_files_of_plain_numbers_that_were_joined(kind: str, subtype: str) -> None:
    """Also where the second one is short."""
    files = []
    for wave in (WAVE, WAVE[:500]):
        file = io.BytesIO()
        soundfile.write(file, wave, RATE, format=kind, subtype=subtype)
        files.append(file.getvalue())
    assert reason(files[0] + files[1]) == reason(files[1] + files[0]) == JOINED


@pytest.mark.parametrize("first", [b"", b"\xff\xff\xff\xff\xfe\xff", b"\xff\xfe\xff\xfd"])
def test_numbers_without_a_header_are_no_audio(first: bytes) -> None:
    """MPEG's marks of frames are frequent in these."""
    for loud in (0.001, 0.01, 1.0):
        assert reason(first + (loud * 32_767 * WAVE).astype("<i2").tobytes()) == "not audio"
    assert reason(first + np.random.default_rng(0).normal(0, 30, 600_000).astype("<i2").tobytes()) == "not audio"


def test_what_git_lfs_leaves_is_told() -> None:
    assert reason(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n") == POINTER


def test_what_follows_the_sound_of_a_wav_is_none() -> None:
    content = encoded(WAVE)
    for more in (
        b"id3 " + struct.pack("<I", 200_000) + bytes(200_000),
        b"LIST" + struct.pack("<I", 99),
        b"TAG" * 50_000,
    ):
        heard(content + more)


def test_plain_files_are_not_decoded_to_measure_them() -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    for extension in (*SIZES, ".w64", ".caf"):
        file = Counted(encoded(WAVE, extension=extension))
        assert length_of(file, RATE) == len(WAVE)
        assert file.count < 10_000


@pytest.mark.parametrize(("subtype", "extension"), [("GSM610", ".wav"), ("IMA_ADPCM", ".wav"), ("GSM610", ".aiff")])
def test_codecs_of_telephones(subtype: str, extension: str) -> None:
    heard(encoded(sound(SECONDS, 8_000), 8_000, extension, subtype))


def test_a_header_with_many_channels_costs_no_memory() -> None:
    content = encoded(WAVE)
    broken = patched(patched(content, 22, struct.pack("<H", 1_000)), 32, struct.pack("<H", 2_000))
    assert length_of(io.BytesIO(broken), RATE) == len(WAVE) // 1_000


# Channels


def test_channels_that_cancel_each_other() -> None:
    right = 0.9 * WAVE
    for other in (-WAVE, -right, 0.0 * WAVE, right):
        content = encoded(np.stack([WAVE, other], axis=1), extension=".flac")
        heard(content)
    loud = read_audio(io.BytesIO(encoded(np.stack([WAVE, -WAVE], 1), subtype="FLOAT")), RATE)
    assert np.array_equal(loud, WAVE)


# ffmpeg


@pytest.mark.parametrize("extension", [".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".ac3", ".3gp"])
def test_what_only_ffmpeg_reads(extension: str, tmp_path: Path) -> None:
    codec = ("-c:a", "aac") if extension in (".m4a", ".mp4", ".3gp") else ()
    content = ffmpeg(tmp_path / f"a{extension}", *codec)
    if importlib.util.find_spec("av") is None:
        assert reason(content) == NEEDS_FFMPEG == "needs pip install 'data2vec2[ffmpeg]'"
        pytest.skip("the rest needs PyAV: pip install 'data2vec2[ffmpeg]'")
    whole = read_audio(io.BytesIO(content), RATE)
    lag = int(np.correlate(whole, WAVE[RATE : 3 * RATE], "valid").argmax()) - RATE
    assert abs(lag) <= 0.1 * RATE  # what codecs put before the sound, or WMA drops of it
    heard(content, np.concatenate([whole[: max(0, lag)], WAVE[max(0, -lag) :]]))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.ogg", "libspeex"),
        ("a.caf", "alac"),
        ("a.caf", "adpcm_ima_qt"),
        ("a.wv", "wavpack"),
        ("a.wav", "mp3"),
        ("a.mp2", "mp2"),
        ("a.wav", "adpcm_yamaha"),
    ],
)
def test_codecs_in_files_that_are_known(name: str, codec: str, tmp_path: Path) -> None:
    content = ffmpeg(tmp_path / name, "-c:a", codec, *(("-f", "mp2") if name == "b" else ()))
    if importlib.util.find_spec("av") is None and codec not in ("mp3", "mp2"):
        assert reason(content) == NEEDS_FFMPEG
    else:
        assert len(read_audio(io.BytesIO(content), RATE)) == pytest.approx(SECONDS * RATE, abs=0.15 * RATE)
        assert length_of(io.BytesIO(content), RATE) == pytest.approx(SECONDS * RATE, abs=0.15 * RATE)


def written(form: str, codec: str) -> bytes:
    """A file as PyAV writes it."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'data2vec2[ffmpeg]'")
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(WAVE[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        convert = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=RATE)
        for part in (*convert.resample(frame), *convert.resample(None), None):
            container.mux(stream.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "codec"), [("caf", "flac"), ("caf", "mp3"), ("w64", "mp3"), ("wav", "flac"), ("w64", "adpcm_yamaha")]
)
def test_codecs_that_libsndfile_does_not_know_in_files_that_it_does(form: str, codec: str) -> None:
    content = written(form, codec)
    assert len(read_audio(io.BytesIO(content), RATE)) == pytest.approx(SECONDS * RATE, abs=0.15 * RATE)
    assert reason(content[: len(content) // 2]) == "truncated"
    assert reason(content + content) == JOINED


@pytest.mark.parametrize("form", ["wav", "w64"])
def test_codecs_that_ffmpeg_writes_and_does_not_read_are_named(form: str) -> None:
    content = written(form, "aac")
    assert reason(content) == f"aac within {form} that ffmpeg can't decode: export it as FLAC"
    unknown = content.replace(b"\xff\0\1\0\x80>", b"\x34\x12\1\0\x80>", 1)
    assert reason(unknown) == "in a codec that ffmpeg does not know"


@pytest.mark.parametrize("form", ["ipod", "mov"])
def test_joined_files_of_boxes(form: str) -> None:
    content = written(form, "aac")
    assert length_of(io.BytesIO(content), RATE) == pytest.approx(SECONDS * RATE, abs=0.15 * RATE)
    assert reason(content + content) == JOINED


def shortened(wave: np.ndarray) -> bytes:
    """A SPHERE file as LDC sends it: compressed by shorten, here with one predictor only, which is none."""
    bits: list[str] = []

    def put(value: int, size: int) -> None:
        bits.append("0" * (value >> size) + "1" + (f"{value & (1 << size) - 1:0{size}b}" if size else ""))

    for value in (5, 1, 256, 0, 0, 0):  # 16 bits, one channel, samples of a block
        put(value.bit_length(), 2)
        put(value, value.bit_length())
    for block in (wave * 32_767).astype(int).reshape(-1, 256).tolist():
        put(0, 2)
        put(11, 3)
        for sample in block:
            put(2 * sample if sample >= 0 else -2 * sample - 1, 12)
    put(4, 2)
    text = "".join(bits)
    text += "0" * (-len(text) % 32)
    fields = f"channel_count -i 1\nsample_count -i {len(wave)}\nsample_rate -i {RATE}\nsample_n_bytes -i 2\n"
    fields += "sample_byte_format -s2 01\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    head = f"NIST_1A\n   1024\ndatabase_id -s4 WSJ0\n{fields}".encode().ljust(1024)
    return head + b"ajkg\2" + int(text, 2).to_bytes(len(text) // 8, "big")


def test_sphere_that_is_compressed() -> None:
    wave = WAVE[: len(WAVE) // 256 * 256]
    content = shortened(wave)
    if importlib.util.find_spec("av") is None:
        assert reason(content) == NEEDS_FFMPEG
    else:
        heard(content, wave)


def test_a_video_without_sound(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'data2vec2[ffmpeg]'")
    content = ffmpeg(tmp_path / "a.mp4", "-f", "lavfi", "-i", "color=size=32x32:duration=1", "-map", "1:v")
    assert reason(content) == "no sound in it"
    assert reason(content[:300]) == "damaged"


def test_lists_of_other_files_are_no_audio(tmp_path: Path) -> None:
    """ffmpeg would follow them."""
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(WAVE))
    assert reason(f"#EXTM3U\n#EXTINF:9\n{path}\n#EXT-X-ENDLIST\n".encode()) == "not audio"
    assert reason(f"ffconcat version 1.0\nfile {path}\n".encode()) == "not audio"
