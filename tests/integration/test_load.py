"""load: what a model in memory says of Python objects is what the commands say of files; and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import data2vec2
from data2vec2.data.letters import Letters
from data2vec2.errors import UsageError, UserError
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.method.heads import SpeechRecognizer
from data2vec2.modalities.audio.config import AudioDataConfig
from data2vec2.modalities.data import ModelInfo
from tests.integration.speech import spoken_folder, tiny_encoder


def table(model: Path, data: Any, out: Path, **options: Any) -> NDArray[np.float32]:
    data2vec2.embed(model, data, out, **options)
    return np.stack(pq.read_table(out)["features"].to_pylist()).astype(np.float32)


@pytest.fixture(scope="module")
def pictures(small: Path) -> NDArray[np.uint8]:
    with np.load(small) as arrays:
        chosen: NDArray[np.uint8] = arrays["x_train"][::20]
    return chosen


def test_pictures_in_any_form_have_the_features_of_their_files(
    untrained: Path, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{place}.png" for place in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    expected, model = table(untrained, paths, tmp_path / "f.parquet"), data2vec2.load(untrained)
    forms: list[Any] = [
        paths,
        tmp_path,
        pictures,
        list(pictures),
        [Image.open(path) for path in paths],
        [Image.fromarray(picture).convert("RGBA") for picture in pictures],
        torch.from_numpy(pictures[:, None]),
        np.repeat(pictures[..., None], 3, axis=3),
        pictures / 255,
        torch.from_numpy(pictures).float() / 255,
        [path.read_bytes() for path in paths],
    ]
    for form in forms:
        assert np.abs(model.embed(form) - expected).max() < 1e-6
    assert np.abs(model.embed(paths[3]) - expected[3]).max() < 1e-6
    dark = model.embed([pictures[0] / 2550, pictures[1] / 255])  # a picture does not depend on its neighbours
    assert np.array_equal(model.embed([pictures[0] / 2550])[0], dark[0])


def test_options_of_embed_leave_the_model_whole(untrained: Path, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    model = data2vec2.load(untrained)
    whole = model.embed(pictures)
    np.savez(tmp_path / "x.npz", x_train=pictures)
    for options in ({"layer": 1}, {"pool": "cls"}, {"size": 35, "batch": 3}):
        expected = table(untrained, tmp_path / "x.npz", tmp_path / "f.parquet", overwrite=True, **options)
        assert np.abs(model.embed(pictures, **options) - expected).max() < 1e-6
    dense = model.embed(pictures[:2], pool="none")
    assert [one.shape for one in dense] == [(16, 16)] * 2
    assert np.abs(dense[0].mean(0) - whole[0]).max() < 1e-6
    assert np.array_equal(model.embed(pictures), whole)


def test_predictions_are_those_of_the_command(tuned: Path, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    for place, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{place:02}.png")
    expected, model = list(data2vec2.predict(tuned, tmp_path, top=3)), data2vec2.load(tuned)
    assert [one.classes for one in model.predict(pictures, top=3)] == [one.classes for one in expected]
    assert model.predict(tmp_path, top=3) == expected
    assert set(expected[0].classes) <= set(model.classes)
    assert model.embed(pictures).shape == (len(pictures), 16)  # of the encoder below the head
    (bad,) = model.predict([np.zeros((2, 2, 2, 2), np.uint8)])
    assert bad.error and "[2, 2, 2, 2]" in bad.error


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "there are no samples"),
        ([np.zeros((28, 28), np.uint8), "gone.png", object()], {}, r"2 of 3 pictures can't be used.*gone.png: unread"),
        ([np.zeros((28, 28), np.uint8)], {"layer": 9}, "--layer is 9"),
        ([np.zeros(100, np.float32)], {"rate": 16_000}, "not a picture"),
        (["a.png"], {"rate": 16_000}, "rate is 16000, and no sample is an array that needs it"),
    ],
)
def test_samples_that_can_not_be(untrained: Path, samples: Any, options: Any, message: str) -> None:
    with pytest.raises((UserError, UsageError), match=f"(?s){message}"):
        data2vec2.load(untrained).embed(samples, **options)


def test_models_that_can_not_do_it(untrained: Path, tmp_path: Path) -> None:
    model = data2vec2.load(untrained)
    with pytest.raises(UserError, match="holds an encoder without a head"):
        model.predict("a.png")
    with pytest.raises(UserError, match="is a model of pictures, not of speech"):
        model.transcribe("a.wav")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        data2vec2.load(tmp_path)


def test_waveforms_and_transcripts(tmp_path: Path) -> None:
    encoder, info = load_encoder(tiny_encoder(tmp_path / "encoder"))
    recognizer = SpeechRecognizer(encoder, 9).eval()
    torch.nn.init.normal_(recognizer.head.weight, std=2)
    full = ModelInfo(model=info.model, data=AudioDataConfig(), letters=Letters.of(["aeinot"]))
    export_model(recognizer, full, tmp_path / "letters", "")
    files = sorted(spoken_folder(tmp_path / "data", train=3, test=0).rglob("*.ogg"))
    waves, rates = zip(*(soundfile.read(path, dtype="float32") for path in files), strict=True)
    (rate,) = {*rates}
    model, heard = data2vec2.load(tmp_path / "letters"), list(data2vec2.transcribe(tmp_path / "letters", files))
    named = [{"array": wave, "sampling_rate": rate} for wave in waves]
    expected = table(tmp_path / "letters", files, tmp_path / "f.parquet")
    for form, options in ((files, {}), (waves, {"rate": rate}), (named, {}), ([waves[0], *files[1:]], {"rate": rate})):
        assert np.abs(model.embed(form, **options) - expected).max() < 1e-5
        assert [one.text for one in model.transcribe(form, **options)] == [one.text for one in heard]
    for one in (waves[0], torch.from_numpy(waves[0])):
        assert np.abs(model.embed(one, rate=rate) - expected[:1]).max() < 1e-5
    several = np.empty(len(waves), dtype=object)
    several[:] = waves
    assert np.abs(model.embed(several, rate=rate) - expected).max() < 1e-5
    stereo = np.stack([waves[0], waves[0]])
    assert np.abs(model.embed(torch.from_numpy(stereo)[None], rate=rate) - expected[:1]).max() < 1e-5
    with pytest.raises(UserError, match="a waveform needs array and sampling_rate"):
        model.embed([waves[0]])
    with pytest.raises(UsageError, match="beam"):
        model.transcribe(waves, rate=rate, decoder="greedy", beam=3)


def test_a_transformer_of_scikit_learn(untrained: Path, small: Path) -> None:
    with np.load(small) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    features = data2vec2.Data2Vec2Features(untrained, layer=2, device="cpu")
    assert clone(features).get_params() == features.get_params()
    expected = data2vec2.load(untrained, device="cpu").embed(x, layer=2)
    assert np.array_equal(features.fit_transform(x), expected)
    names = features.get_feature_names_out()
    assert len(names) == 16 and names[0] == "data2vec2features0"
    pipeline = make_pipeline(clone(features), LogisticRegression(max_iter=1_000))
    pipeline.fit(x, y)
    assert pipeline.score(x, y) > 0.5  # of ten classes
    assert cross_val_score(pipeline, list(x), y, cv=2).shape == (2,)
