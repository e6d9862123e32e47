"""What the commands pre-train and fine-tune, or convert from the original's files, in Transformers' pipelines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.data.letters import UNKNOWN, Letters
from data2vec2.interop.folder import export_model
from data2vec2.method.heads import Classifier
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import clip_art, fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import wordnet_glosses
from tests.integration.helpers import run_here, small_npz, words
from tests.integration.pipelines import Question, ask_each
from tests.integration.speech import spoken_folder
from tests.parity.cases import GoldenCase
from tests.parity.originals import LETTERS, finetuned, pretrained, save_with_dictionary, write_bpe

FEW = words("--train.updates 3 --train.eval-every 0 --train.device cpu --train.processes 1 --train.precision float32")
DIGITS = sorted((english_prompts() / "test" / "digits").iterdir())[:3]
TEXTS = ("a large bird of prey", "the act of singing")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    with np.load(fashion_mnist()) as arrays:
        Image.fromarray(arrays["x_test"][0]).convert("RGB").save(tmp_path / "boot.png")
    return tmp_path / "boot.png"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    return tmp_path / "texts.txt"


def trained(folder: Path, recipe: str, data: Path, pretraining: str, heads: dict[str, tuple[str, Path]]) -> list[Path]:
    """Exports of heads on an encoder that the demo's recipe pre-trained in a few updates; heads have task and flags."""
    made = ["pretrain", recipe, data, "--out", folder / "pre", *FEW, *words(pretraining)]
    assert run_here(made) == 0
    for name, (flags, labelled) in heads.items():
        task, *more = words(flags)
        assert run_here(["finetune", task, folder / "pre", labelled, "--out", folder / name, *FEW, *more]) == 0
    return [folder / name / "exported" for name in heads]


def agree(answers: Sequence[Sequence[dict]], model: Path, files: object, top: int) -> None:
    """Classes of a pipeline are those of `predict`, with the same shares."""
    ours = list(data2vec2.predict(model, files, top=top, device="cpu"))
    assert len(answers) == len(ours)
    for said, one in zip(answers, ours, strict=True):
        assert {each["label"]: each["score"] for each in said[:top]} == pytest.approx(one.classes, abs=1e-5)


def agree_in_words(answers: Sequence[dict], model: Path, files: Sequence[Path]) -> None:
    """What a pipeline hears is what `transcribe` writes down."""
    assert [one["text"] for one in answers] == [one.text for one in data2vec2.transcribe(model, files, device="cpu")]


def babble(model: Path) -> None:
    """Give an untaught recogniser a head that says letters, not only blanks (nor what no transcript has)."""
    recogniser = data2vec2.Data2Vec2AudioForCTC.from_pretrained(model)
    head = recogniser.lm_head
    with torch.no_grad():
        head.weight.normal_()
        head.bias.zero_()[Letters.load(model).ids[UNKNOWN]] = -100
    recogniser.save_pretrained(model)


