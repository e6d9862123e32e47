"""embed: features of real recordings as a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.interop.folder import export_model
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.waveform import normalise, read_audio
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from tests.integration.helpers import embedded, run_here

DIM = 16
CONFIG = ArchitectureConfig(
    modality=AudioConfig(stem="mel"),
    encoder=EncoderConfig(embed_dim=DIM, num_heads=2, prenet_depth=1, depth=1),
)
FILES = sorted((english_prompts() / "test" / "digits").glob("*.ogg"))[:5]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(3)
    return build_encoder(CONFIG).eval()


@pytest.fixture(scope="module")
def model(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "exported"
    export_model(encoder, ModelInfo(model=CONFIG, data=AudioDataConfig()), folder, "# A model\n")
    return folder


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_features_are_the_encoders_of_each_recording_alone(
    model: Path, encoder: Encoder, tmp_path: Path, layer: int, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _, args, out: outputs.append(out.x_NLD)) for b in encoder.blocks]
    dense = embedded(model, *FILES, "--layer", layer, "--pool", "none", "--out", tmp_path / "dense")
    pooled = embedded(model, *FILES, "--layer", layer, "--batch", 2, "--out", tmp_path / "mean")
    assert f"({len(FILES)} recordings, {DIM} numbers each)" in capsys.readouterr().out
    for path, row, mean in zip(FILES, dense, pooled, strict=True):
        outputs.clear()
        with path.open("rb") as file, torch.no_grad():
            encoded = encoder(torch.from_numpy(normalise(read_audio(file, 16_000)))[None])
        expected = (outputs[layer - 1] if layer else encoded.tokens.tokens_BTD)[0].numpy()
        assert row["num_tokens"] == len(expected)
        np.testing.assert_allclose(np.reshape(row["features"], (-1, DIM)), expected, atol=1e-4)
        np.testing.assert_allclose(mean["features"], expected.mean(axis=0), atol=1e-4)
        assert row["name"] == mean["name"] == str(path)
        assert row["label"] is row["transcript"] is None
    for hook in hooks:
        hook.remove()
    about = json.loads(pq.read_schema(tmp_path / "dense").metadata[b"data2vec2"])
    assert (about["hop_s"], about["first_centre_s"], about["sample_rate"]) == (0.02, 0.0175, 16_000)
    assert (about["layer"], about["pool"], about["dim"]) == (layer, "none", DIM)


def test_all_of_a_long_recording_is_encoded(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    """In windows of a minute: as the whole at once, as far as the middle of a window is from its ends."""
    parts = [soundfile.read(path, dtype="float32")[0] for path in FILES]
    wave = np.resize(np.concatenate(parts), 130 * 16_000)
    path = tmp_path / "long.wav"
    soundfile.write(path, wave, 16_000)
    files = [FILES[0], path, FILES[1]]
    dense = embedded(model, *files, "--pool", "none", "--out", tmp_path / "dense")
    pooled = embedded(model, *files, "--out", tmp_path / "mean")
    assert [row["name"] for row in dense] == [str(name) for name in files]
    with path.open("rb") as file, torch.no_grad():
        whole_TD = encoder(torch.from_numpy(normalise(read_audio(file, 16_000)))[None]).features_NTD[0].numpy()
    long_TD = np.reshape(dense[1]["features"], (-1, DIM))
    assert dense[1]["num_tokens"] == len(whole_TD) == CONFIG.modality.num_tokens(len(wave))
    errors_T = np.linalg.norm(long_TD - whole_TD, axis=1) / np.linalg.norm(whole_TD, axis=1)
    assert errors_T.max() < 0.2
    assert np.median(errors_T) < 0.02
    np.testing.assert_allclose(pooled[1]["features"], long_TD.mean(axis=0), atol=1e-5)


def test_a_data_set_has_parts_labels_and_transcripts(model: Path, tmp_path: Path) -> None:
    rows = embedded(model, english_prompts(), "--part", "test", "--dtype", "float16", "--out", tmp_path / "f")
    assert len(rows) == 154
    assert {row["part"] for row in rows} == {"test"}
    twelve = next(row for row in rows if row["name"].endswith("digits/12.ogg"))
    assert (twelve["label"], twelve["transcript"]) == ("digits", "twelve")


def test_unreadable_recordings_are_listed_and_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.wav"
    junk.write_bytes(b"RIFF and no more")
    rows = embedded(model, FILES[0], junk, tmp_path / "missing.ogg", FILES[1], "--out", tmp_path / "f")
    assert [row["name"] for row in rows] == [str(FILES[0]), str(FILES[1])]
    error = capsys.readouterr().err
    assert "2 of 4 recordings are left out" in error
    assert f"{junk}: " in error
    assert run_here(["embed", model, junk, "--out", tmp_path / "g"]) == 1
    assert "none of 1 recordings can be used" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "cls"], "--pool cls is for models with a CLS token"),
        (["--size", "64"], "--size is for image models"),
        (["--keep-aspect"], "--keep-aspect is for image models"),
        (["--layer", "3"], "--layer is 3; it must be 1 to 2"),
        (["--batch", "0"], "--batch is 0"),
    ],
)
def test_options_that_can_not_be_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run_here(["embed", model, FILES[0], *options, "--out", tmp_path / "f"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
