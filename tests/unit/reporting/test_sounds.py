"""Recordings of a report: real ones, with what a small model leaves of them."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.data.records import open_data
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.audio.phones import read_phones
from data2vec2.modalities.audio.reader import RECORDINGS, AudioReader
from data2vec2.modalities.audio.recipes import RECIPES
from data2vec2.modalities.audio.show import AudioShow, spectrogram, write_audio_gallery
from data2vec2.modalities.audio.tools import AudioTools
from data2vec2.reporting.build import write_report
from data2vec2.reporting.charts import clip
from data2vec2.reporting.scores import read_transcripts
from tests.unit.reporting.pages import HOSTILE, Page, arrays_of, changed, read_page, write_lines

CONFIG = AudioConfig(stem="mel")


def reader(config: AudioConfig = CONFIG) -> AudioReader:
    parts = open_data(english_prompts(), RECORDINGS)
    assert parts.test is not None
    return AudioReader(parts.test, config, AudioDataConfig(), 0)


def fill(run: Path, config: AudioConfig = CONFIG, samples: np.ndarray | None = None) -> Path:
    """What an audio run leaves of masks and gallery, by an untrained encoder."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(embed_dim=16, num_heads=2, depth=1, prenet_depth=0), AudioModality(config, 16, 2))
    alignments = read_phones(english_prompts() / "phones.csv")
    samples = np.arange(0, 60, 4) if samples is None else samples
    write_audio_gallery(run, encoder.eval(), (reader(config), samples), alignments, torch.device("cpu"))
    preview = AudioTools().preview(reader(), np.arange(2), RECIPES["audio_mel_tiny"]())
    np.savez_compressed(run / "masks.npz", **preview)
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("run"))


def sound(uri: str) -> tuple[np.ndarray, int]:
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return wave, rate


def test_masks_of_recordings(full: Path) -> None:
    shown = AudioShow().masks(arrays_of(full / "masks.npz"))
    assert len(shown["samples"]) == 2
    assert shown["seconds"] == 5.0, "long recordings are preferred"
    assert shown["kept"] < shown["tokens"]
    for item in shown["samples"]:
        assert len(item["seen"]) == AudioShow.masks_shown
        assert [seen.mean() for seen in item["seen"]] == pytest.approx([shown["kept"] / shown["tokens"]] * 3)
        wave, rate = sound(clip(item["clip"], shown["sample_rate"]))
        assert rate == 16_000
        assert len(wave) == pytest.approx(80_000, abs=4_000)
        assert 0.7 < np.abs(wave).max() <= 1


def test_the_gallery_of_recordings(full: Path) -> None:
    arrays = arrays_of(full / "gallery.npz")
    assert (np.diff(arrays["neighbour_cosines"], axis=1) <= 0).all()
    assert all(name not in row for name, row in zip(arrays["names"], arrays["neighbour_names"], strict=True))
    assert arrays["map"].shape == (15, 2)
    shown = AudioShow().gallery(arrays)
    assert len(shown["samples"]) == 6
    said = {row["name"]: row for row in shown["samples"]}
    texts = dict(zip(reader().records.names, reader().records.texts or (), strict=True))
    assert all(row["transcript"] == texts[name] for name, row in said.items())
    assert any(row["phones"] for row in said.values())
    for row in said.values():
        assert all(0 <= left <= 100 and width >= 0 for _, left, width in row["phones"])
        assert len(row["neighbours"]) == 4
        wave, _ = sound(clip(row["clip"], 16_000))
        assert len(wave) / 16_000 == pytest.approx(row["seconds"], abs=0.15)


def test_the_waveform_stem_has_a_gallery_too(tmp_path: Path) -> None:
    fill(tmp_path, AudioConfig(conv_dim=8), np.arange(4))
    assert len(AudioShow().gallery(arrays_of(tmp_path / "gallery.npz"))["samples"]) == 4
    fill(tmp_path, samples=np.arange(1))
    assert not (tmp_path / "gallery.npz").exists(), "one recording has no neighbours"