def test_what_the_commands_train(tmp_path: Path, picture: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures, speech, texts = small_npz(tmp_path / "small.npz"), tmp_path / "speech", tmp_path / "texts.parquet"
    spoken_folder(speech, ("digits", "letters"), train=24, test=6)
    pq.write_table(pq.read_table(wordnet_glosses() / "test.parquet").slice(0, 1_500), texts)
    eight = "--train.batch-size 8"
    [image] = trained(tmp_path / "i", "image_tiny", pictures, eight, {"classes": (f"classify {eight}", pictures)})
    heads = {"sounds": (f"classify {eight}", speech), "letters": ("ctc", speech)}
    sounds, letters = trained(tmp_path / "a", "audio_mel_tiny", speech, "--data.min-seconds 0.5", heads)
    [text] = trained(tmp_path / "t", "text_tiny", texts, eight, {"classes": ("classify", texts)})
    babble(letters)

    questions: list[Question] = [
        ("image-classification", image, [picture]),
        ("audio-classification", sounds, DIGITS),
        ("automatic-speech-recognition", letters, DIGITS),
        ("text-classification", text, TEXTS),
    ]
    seen, heard, written, read = ask_each(*questions)
    agree(seen, image, picture, 5)
    agree(heard, sounds, DIGITS, 2)
    agree_in_words(written, letters, DIGITS)
    assert all(one["text"] for one in written)
    agree(read, text, table, 1)


def stickers(folder: Path, count: int = 16) -> list[Path]:
    """Bundled drawings as they were before they were laid on white: transparent, and black where nothing is drawn."""
    folder.mkdir()
    drawings = pq.read_table(clip_art() / "test.parquet").column("image").slice(0, count).to_pylist()
    for place, drawing in enumerate(drawings):
        pixels = np.asarray(Image.open(io.BytesIO(drawing["bytes"])).convert("RGB"), dtype=np.float32)
        alpha = 255 - pixels.min(axis=2, keepdims=True)
        colours = np.where(alpha > 0, 255 - (255 - pixels) * 255 / np.maximum(alpha, 1), 0)
        Image.fromarray(np.concatenate([colours, alpha], axis=2).round().astype(np.uint8)).save(
            folder / f"{place:02}.png"
        )
    return sorted(folder.iterdir())


def test_transparent_pictures(tmp_path: Path) -> None:
    """A pipeline lays them on white, as training, `predict` and `embed` do; on black most of them would look else."""
    torch.manual_seed(0)
    modality = ImageConfig(image_size=32, patch_size=8)
    shape = ArchitectureConfig(modality=modality, encoder=EncoderConfig(embed_dim=32, num_heads=2, depth=2))
    data = ImageDataConfig(mean=(0.7, 0.7, 0.7), std=(0.3, 0.3, 0.3))
    classifier = Classifier(build_encoder(shape), 4)
    torch.nn.init.normal_(classifier.head.weight)
    info = ModelInfo(model=shape, data=data, classes=("a", "b", "c", "d"))
    export_model(classifier, info, tmp_path / "classes", "")
    export_model(classifier.encoder, ModelInfo(model=shape, data=data), tmp_path / "encoder", "")
    files = stickers(tmp_path / "stickers")
    for path in files:
        Image.open(path).convert("RGB").save(path.with_suffix(".bmp"))
    black = [path.with_suffix(".bmp") for path in files]

    said, on_black, features = ask_each(
        ("image-classification", tmp_path / "classes", files),
        ("image-classification", tmp_path / "classes", black),
        ("image-feature-extraction", tmp_path / "encoder", files),
    )
    agree(said, tmp_path / "classes", files, 4)
    best, best_on_black = (np.array([one[0]["score"] for one in each]) for each in (said, on_black))
    assert (np.abs(best - best_on_black) > 1e-4).mean() > 0.9
    for path in black:
        path.unlink()
    data2vec2.embed(tmp_path / "encoder", tmp_path / "stickers", out=tmp_path / "features.npy", device="cpu")
    pooled = np.array([np.asarray(one)[0, 1:].mean(axis=0) for one in features])
    np.testing.assert_allclose(pooled, np.load(tmp_path / "features.npy"), atol=1e-5)


def test_what_is_converted(tmp_path: Path, picture: Path, table: Path) -> None:
    """A classifier, a recogniser and a model of GLUE, as the original saves them."""
    write_bpe(tmp_path, 128)
    image, audio, text = (GoldenCase(f"{kind}_tiny") for kind in ("image", "audio", "text"))
    torch.save(finetuned(image, 3), tmp_path / "image.pt")
    save_with_dictionary(finetuned(audio, len(LETTERS)), tmp_path / "audio.pt")
    torch.save(pretrained(text), tmp_path / "pretrained.pt")
    torch.save(finetuned(text, 2), tmp_path / "text.pt")
    more = {"text": ["--pretrained", tmp_path / "pretrained.pt"]}
    for kind in ("image", "audio", "text"):
        assert run_here(["convert", tmp_path / f"{kind}.pt", tmp_path / kind, *more.get(kind, [])]) == 0

    seen, heard, read = ask_each(
        ("image-classification", tmp_path / "image", [picture]),
        ("automatic-speech-recognition", tmp_path / "audio", DIGITS),
        ("text-classification", tmp_path / "text", TEXTS),
    )
    agree(seen, tmp_path / "image", picture, 3)
    agree_in_words(heard, tmp_path / "audio", DIGITS)
    assert any(one["text"] for one in heard)
    agree([[one] if isinstance(one, dict) else one for one in read], tmp_path / "text", table, 1)
