"""What Transformers' maintained example scripts do, in short: each head is fine-tuned on an export as they fine-tune.

They load configuration, processor and model by the Auto classes, ask these for what they need under the usual names,
train with `Trainer`, and save all to one folder, which pipelines read, and our commands where they can.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    pipeline,
)

import data2vec2
from data2vec2.errors import UsageError
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from tests.integration.speech import tiny_encoder
from tests.integration.test_trainer import exported


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def trained(out: Path, model: Any, data: Any, processor: Any, collate: Any = None, **options: Any) -> Trainer:
    """After twelve steps, which lower the loss; saved as scripts save."""
    arguments = TrainingArguments(
        str(out),
        max_steps=12,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        remove_unused_columns=options.pop("remove_unused_columns", True),
        disable_tqdm=True,
        report_to=[],
    )
    trainer = Trainer(model, arguments, collate, data, data, processing_class=processor, **options)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    trainer.save_model()
    return trainer


def accuracy(found: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(found.predictions, axis=1) == found.label_ids).mean())}


def error(found: EvalPrediction) -> dict[str, float]:
    return {"mse": float(np.square(np.squeeze(found.predictions) - found.label_ids).mean())}


def named(names: list[str]) -> dict[str, dict]:
    return {"label2id": {name: str(i) for i, name in enumerate(names)}, "id2label": dict(enumerate(names))}


def agrees(said: list[dict], ours: Any) -> None:
    """What a pipeline says of one sample is what `predict` says."""
    assert {one["label"]: one["score"] for one in said} == pytest.approx(ours.classes, abs=1e-5)


def test_image_classification(tmp_path: Path, out: Path) -> None:
    statistics = {"mean": (0.29, 0.3, 0.31), "std": (0.35, 0.36, 0.37)}
    model = exported(ImageConfig(image_size=28, patch_size=7), ImageDataConfig(**statistics), tmp_path / "model")
    with np.load(fashion_mnist()) as arrays:
        keep = np.flatnonzero(arrays["y_train"] < 3)[:64]
        pictures, labels = [Image.fromarray(x) for x in arrays["x_train"][keep]], arrays["y_train"][keep].tolist()

    config = AutoConfig.from_pretrained(
        model, num_labels=3, finetuning_task="image-classification", **named(list("abc"))
    )
    network = AutoModelForImageClassification.from_pretrained(model, config=config, ignore_mismatched_sizes=True)
    processor = AutoImageProcessor.from_pretrained(model)
    assert "shortest_edge" not in processor.size
    size = (processor.size["width"], processor.size["height"])
    mean, std = (np.array(getattr(processor, name), np.float32) for name in ("image_mean", "image_std"))

    def transform(batch: dict) -> dict:
        pixels = [np.asarray(one.convert("RGB").resize(size), np.float32) / 255 for one in batch["image"]]
        batch["pixel_values"] = [torch.from_numpy(((one - mean) / std).transpose(2, 0, 1)) for one in pixels]
        return batch

    def collate(rows: list[dict]) -> dict:
        pixels, targets = torch.stack([row["pixel_values"] for row in rows]), [row["label"] for row in rows]
        return {"pixel_values": pixels, "labels": torch.tensor(targets)}

    data = Dataset.from_dict({"image": pictures, "label": labels})
    data.set_transform(transform)
    trained(out, network, data, processor, collate, compute_metrics=accuracy, remove_unused_columns=False)
    pictures[0].save(tmp_path / "boot.png")
    [ours] = data2vec2.predict(out, tmp_path / "boot.png", top=3, device="cpu")
    agrees(pipeline("image-classification", str(out), device="cpu")(str(tmp_path / "boot.png")), ours)


def test_audio_classification(tmp_path: Path, out: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    folders = ["digits", "letters"]
    files = [
        (path, i)
        for i, name in enumerate(folders)
        for path in sorted((english_prompts() / "train" / name).iterdir())[:20]
    ]
    extractor = AutoFeatureExtractor.from_pretrained(model)
    name, rate = extractor.model_input_names[0], extractor.sampling_rate

    def transform(batch: dict) -> dict:
        waves = [wave[: 2 * rate] for wave in (soundfile.read(path, dtype="float32")[0] for path in batch["path"])]
        return {name: extractor(waves, sampling_rate=rate)[name], "labels": list(batch["label"])}

    config = AutoConfig.from_pretrained(model, num_labels=2, finetuning_task="audio-classification", **named(folders))
    network = AutoModelForAudioClassification.from_pretrained(model, config=config, ignore_mismatched_sizes=True)
    network.freeze_feature_encoder()
    data = Dataset.from_dict({"path": [str(path) for path, _ in files], "label": [label for _, label in files]})
    data.set_transform(transform, output_all_columns=False)
    trained(out, network, data, extractor, compute_metrics=accuracy, remove_unused_columns=False)
    wave = {"raw": soundfile.read(files[0][0], dtype="float32")[0], "sampling_rate": rate}
    [ours] = data2vec2.predict(out, files[0][0], top=2, device="cpu")
    agrees(pipeline("audio-classification", str(out), device="cpu")(wave), ours)


def test_speech_recognition(tmp_path: Path, out: Path) -> None:
    """With a vocabulary made here, whose blank is its last letter but for the two that the tokenizer adds."""
    model = tiny_encoder(tmp_path / "model")
    with (english_prompts() / "metadata.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file_name"].startswith("train/digits/")][:16]
    texts = {str(english_prompts() / row["file_name"]): row["transcription"] for row in rows}
    letters = [
        *sorted({letter for text in texts.values() for letter in text if letter.isalpha()}),
        "|",
        "[UNK]",
        "[PAD]",
    ]
    out.mkdir()
    (out / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))

    config = AutoConfig.from_pretrained(model)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "word_delimiter_token": "|"}
    tokenizer = AutoTokenizer.from_pretrained(out, config=config, tokenizer_type=config.model_type, **special)
    assert type(tokenizer) is type(AutoTokenizer.from_pretrained(out, config=config, **special))  # as before 5.0
    extractor = AutoFeatureExtractor.from_pretrained(model)
    dropouts = {"attention_dropout": 0.0, "hidden_dropout": 0.0, "layerdrop": 0.0}
    config.update({**dropouts, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)})
    network = AutoModelForCTC.from_pretrained(model, config=config)
    network.freeze_feature_encoder()
    assert network.config.pad_token_id == len(letters) - 1
    for part in (extractor, tokenizer, config):
        part.save_pretrained(out)
    processor = AutoProcessor.from_pretrained(out)

    def prepared(row: dict) -> dict:
        wave, rate = soundfile.read(row["path"], dtype="float32")
        inputs = extractor(wave, sampling_rate=rate)
        return {"input_values": inputs.input_values[0], "labels": tokenizer(row["text"]).input_ids}

    def collate(rows: list[dict]) -> dict:
        batch = processor.pad(
            [{"input_values": row["input_values"]} for row in rows], padding=True, return_tensors="pt"
        )
        labels = processor.pad(labels=[{"input_ids": row["labels"]} for row in rows], padding=True, return_tensors="pt")
        batch["labels"] = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        return batch

    def errors(found: EvalPrediction) -> dict[str, float]:
        meant = np.where(found.label_ids == -100, tokenizer.pad_token_id, found.label_ids)
        said = tokenizer.batch_decode(found.predictions[0])
        return {"right": np.mean(np.array(said) == np.array(tokenizer.batch_decode(meant, group_tokens=False)))}

    data = Dataset.from_dict({"path": list(texts), "text": list(texts.values())}).map(
        prepared, remove_columns=["path", "text"]
    )
    best = {"preprocess_logits_for_metrics": lambda logits, labels: (torch.argmax(logits, dim=-1), labels)}
    trainer = trained(out, network, data, processor, collate, compute_metrics=errors, **best)
    labels = tokenizer.batch_decode([row["labels"] for row in data], group_tokens=False)
    assert labels == list(texts.values())

    with torch.no_grad():  # so that it says letters, and no other token
        trainer.model.lm_head.weight.normal_()
        trainer.model.lm_head.bias.zero_()[-4:] = torch.tensor([-100.0, 0.0, -100.0, -100.0])
    trainer.save_model()
    path = next(iter(texts))
    wave, rate = soundfile.read(path, dtype="float32")
    said = pipeline("automatic-speech-recognition", str(out), device="cpu")({"raw": wave, "sampling_rate": rate})
    logits = trainer.model.eval()(**processor(wave, sampling_rate=rate, return_tensors="pt")).logits
    assert said["text"] == processor.batch_decode(logits.argmax(-1))[0] != ""
    assert [one.text for one in data2vec2.transcribe(out, path, device="cpu")] == [said["text"]]
    data2vec2.export(out, tmp_path / "program", to="torch")
    assert json.loads((tmp_path / "program" / "config.json").read_text())["pad_token_id"] == 0


@pytest.mark.parametrize("regression", [False, True])
def test_glue(regression: bool, tmp_path: Path, out: Path) -> None:
    """Pairs with classes, and with numbers."""
    glosses = pq.read_table(wordnet_glosses() / "test.parquet").column("text").to_pylist()[:400]
    save_tokenizer(train_tokenizer(glosses, 600), tmp_path / "tokenizer")
    data_config = TextDataConfig(tokenizer=str(tmp_path / "tokenizer"))
    model = exported(TextConfig(vocab_size=600, max_tokens=48), data_config, tmp_path / "model")
    rows = {"sentence1": glosses[:64], "sentence2": [glosses[i if i % 2 else i + 64] for i in range(64)]}
    rows["label"] = [i / 64 if regression else i % 2 for i in range(64)]

    task = {"num_labels": 1 if regression else 2, "finetuning_task": "stsb" if regression else "mrpc"}
    config = AutoConfig.from_pretrained(model, **task)
    tokenizer = AutoTokenizer.from_pretrained(model, use_fast=True)
    network = AutoModelForSequenceClassification.from_pretrained(model, config=config, ignore_mismatched_sizes=True)
    length = min(128, tokenizer.model_max_length)

    def prepared(batch: dict) -> dict:
        return tokenizer(batch["sentence1"], batch["sentence2"], padding=False, max_length=length, truncation=True)

    data = Dataset.from_dict(rows).map(prepared, batched=True)
    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
    trained(out, network, data, tokenizer, collate, compute_metrics=error if regression else accuracy)
    pair = {"text": rows["sentence1"][0], "text_pair": rows["sentence2"][0]}
    said = pipeline("text-classification", str(out), device="cpu")(pair, function_to_apply="none")
    [ours] = data2vec2.load(out, device="cpu").predict([(pair["text"], pair["text_pair"])])
    if regression:
        assert said["score"] == pytest.approx(ours.value, abs=1e-5)
    else:
        assert said["label"] == next(iter(ours.classes))


def test_token_classification(tmp_path: Path, out: Path) -> None:
    """Words with classes, of which the first token of each word is taught."""
    glosses = pq.read_table(wordnet_glosses() / "test.parquet").column("text").to_pylist()[:400]
    save_tokenizer(train_tokenizer(glosses, 600), tmp_path / "tokenizer")
    data_config = TextDataConfig(tokenizer=str(tmp_path / "tokenizer"))
    model = exported(TextConfig(vocab_size=600, max_tokens=48), data_config, tmp_path / "model")
    names, rows = ["B-DET", "O"], [gloss.split() for gloss in glosses[:64]]
    tags = [[int(word not in ("a", "the")) for word in words] for words in rows]

    config = AutoConfig.from_pretrained(model, num_labels=2, finetuning_task="ner")
    tokenizer = AutoTokenizer.from_pretrained(model, use_fast=True)
    network = AutoModelForTokenClassification.from_pretrained(model, config=config, ignore_mismatched_sizes=True)
    assert tokenizer.is_fast
    network.config.label2id, network.config.id2label = {name: i for i, name in enumerate(names)}, dict(enumerate(names))

    def prepared(batch: dict) -> dict:
        inputs = tokenizer(batch["tokens"], padding=False, truncation=True, max_length=None, is_split_into_words=True)
        places = [inputs.word_ids(batch_index=i) for i in range(len(batch["tokens"]))]
        inputs["labels"] = [
            [
                -100 if word is None or word == before else tag[word]
                for before, word in zip([None, *of], of, strict=False)
            ]
            for tag, of in zip(batch["ner_tags"], places, strict=True)
        ]
        return inputs

    def right(found: EvalPrediction) -> dict[str, float]:
        real = found.label_ids != -100
        return {"accuracy": float((np.argmax(found.predictions, axis=2) == found.label_ids)[real].mean())}

    data = Dataset.from_dict({"tokens": rows, "ner_tags": tags}).map(prepared, batched=True)
    trained(out, network, data, tokenizer, DataCollatorForTokenClassification(tokenizer), compute_metrics=right)
    text = "the tree"
    said = pipeline("token-classification", str(out), device="cpu", aggregation_strategy="first", ignore_labels=[])(
        text
    )
    [ours] = data2vec2.load(out, device="cpu").predict([text])
    assert [part["word"] for part in ours.parts] == text.split()
    assert {one["entity_group"] for one in said} == {part["class"].removeprefix("B-") for part in ours.parts}


def test_semantic_segmentation(tmp_path: Path, out: Path) -> None:
    """Pictures scaled whole, as scripts do it, with a processor that is told so."""
    statistics = {"mean": (0.29, 0.3, 0.31), "std": (0.35, 0.36, 0.37)}
    model = exported(ImageConfig(image_size=28, patch_size=7), ImageDataConfig(**statistics), tmp_path / "model")
    with np.load(fashion_mnist()) as arrays:
        pictures = [np.stack([x] * 3, axis=2) for x in arrays["x_train"][:32]]

    names = named(["background", "clothes"])
    network = AutoModelForSemanticSegmentation.from_pretrained(model, config=AutoConfig.from_pretrained(model, **names))
    processor = AutoImageProcessor.from_pretrained(model, do_reduce_labels=False, whole=True)
    assert processor.do_reduce_labels is False
    with pytest.raises(UsageError, match="transparency"):
        AutoImageProcessor.from_pretrained(model, transparency="black")
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    rows = [
        {"pixel_values": x, "labels": torch.from_numpy(y[..., 0] > 0).long()}
        for x, y in zip(pixels, pictures, strict=True)
    ]
    trained(out, network, rows, processor)
    Image.fromarray(pictures[0]).save(tmp_path / "boot.png")
    said = pipeline("image-segmentation", str(out), device="cpu")(str(tmp_path / "boot.png"))
    [ours] = data2vec2.predict(out, tmp_path / "boot.png", device="cpu")
    mask = np.asarray(Image.open(io.BytesIO(ours.mask)))
    places = {one["label"]: np.asarray(one["mask"]) > 0 for one in said}
    for place, name in enumerate(("background", "clothes")):
        assert (places.get(name, np.zeros((28, 28), bool)) == (mask == place)).all()
