"""Exports in Transformers' pipelines, in a fresh process, and the examples that train with its Trainer."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig, TargetConfig
from data2vec2.errors import UserError
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from tests.integration.pipelines import ask
from tests.integration.speech import tiny_encoder
from tests.unit.interop.test_transformers_pretraining import run_config

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def exported(modality: ImageConfig | TextConfig, data: ImageDataConfig | TextDataConfig, folder: Path) -> Path:
    """A tiny encoder with random weights."""
    torch.manual_seed(7)
    encoder = EncoderConfig(embed_dim=32, num_heads=2, prenet_depth=0, depth=2)
    shape = ArchitectureConfig(modality=modality, encoder=encoder)
    export_model(build_encoder(shape), ModelInfo(model=shape, data=data), folder, "")
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = ImageDataConfig(mean=(0.29,), std=(0.35,), eval_crop=1.0)
    return exported(
        ImageConfig(image_size=28, patch_size=7, num_channels=1), data, tmp_path_factory.mktemp("image") / "exported"
    )


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("audio") / "exported")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    glosses = pq.read_table(wordnet_glosses() / "test.parquet").column("text").to_pylist()
    save_tokenizer(train_tokenizer(glosses, 1_000), folder / "tokenizer")
    data = TextDataConfig(tokenizer=str(folder / "tokenizer"))
    return exported(TextConfig(vocab_size=1_000, max_tokens=48), data, folder / "exported")


Example = Callable[..., list[float]]


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Example:
    """Runs an example and gives the numbers of the last line that it prints."""

    def run(name: str, *arguments: object) -> list[float]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return [float(number) for number in re.findall(r" (\d+\.\d+)", capsys.readouterr().out.splitlines()[-1])]

    return run


def test_pictures(image: Path, tmp_path: Path, example: Example) -> None:
    before, after = example("finetune_images.py", image, tmp_path / "out", 60)
    assert after > before + 0.2
    with np.load(fashion_mnist()) as arrays:
        Image.fromarray(arrays["x_test"][0]).convert("RGB").save(tmp_path / "boot.png")
    [said] = ask("image-classification", tmp_path / "out", tmp_path / "boot.png")
    [ours] = data2vec2.predict(tmp_path / "out", tmp_path / "boot.png", top=3)
    for theirs, (name, share) in zip(said, ours.classes.items(), strict=False):
        assert theirs["label"] == name and theirs["score"] == pytest.approx(share, abs=1e-5)


def test_sounds(audio: Path, tmp_path: Path, example: Example) -> None:
    before, after = example("finetune_sounds.py", audio, tmp_path / "out", 60)
    assert after > max(before, 0.6)
    files = sorted((english_prompts() / "test" / "digits").iterdir())[:2]
    said = ask("audio-classification", tmp_path / "out", *files)
    for theirs, ours in zip(said, data2vec2.predict(tmp_path / "out", files, top=2), strict=True):
        assert {one["label"]: one["score"] for one in theirs} == pytest.approx(ours.classes, abs=1e-5)


def test_speech(audio: Path, tmp_path: Path, example: Example) -> None:
    """The loss falls; what a pipeline hears is what `transcribe` does, also of a head that says more than blank."""
    before, after = example("finetune_speech.py", audio, tmp_path / "out", 30)
    assert after < before / 2
    model = data2vec2.Data2Vec2AudioForCTC.from_pretrained(tmp_path / "out")
    torch.nn.init.normal_(model.lm_head.weight)
    torch.nn.init.zeros_(model.lm_head.bias)
    model.save_pretrained(tmp_path / "out")
    files = sorted((english_prompts() / "test" / "digits").iterdir())[:4]
    said = ask("automatic-speech-recognition", tmp_path / "out", *files)
    ours = list(data2vec2.transcribe(tmp_path / "out", files))
    assert [one["text"] for one in said] == [one.text for one in ours]
    assert all(one["text"] for one in said)
    assert said[0]["chunks"][0]["timestamp"][0] < 2  # seconds


def test_texts(text: Path, tmp_path: Path, example: Example) -> None:
    before, after = example("finetune_text.py", text, tmp_path / "out", 60)
    assert after > before + 0.1
    words = ["a large bird of prey", "the act of singing"]
    (tmp_path / "texts.txt").write_text("\n".join(words))
    said = ask("text-classification", tmp_path / "out", *words)
    for [theirs], ours in zip(said, data2vec2.predict(tmp_path / "out", tmp_path / "texts.txt"), strict=True):
        assert {theirs["label"]: theirs["score"]} == pytest.approx(ours.classes, abs=1e-5)


def test_features_of_a_text(text: Path) -> None:
    [features] = ask("feature-extraction", text, "a large bird of prey")
    assert np.asarray(features).shape[2] == 32


def test_pretraining(tmp_path: Path, example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data2vec2.modalities.get_recipe", small_recipe(get_recipe))
    [loss] = example("pretrain_images.py", tmp_path / "out", 3)
    assert np.isfinite(loss)
    info = load_encoder(tmp_path / "out")[1]
    assert info.model.modality.num_channels == 1
    model = data2vec2.Data2Vec2ImageForPreTraining.from_pretrained(tmp_path / "out")
    assert int(model.passes) == int(model.teacher_updates) == 3
    student, teacher = dict(model.encoder.named_parameters()), dict(model.teacher.named_parameters())
    assert any(not torch.equal(student[name], tensor) for name, tensor in teacher.items())


def pretrained(folder: Path, resume: Path | None = None, **options: object) -> dict[str, torch.Tensor]:
    """What the Trainer makes of a tiny model in six steps of two batches, recomputing its blocks."""
    torch.manual_seed(0)
    model = data2vec2.Data2Vec2ImageForPreTraining(data2vec2.Data2Vec2ImageConfig.from_run_config(run_config()))
    arguments = TrainingArguments(
        str(folder),
        max_steps=6,
        save_steps=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        disable_tqdm=True,
    )
    pictures = list(torch.randn(48, 3, 24, 24, generator=torch.Generator().manual_seed(1)))
    options = {"callbacks": [data2vec2.TeacherUpdate()], **options}
    collate = lambda rows: {"pixel_values": torch.stack(rows)}  # noqa: E731
    trainer = Trainer(model, arguments, collate, pictures, **options)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return model.state_dict()


def test_pretraining_that_is_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = pretrained(tmp_path / "whole")
    resumed = pretrained(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-3")
    assert (int(whole["passes"]), int(whole["teacher_updates"])) == (12, 6)
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, resumed[name])]


def test_pretraining_without_the_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TeacherUpdate\(\)"):
        pretrained(tmp_path / "out", callbacks=[])


def small_recipe(whole):
    """The recipe with an encoder that takes milliseconds a step."""

    def recipe(name: str):
        config = whole(name)
        encoder = replace(config.model.encoder, embed_dim=16, num_heads=2, depth=2)
        parts = {"decoder": replace(config.model.decoder, dim=16, depth=2), "targets": TargetConfig(average_layers=2)}
        return replace(config, model=replace(config.model, encoder=encoder, **parts))

    return recipe
