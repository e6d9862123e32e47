"""The bundled English prompts: recordings, texts, phones and split."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.phones import PHONES, SILENCE, frame_labels, read_phones

RATE = 16_000
FOLDER = english_prompts()


def transcriptions() -> dict[str, str]:
    with (FOLDER / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}


def test_every_recording_has_a_text_and_a_part() -> None:
    recordings = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.ogg")}
    texts = transcriptions()
    assert len(recordings) == 549
    assert texts.keys() == recordings
    assert all(text == text.strip() and any(map(str.isalnum, text)) for text in texts.values())
    assert not any(mark in text for text in texts.values() for mark in "[]()<>")


def test_recordings_are_whole() -> None:
    total = 0
    for name in transcriptions():
        with soundfile.SoundFile(FOLDER / name) as file:
            assert (file.samplerate, file.channels) == (RATE, 1)
            wave = file.read(dtype="float32")
            assert len(wave) == file.frames, name
        total += len(wave)
        assert 0.01 < np.abs(wave).max() < 1, name
    assert total / RATE / 60 == pytest.approx(24.2, abs=0.1)


def test_texts_of_the_parts_differ() -> None:
    starts: dict[str, set[str]] = {"train": set(), "test": set()}
    for name, text in transcriptions().items():
        letters = "".join(sign if sign.isalnum() or sign == "'" else " " for sign in text.lower())
        starts[name.split("/")[0]].add(" ".join(letters.split()[:4]))
    assert not starts["train"] & starts["test"]
    share = sum(name.startswith("test/") for name in transcriptions()) / len(transcriptions())
    assert 0.25 < share < 0.35


def test_alignments_lie_inside_the_recordings() -> None:
    alignments = read_phones(FOLDER / "phones.csv")
    assert len(alignments) == len((FOLDER / "phones.csv").read_text().splitlines()) - 1 == 491
    for name, spans in alignments.items():
        assert all(one[1] == two[0] for one, two in pairwise(spans)), name
        assert all(start < end and phone in (*PHONES, SILENCE) for start, end, phone in spans), name
        seconds = soundfile.info(FOLDER / name).duration
        assert 0 <= spans[0][0] < 0.01
        assert seconds - 0.05 < spans[-1][1] <= seconds, name


@pytest.mark.parametrize(
    ("name", "phones"),
    [("train/digits/1", "W AH N"), ("test/digits/7", "S EH V AH N"), ("train/phonetic/n_p", "N OW V EH M B ER")],
)
def test_phones_lie_where_the_voice_is(name: str, phones: str) -> None:
    alignment = read_phones(FOLDER / "phones.csv")[f"{name}.ogg"]
    spoken = [span for span in alignment if span[2] != SILENCE]
    assert [phone for _, _, phone in spoken] == phones.split()
    wave, _ = soundfile.read(FOLDER / f"{name}.ogg")
    vowel = max((span for span in spoken if span[2][0] in "AEIOU"), key=lambda span: span[1] - span[0])
    power = {span: np.mean(wave[round(span[0] * RATE) : round(span[1] * RATE)] ** 2) for span in alignment}
    outside = [power[span] for span in alignment if span[2] == SILENCE]
    assert all(power[vowel] > 1000 * quiet for quiet in outside)


def test_labels_are_those_of_the_centres() -> None:
    alignment = ((0.0, 0.03, SILENCE), (0.03, 0.05, "B"), (0.05, 0.1, "IY"))
    silence, b, iy = -1, PHONES.index("B"), PHONES.index("IY")
    assert frame_labels(alignment, 6).tolist() == [silence, b, iy, iy, iy, silence]
    assert frame_labels(alignment, 6, offset_s=0.0025).tolist() == [silence, silence, b, iy, iy, silence]
    assert frame_labels(alignment, 3, frame_s=0.04, offset_s=-0.01).tolist() == [silence, b, iy]


def test_labels_cover_the_speech() -> None:
    alignments = read_phones(FOLDER / "phones.csv")
    labels = [frame_labels(spans, soundfile.info(FOLDER / name).frames // 320) for name, spans in alignments.items()]
    counts = np.bincount(np.concatenate(labels) + 1, minlength=len(PHONES) + 1)
    assert 0.05 < counts[0] / counts.sum() < 0.2, "silence"
    absent = {phone for phone, count in zip(PHONES, counts[1:], strict=True) if not count}
    assert absent == {"ZH"}


def test_licence_and_origin() -> None:
    licence = (FOLDER / "LICENSE").read_text("utf-8")
    assert licence.startswith("Copyright: 2003-2010")
    assert "CC-BY-SA-3.0" in licence
    assert "Attribution-ShareAlike" in (FOLDER / "README.md").read_text("utf-8")
    assert sum(path.stat().st_size for path in Path(FOLDER).rglob("*") if path.is_file()) < 5e6
