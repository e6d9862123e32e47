"""Files of emotion2vec and of EAT's classifiers become models that compute what these do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor
from transformers import ASTFeatureExtractor, AutoModel, AutoModelForAudioClassification
from transformers.models.audio_spectrogram_transformer import feature_extraction_audio_spectrogram_transformer as ast

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.errors import UserError
from data2vec2.interop.fairseq.keys import original_name
from data2vec2.interop.fairseq.original import read_checkpoint
from data2vec2.interop.folder import load_classifier, load_encoder
from data2vec2.modalities import read_run_config
from data2vec2.modalities.audio import english_prompts, waveform
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.model import sincos_2d
from tests.integration.helpers import run_here, words
from tests.parity.relatives import (
    EXTRA,
    WIDTH,
    eat_cfg,
    eat_logits,
    eat_tensors,
    emotion2vec_model_cfg,
    emotion2vec_outputs,
    emotion2vec_tensors,
)

DIGITS = sorted((english_prompts() / "test" / "digits").iterdir())[:3]
EMOTIONS = "生气/angry 厌恶/disgusted 恐惧/fearful 开心/happy 中立/neutral 其他/other 难过/sad 吃惊/surprised <unk>"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of half a second, of less than one, and of several."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, path in enumerate(DIGITS):
        wave, rate = soundfile.read(path, dtype="float32")
        wave = (wave[:8_000], wave[:14_000], np.resize(wave, 48_000))[number]
        soundfile.write(folder / f"{number}.wav", wave, rate, subtype="FLOAT")
    return folder


def waves(folder: Path) -> list[NDArray[np.float32]]:
    return [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.iterdir())]


def heard(folder: Path, unit_variance: bool = True) -> dict[str, Tensor]:
    """Recordings as our reader normalises them, filled up with what must count for nothing."""
    found = [torch.from_numpy(waveform.normalise(wave, unit_variance)) for wave in waves(folder)]
    longest = max(map(len, found))
    values = torch.stack([torch.cat([wave, torch.full((longest - len(wave),), 3.0)]) for wave in found])
    return {
        "input_values": values,
        "attention_mask": torch.tensor([[len(wave)] for wave in found]) > torch.arange(longest),
    }


def save(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


def emotion2vec(path: Path, *, decoder: bool = True) -> tuple[dict[str, Tensor], Path]:
    """`emotion2vec_base.pt`."""
    tensors = emotion2vec_tensors(decoder=decoder)
    cfg = {"model": emotion2vec_model_cfg(), "task": {"_name": "audio_pretraining", "normalize": True}}
    return tensors, save({"args": None, "cfg": cfg, "model": tensors, "optimizer_history": [{"num_updates": 9}]}, path)


def emotion2vec_plus(folder: Path, names: str = EMOTIONS) -> tuple[dict[str, Tensor], Path]:
    """`model.pt` of emotion2vec+ with what FunASR has beside it, which alone says the model's shape."""
    tensors = emotion2vec_tensors(classes=9)
    (folder / "tokens.txt").write_text("\n".join(names.split()), "utf-8")
    config = yaml.safe_dump({"model": "Emotion2vec", "model_conf": emotion2vec_model_cfg()})
    (folder / "config.yaml").write_text(config.replace("1.0e-05", "1e-05"))  # as FunASR writes it
    return tensors, save({"cfg": None, "model": tensors}, folder / "model.pt")