def test_loud_is_bright_and_high_is_above() -> None:
    energies = np.zeros((4, 80), dtype=np.float32)
    energies[2, :40] = np.linspace(0, 1, 40)  # frame 4, loudest in the highest bin
    picture = spectrogram(energies).astype(int).sum(axis=2)
    assert picture.shape == (40, 8)
    assert np.unravel_index(picture.argmax(), picture.shape) == (0, 4)


@pytest.mark.parametrize(("rate", "kind"), [(16_000, "mpeg"), (8_000, "mpeg"), (10_000, "wav")])
def test_clips_can_be_played_at_any_rate(rate: int, kind: str) -> None:
    uri = clip(np.sin(np.arange(rate) / 9).astype(np.float16), rate)
    assert uri.startswith(f"data:audio/{kind};")
    assert sound(uri)[1] == rate


def test_the_page_of_an_audio_run(full: Path) -> None:
    write_lines(full / "metrics.jsonl", [{"step": 2, "val_wer": 1.2, "val_cer": 0.5}])
    html = write_report(full, full / "page.html").read_text("utf-8")
    page = Page(html)
    assert page.errors == page.unnamed == []
    for heading in ("Masks", "Token features", "Nearest neighbours", "Map of samples", "Error rates"):
        assert heading in page.headings
    assert "can't be shown" not in page.text
    assert "picture" not in page.text
    assert page.tags.count("audio") == 2 + 6 + 6 * 5
    assert len(html) < 1_500_000


def test_names_and_transcripts_are_shown_as_text(full: Path, tmp_path: Path) -> None:
    def hostile(arrays: dict[str, np.ndarray]) -> None:
        for key in ("names", "transcripts", "neighbour_names", "classes", "phone_names"):
            if key in arrays:
                arrays[key] = np.full(arrays[key].shape, f'"{HOSTILE}\udce9')

    for name in ("masks.npz", "gallery.npz"):
        changed(full / name, tmp_path / name, hostile)
    line = {"name": HOSTILE, "reference": HOSTILE, "hypothesis": f"{HOSTILE}x", "update": 1}
    write_lines(tmp_path / "transcripts.jsonl", [line])
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    assert "can't be shown" not in page.text
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 20


@pytest.mark.parametrize("name", ["masks.npz", "gallery.npz"])
def test_what_is_missing_or_broken_is_said(full: Path, tmp_path: Path, name: str) -> None:
    show = AudioShow().masks if name == "masks.npz" else AudioShow().gallery
    for key in arrays_of(full / name).keys() - {"kind"}:
        with pytest.raises(KeyError):
            show(changed(full / name, tmp_path / name, lambda arrays, key=key: arrays.pop(key)))
        page = read_page(write_report(tmp_path))
        assert page.errors == []
        assert f"{name} can't be shown" in page.text
    wave = "waveforms" if name == "masks.npz" else "clips"
    changed(full / name, tmp_path / name, lambda arrays: arrays.update({wave: arrays[wave] * np.nan}))
    assert re.search(f"{name} can't be shown .*not finite", read_page(write_report(tmp_path)).text)


def test_the_last_transcripts_with_their_errors(tmp_path: Path) -> None:
    rows = [("a", "x", "y", 1), ("a", "one two three", "one too three four", 2), ("b", "gone", "", 2), ("c", "", "", 2)]
    keys = ("name", "reference", "hypothesis", "update")
    path = write_lines(tmp_path / "transcripts.jsonl", [dict(zip(keys, row, strict=True)) for row in rows])
    with path.open("a") as file:
        file.write('[1]\n{"update": 2, "name": "d", "reference": 3, "hypothesis": ""}\n{"update": 2, "na')
    shown = read_transcripts(path)
    assert (shown["update"], shown["count"]) == (2, 3)
    assert [(row["name"], row["wrong"], row["words"]) for row in shown["texts"]] == [
        ("a", 2, 3),
        ("b", 1, 1),
        ("c", 0, 0),
    ]
    html = write_report(tmp_path).read_text("utf-8")
    assert "one <del>two</del> <ins>too</ins> three <ins>four</ins>" in html
    assert "2 errors in 3 words" in html
    path.write_text(json.dumps({"update": 1}))
    assert "transcripts.jsonl can't be shown" in read_page(write_report(tmp_path)).text