@pytest.mark.parametrize("decoder", [True, False])
def test_features_of_emotion2vec(tmp_path: Path, recordings: Path, decoder: bool) -> None:
    """By the encoder, in a batch, by Transformers and by `embed`; extra tokens count in no mean."""
    tensors, source = emotion2vec(tmp_path / "emotion2vec_base.pt", decoder=decoder)
    out = tmp_path / "out"
    assert run_here(["convert", source, out]) == 0
    expected = [emotion2vec_outputs(tensors, torch.from_numpy(wave)) for wave in waves(recordings)]
    encoder, info = load_encoder(out)
    assert info.model.modality == AudioConfig(conv_dim=16, position_groups=4, num_extra_tokens=EXTRA)
    loaded = AutoModel.from_pretrained(out)
    inputs = heard(recordings)
    with torch.no_grad():
        together = encoder(inputs["input_values"], lengths_B=inputs["attention_mask"].sum(1))
        theirs = loaded(**inputs)
    for row, whole in enumerate(expected):
        torch.testing.assert_close(together.x_NLD[row, : len(whole)], whole, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs.last_hidden_state[row, : len(whole)], whole, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.pooled()[row], whole[EXTRA:].mean(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs.pooler_output[row], whole[EXTRA:].mean(0), atol=1e-4, rtol=1e-4)
    data2vec2.embed(out, recordings, out=tmp_path / "f.parquet", device="cpu")
    features = np.stack(pq.read_table(tmp_path / "f.parquet")["features"].to_pylist())
    np.testing.assert_allclose(features, torch.stack([whole[EXTRA:].mean(0) for whole in expected]), atol=1e-4)
    card = (out / "README.md").read_text()
    assert "starts with the 10 extra tokens" in card and "license: other" in card
    if decoder:
        run = read_run_config(yaml.safe_load((out / "pretraining.yaml").read_text()))
        assert (run.model.loss.cls_loss_weight, run.model.masks.num_masks) == (1.0, 8)
    assert (out / "pretraining.yaml").is_file() == decoder, "what has no decoder has no objective"
    data2vec2.convert(out, tmp_path / "again.pt", to="fairseq")
    again = read_checkpoint(tmp_path / "again.pt")["model"]
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_training_goes_on_from_emotion2vec(tmp_path: Path, recordings: Path) -> None:
    """With its objective, in which the extra tokens learn; fine-tuned, and scored."""
    _, source = emotion2vec(tmp_path / "base.pt")
    assert run_here(["convert", source, tmp_path / "out"]) == 0
    few = words("--train.updates 2 --train.eval-every 0 --train.batch-size 20 --data.min-seconds 0.2")
    start = ["pretrain", tmp_path / "out/pretraining.yaml", recordings, "--out", tmp_path / "on"]
    assert run_here([*start, "--init-from", tmp_path / "out", *few]) == 0
    before, after = (load_encoder(folder)[0].state_dict() for folder in (tmp_path / "out", tmp_path / "on/exported"))
    assert not torch.equal(before["modality.extra_tokens_1ED"], after["modality.extra_tokens_1ED"])


def test_the_classes_of_emotion2vec_plus(tmp_path: Path, recordings: Path) -> None:
    tensors, source = emotion2vec_plus(tmp_path)
    assert run_here(["convert", source, tmp_path / "out"]) == 0
    _, info = load_classifier(tmp_path / "out")
    assert info.classes == tuple(EMOTIONS.split()) and not info.multi_label
    encoder = {name.removeprefix("d2v_model."): tensor for name, tensor in tensors.items()}
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    said = list(data2vec2.predict(tmp_path / "out", recordings, top=9, device="cpu"))
    with torch.no_grad():
        found = loaded(**heard(recordings)).logits
    for wave, one, row in zip(waves(recordings), said, found, strict=True):
        mean = emotion2vec_outputs(encoder, torch.from_numpy(wave))[EXTRA:].mean(0)
        logits = mean @ tensors["proj.weight"].T + tensors["proj.bias"]
        torch.testing.assert_close(row, logits, atol=1e-4, rtol=1e-4)
        told = [one.classes[name] for name in info.classes]
        np.testing.assert_allclose(told, logits.softmax(-1), atol=1e-4)
    data2vec2.convert(tmp_path / "out", tmp_path / "again.pt", to="fairseq")
    again = read_checkpoint(tmp_path / "again.pt")["model"]
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_what_is_wrong_with_files_of_emotion2vec(tmp_path: Path) -> None:
    tensors, source = emotion2vec_plus(tmp_path, "glad sad")
    with pytest.raises(UserError, match=r"tokens\.txt has 2 lines, and .*model\.pt has 9 outputs"):
        data2vec2.convert(source, tmp_path / "out")
    (tmp_path / "tokens.txt").unlink()
    (tmp_path / "config.yaml").rename(tmp_path / "moved.yaml")
    with pytest.raises(UserError, match="--pretrained names the file"):
        data2vec2.convert(source, tmp_path / "out")
    data2vec2.convert(source, tmp_path / "out", pretrained=tmp_path / "moved.yaml")
    assert load_classifier(tmp_path / "out")[1].classes == tuple("012345678")
    (tmp_path / "moved.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"moved\.yaml can't be read"):
        data2vec2.convert(source, tmp_path / "second", pretrained=tmp_path / "moved.yaml")
    (tmp_path / "moved.yaml").write_text("model: Paraformer")
    with pytest.raises(UserError, match=r"moved\.yaml has no model_conf"):
        data2vec2.convert(source, tmp_path / "second", pretrained=tmp_path / "moved.yaml")
    base, path = emotion2vec(tmp_path / "base.pt")
    cfg = {"model": emotion2vec_model_cfg() | {"cls_type": "global"}, "task": {}}
    save({"cfg": cfg, "model": base}, path)
    with pytest.raises(UserError, match="cls_type is 'global', and only 'chunk'"):
        data2vec2.convert(path, tmp_path / "second")
    emotion2vec(path)
    del tensors["proj.bias"], tensors["proj.weight"]
    with pytest.raises(UserError, match="has no head"):
        data2vec2.convert(save({"model": tensors}, source), tmp_path / "second", pretrained=path)


def test_every_tensor_of_emotion2vec_plus_large_has_a_place() -> None:
    """185, of which two are the head's; named and shaped as in the released file."""
    shape = EncoderConfig(embed_dim=1024, num_heads=16, prenet_depth=4, depth=8)
    with torch.device("meta"):
        encoder = build_encoder(ArchitectureConfig(modality=AudioConfig(num_extra_tokens=EXTRA), encoder=shape))
    found = {
        original_name(f"student.{name}", "audio", "student", 4): list(tensor.shape)
        for name, tensor in encoder.state_dict().items()
    }
    own = "modality_encoders.AUDIO"
    assert len(found) == 183
    assert found[f"{own}.extra_tokens"] == [1, 10, 1024]
    assert found[f"{own}.relative_positional_encoder.5.0.weight"] == [1024, 64, 19]
    assert found[f"{own}.local_encoder.conv_layers.6.2.1.bias"] == [512]
    assert found[f"{own}.context_encoder.blocks.3.attn.qkv.weight"] == [3072, 1024]
    assert found["blocks.7.mlp.fc2.weight"] == [1024, 4096]


def spectrum(wave: NDArray[np.float32], length: int, mean: float, deviation: float) -> Tensor:
    """As EAT makes it, by another's program: Kaldi's, with zeros behind it or cut, then normalised."""
    extractor = ASTFeatureExtractor(do_normalize=False, max_length=length)
    found = extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"][0]
    return (found - mean) / (2 * deviation)


@pytest.mark.parametrize(
    ("length", "settings", "mean", "deviation", "mode"),
    [
        (256, {}, -4.268, 4.569, None),
        (128, {"prediction_mode": "PredictionMode.CLS_TOKEN"}, -4.268, 4.569, None),
        (64, {"esc50_eval": True, "prediction_mode": "CLS_TOKEN"}, -6.627, 5.359, None),
        (128, {"spcv2_eval": True, "prediction_mode": "MEAN_POOLING"}, -6.846, 5.565, "mean"),
    ],
)
def test_classifiers_of_eat(
    tmp_path: Path,
    recordings: Path,
    monkeypatch: pytest.MonkeyPatch,
    length: int,
    settings: dict[str, Any],
    mean: float,
    deviation: float,
    mode: str | None,
) -> None:
    """Recordings shorter and longer than the length they were fine-tuned with, alone and in a batch."""
    monkeypatch.setattr(ast, "is_speech_available", lambda: False)
    tensors = eat_tensors(sincos_2d(WIDTH, (length // 16, 8))[None], 5)
    source = save({"cfg": eat_cfg(length, **settings), "model": tensors}, tmp_path / "eat.pt")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    assert run_here(["convert", source, tmp_path / "out", "--classes", tmp_path / "names.txt"]) == 0
    classifier, info = load_classifier(tmp_path / "out")
    single = bool({"esc50_eval", "spcv2_eval"} & settings.keys())
    assert info.multi_label != single and info.pooling == (mode or "cls")
    expected = [eat_logits(tensors, spectrum(w, length, mean, deviation), cls=mode is None) for w in waves(recordings)]
    inputs = heard(recordings, unit_variance=False)
    assert len({len(wave) > 160 * length for wave in waves(recordings)}) == 2
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found = loaded(**inputs).logits, classifier(inputs["input_values"], inputs["attention_mask"].sum(1))
    for logits in found:
        torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)
    shown: dict[str, Any] = {"top": 5} if single else {"top": 5, "threshold": 0.0}
    said = list(data2vec2.predict(tmp_path / "out", recordings, **shown, device="cpu"))
    for logits, one in zip(expected, said, strict=True):
        probabilities = logits.softmax(-1) if single else logits.sigmoid()
        np.testing.assert_allclose([one.classes[name] for name in info.classes], probabilities, atol=1e-4)
    data2vec2.convert(tmp_path / "out", tmp_path / "again.pt", to="fairseq")
    again = read_checkpoint(tmp_path / "again.pt")["model"]
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_long_sounds_are_heard_as_far_as_eat_hears_them(tmp_path: Path) -> None:
    """Two minutes: what is behind the model's length changes nothing, and no window of its own is made of it."""
    tensors = eat_tensors(sincos_2d(WIDTH, (8, 8))[None], 3)
    source = save({"cfg": eat_cfg(128), "model": tensors}, tmp_path / "eat.pt")
    data2vec2.convert(source, tmp_path / "out")
    wave, sounds = np.random.default_rng(0).standard_normal(120 * 16_000) / 10, tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "long.wav", wave, 16_000)
    soundfile.write(sounds / "short.wav", wave[: 127 * 160 + 400], 16_000)
    long, short = data2vec2.predict(tmp_path / "out", sounds, top=3, threshold=0.0, device="cpu")
    assert long.classes.keys() == short.classes.keys()
    np.testing.assert_allclose(list(long.classes.values()), list(short.classes.values()), atol=1e-5)


def test_what_is_wrong_with_classifiers_of_eat(tmp_path: Path) -> None:
    tensors = eat_tensors(sincos_2d(WIDTH, (8, 8))[None], 3)
    source = save({"cfg": eat_cfg(128, prediction_mode="LIN_SOFTMAX"), "model": tensors}, tmp_path / "eat.pt")
    with pytest.raises(UserError, match="prediction_mode is LIN_SOFTMAX, and only MEAN_POOLING and CLS_TOKEN"):
        data2vec2.convert(source, tmp_path / "out")
    bare = eat_tensors(sincos_2d(WIDTH, (8, 8))[None], 3, fc_norm=False)
    with pytest.raises(UserError, match="the head is not that of a sound classifier"):
        data2vec2.convert(save({"cfg": eat_cfg(128), "model": bare}, source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_programs_run_them(tmp_path: Path, recordings: Path) -> None:
    """torch.export, and Transformers without this package, compute the same; `export` checks it."""
    (tmp_path / "of_emotions").mkdir()
    _, emotions = emotion2vec_plus(tmp_path / "of_emotions")
    tensors = eat_tensors(sincos_2d(WIDTH, (8, 8))[None], 3)
    eat = save({"cfg": eat_cfg(128), "model": tensors}, tmp_path / "eat.pt")
    for name, source in (("emotions", emotions), ("eat", eat)):
        data2vec2.convert(source, tmp_path / name)
        for flags in ("--to torch", "--standalone"):
            assert run_here(["export", tmp_path / name, tmp_path / f"{name}{flags[2:4]}", *words(flags)]) == 0


@pytest.mark.parametrize("classes", [0, 9])
def test_fine_tuning_goes_on_from_emotion2vec(tmp_path: Path, recordings: Path, classes: int) -> None:
    if classes:
        _, source = emotion2vec_plus(tmp_path)
    else:
        _, source = emotion2vec(tmp_path / "base.pt")
    data2vec2.convert(source, tmp_path / "out")
    data = tmp_path / "data"
    for number in range(12):
        wave = np.random.default_rng(number).standard_normal(8_000) * (0.1 + number % 2)
        (data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(data / "ab"[number % 2] / f"{number}.wav", wave, 16_000)
    few = words("--train.updates 2 --train.eval-every 0 --train.batch-size 20 --data.min-seconds 0.2")
    asked = ["finetune", "classify", tmp_path / "out", data, "--out", tmp_path / "run", *few]
    assert run_here(asked) == 0
    assert load_classifier(tmp_path / "run/exported")[1].model.modality == AudioConfig(
        conv_dim=16, position_groups=4, num_extra_tokens=EXTRA
    )
