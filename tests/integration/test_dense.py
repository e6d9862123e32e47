"""finetune tokens, frames and patches on real data: from training to evaluate, predict, export and Transformers."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForAudioFrameClassification,
    AutoModelForSemanticSegmentation,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers.testing_utils import CaptureLogger
from transformers.utils.logging import get_logger

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.evaluation.dense import entities
from data2vec2.interop.folder import export_model, load_model
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.phones import read_phones
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from tests.integration.helpers import run_here, words

SMALL = EncoderConfig(embed_dim=32, num_heads=2, prenet_depth=0, depth=2)
FLAGS = words(
    "--train.eval-every 30 --train.log-every 30 --train.precision float32 --train.device cpu --train.processes 1 "
    "--data.workers 0"
)
CLOTHES = ("background", *(f"garment{n}" for n in range(10)))


def exported(folder: Path, modality: Any, data: Any) -> Path:
    shape = ArchitectureConfig(modality=modality, encoder=SMALL)
    torch.manual_seed(7)
    export_model(build_encoder(shape), ModelInfo(model=shape, data=data), folder, "")
    return folder


def tuned(task: str, model: Path, data: Path, run: Path, flags: str) -> dict[str, Any]:
    """Scores of a run, which has ended well, and which evaluate gives too."""
    assert run_here(["finetune", task, model, data, "--out", run, *FLAGS, *words(flags)]) == 0
    scores: dict[str, Any] = json.loads((run / "scores.json").read_text())
    assert scores["kind"] == task
    return scores


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[Any]:
    capsys.readouterr()
    assert run_here([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def check_pages(run: Path, scores: dict[str, Any]) -> None:
    """The report and the card have the baselines beside the model."""
    page, card = (run / "report.html").read_text(), (run / "exported" / "README.md").read_text()
    for row in scores["baselines"]:
        assert row["name"].replace("'", "&#39;") in page
        assert row["name"] in card
    assert "Confusion matrix" in page
    assert "mistakes.npz" not in page


# Words


def tagged(text: str) -> tuple[list[str], list[str]]:
    """Words of a gloss, and which are an example of its use: what stands in quotes."""
    tokens, tags = text.split(), list[str]()
    inside = False
    for token in tokens:
        begins = token.startswith('"')
        inside = inside or begins
        tags.append("B-USE" if begins else "I-USE" if inside else "O")
        if token.rstrip(".,;:!?)").endswith('"') and (token.count('"') > 1 or not begins):
            inside = False
    return tokens, tags


@pytest.fixture(scope="module")
def glosses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glosses")
    texts = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"]
    rows = [tagged(text) for text in texts if '"' in text][:700]
    for part, some in (("train", rows[:550]), ("test", rows[550:])):
        lines = [json.dumps({"tokens": tokens, "ner_tags": tags}) for tokens, tags in some]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def words_run(tmp_path_factory: pytest.TempPathFactory, glosses: Path) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("words")
    texts = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"]
    save_tokenizer(train_tokenizer(texts, 500), place / "tokenizer")
    size = load_tokenizer(place / "tokenizer").size
    data = TextDataConfig(tokenizer=str(place / "tokenizer"))
    model = exported(place / "model", TextConfig(vocab_size=size, max_tokens=48), data)
    flags = "--train.updates 90 --train.batch-size 1024 --optim.lr 0.01"
    return place / "run", tuned("tokens", model, glosses, place / "run", flags)


def test_words_from_training_to_predictions(
    words_run: tuple[Path, dict[str, Any]], glosses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scores = words_run
    assert (scores["part"], scores["classes"]) == ("test", ["B-USE", "I-USE", "O"])
    assert scores["entity_f1"] > 0.2 > max(row["entity_f1"] for row in scores["baselines"][:1])
    assert [row["name"] for row in scores["baselines"]] == ["most common class (O)", "each word's most common tag"]
    (again,) = said(capsys, "evaluate", run, glosses)
    same = ("entity_f1", "macro_f1", "accuracy", "intervals", "confusion", "words")
    assert {key: again[key] for key in same} == {key: scores[key] for key in same}
    rows = [json.loads(line) for line in (glosses / "test.jsonl").read_text().splitlines()]
    found = said(capsys, "predict", run, glosses / "test.jsonl")
    assert [[part["word"] for part in one["parts"]] for one in found] == [row["tokens"] for row in rows]
    pairs = [
        [(tag, part["class"]) for tag, part in zip(row["ner_tags"], one["parts"], strict=True) if part["class"]]
        for row, one in zip(rows, found, strict=True)
    ]
    truth, told = zip(*(pair for row in pairs for pair in row), strict=True)
    assert scores["words"] == len(truth)
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, told))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, told, average="macro"))
    sets = [[entities([pair[side] for pair in row]) for row in pairs] for side in (0, 1)]
    right = sum(len(a & b) for a, b in zip(*sets, strict=True))
    assert scores["entity_f1"] == pytest.approx(2 * right / sum(len(one) for side in sets for one in side))
    account = (run / "data.json").read_text()
    assert re.search(r"\d+ test words are neither learned nor scored, .*sentences are cut to 48 tokens", account)
    check_pages(run, scores)


def test_words_in_transformers_and_in_python(
    words_run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = words_run[0] / "exported"
    theirs, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForTokenClassification, AutoTokenizer))
    ours, info = load_model(folder)
    assert info.what == "token classifier"
    texts = ['a formal offer; "he made a proposal"', "an act"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**inputs).logits
        real = inputs["attention_mask"].bool()
        assert torch.equal(logits[real], ours(inputs["input_ids"], inputs["attention_mask"].sum(1))[real])
    model = data2vec2.load(folder)
    (one,) = model.predict(texts[0])
    pieces = pipeline("token-classification", model=str(folder), ignore_labels=[])(texts[0])
    labels = {piece["start"]: piece["entity"] for piece in pieces}  # a token may begin with the space before its word
    start = 0
    for part in one.parts:
        assert labels.get(start, labels.get(start - 1)) == part["class"]
        start += len(part["word"]) + 1
    text = tmp_path / "texts.txt"
    text.write_text("\n".join(texts))
    assert run_here(["predict", folder, text]) == 0
    listed = tmp_path / "listed.jsonl"
    listed.write_text('{"tokens": ["an", "act"]}\n{"tokens": []}\n{"tokens": ["a", "formal", "offer"]}\n')
    capsys.readouterr()
    assert run_here(["predict", folder, listed]) == 1
    printed = capsys.readouterr()
    assert [line.split("\t")[1] for line in printed.out.splitlines()] == ["an", "act", "a", "formal", "offer"]
    assert "listed.jsonl[1]: no words" in printed.err


def test_a_head_that_transformers_made(words_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A new head on our encoder learns by their loss, is saved by them, and read by our commands."""
    model = words_run[0].parent / "model"
    network = AutoModelForTokenClassification.from_pretrained(model, num_labels=2, id2label={0: "no", 1: "yes"})
    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = tokenizer(["an act", "a formal offer"], padding=True, return_tensors="pt")
    labels = torch.where(inputs["input_ids"] % 3 == 0, 1, 0).masked_fill(inputs["attention_mask"] == 0, -100)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    network.train()
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append(network(**inputs, labels=labels).loss)
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (one,) = data2vec2.load(tmp_path).predict("an act")
    assert [part["word"] for part in one.parts] == ["an", "act"]
    assert {part["class"] for part in one.parts} <= {"no", "yes"}


def test_what_is_refused(
    words_run: tuple[Path, dict[str, Any]], glosses: Path, untrained: Path, tmp_path: Path, capsys: Any
) -> None:
    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert run_here(arguments) in (1, 2)
        return str(capsys.readouterr().err)

    out = ("--out", tmp_path / "run")
    run = words_run[0]
    assert "finetune tokens needs a model of text" in refused("finetune", "tokens", untrained, glosses, *out)
    few = ("--data.labels-per-class", "5")
    assert "is for classes of samples" in refused("finetune", "tokens", run, glosses, *out, *few)
    pooling = ("--model.pooling", "first")
    assert "--model.pooling is first, but nothing" in refused("finetune", "tokens", run, glosses, *out, *pooling)
    assert "--seed is for the features of an encoder" in refused("evaluate", run, glosses, "--seed", "1")
    alike = tmp_path / "alike.jsonl"
    alike.write_text('{"tokens": ["a", "b"], "tags": ["O", "O"]}\n' * 20)
    assert "all words of" in refused("finetune", "tokens", run, alike, *out)
    other = tmp_path / "other.jsonl"
    other.write_text('{"tokens": ["a", "b"], "tags": ["B-LOC", "O"]}\n' * 20)
    assert "the data have the classes B-LOC, and the model only" in refused("evaluate", run, other)
    assert "--masks is for models of finetune patches" in refused("predict", run, other, "--masks", tmp_path / "m")
    assert "--labels is for the features of an encoder" in refused("evaluate", run, glosses, "--labels", "5")
    assert "--probes is for the features of an encoder" in refused("evaluate", run, glosses, "--probes", "knn")
    assert "--lm-weight needs a speech recogniser" in refused("evaluate", run, glosses, "--lm-weight", "3")
    assert "--top is for classes of whole samples" in refused("predict", run, glosses, "--top", "2")
    conll = tmp_path / "words.conll"
    conll.write_text("a DT B-USE\nb NN O\n\n" * 20)
    for column in ("0", "tags"):
        wrong = refused("finetune", "tokens", run, conll, *out, "--data.label-column", column)
        assert f"the label column is {column!r}; of words.conll it must be a number, from 1 on" in wrong
    named = ("--text-columns", "body")
    assert "words.conll has no names of columns: leave body out" in refused("evaluate", run, conll, *named)
    assert "words.conll has no names of columns: leave body out" in refused("predict", run, conll, *named)
    onnx = ("--int8", "--data", glosses)
    assert "--int8 measures its drop" in refused("export", run, tmp_path / "onnx", *onnx)
    assert "it has no token classifier" in refused("convert", run, tmp_path / "x.pt", "--to", "fairseq")
    assert not (tmp_path / "run").exists()


# Frames


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real recordings, and where somebody speaks in them."""
    folder, lines = tmp_path_factory.mktemp("prompts"), list[str]()
    parts = {"train": 60, "test": 40}
    for name, alignment in read_phones(english_prompts() / "phones.csv").items():
        part = name.split("/")[0]
        if not parts.get(part):
            continue
        parts[part] -= 1
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(english_prompts() / name, folder / name)
        spoken: list[dict[str, Any]] = []
        for start, end, phone in alignment:
            if phone != "SIL" and spoken and spoken[-1]["end"] == start:
                spoken[-1]["end"] = end
            elif phone != "SIL":
                spoken.append({"start": start, "end": end, "label": "speech"})
        lines.append(json.dumps({"file_name": name, "segments": spoken}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def frames_run(tmp_path_factory: pytest.TempPathFactory, prompts: Path) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("frames")
    config = AudioConfig(stem="mel", position_depth=2, position_kernel=9, position_groups=8)
    model = exported(place / "model", config, AudioDataConfig())
    flags = "--train.updates 60 --train.batch-size 20 --optim.lr 0.004"
    return place / "run", tuned("frames", model, prompts, place / "run", flags)


def test_frames_from_training_to_predictions(
    frames_run: tuple[Path, dict[str, Any]], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scores = frames_run
    assert (scores["part"], scores["classes"]) == ("test", ["speech", "none"])
    names = ["most common class (speech)", "linear probe on log-mel frames"]
    assert [row["name"] for row in scores["baselines"]] == names
    assert scores["macro_f1"] > scores["baselines"][0]["macro_f1"] + 0.1
    assert scores["baselines"][1]["macro_f1"] > scores["baselines"][0]["macro_f1"] + 0.1
    (again,) = said(capsys, "evaluate", run, prompts)
    same = ("macro_f1", "accuracy", "intervals", "confusion", "frames")
    assert {key: again[key] for key in same} == {key: scores[key] for key in same}
    right = total = 0
    spoken = [json.loads(line) for line in (prompts / "metadata.jsonl").read_text().splitlines()]
    for row in spoken:
        if not row["file_name"].startswith("test"):
            continue
        (one,) = said(capsys, "predict", run, prompts / row["file_name"])
        parts = one["parts"]
        assert parts[0]["start"] == 0
        assert all(a["end"] == b["start"] and a["class"] != b["class"] for a, b in pairwise(parts))
        tokens = (len(soundfile.read(prompts / row["file_name"])[0]) - 560) // 320 + 1
        for token in range(tokens):
            time = (token * 320 + 280) / 16_000
            truth = any(part["start"] <= time < part["end"] for part in row["segments"])
            told = next(part["class"] for part in parts if part["start"] <= time < part["end"])
            right, total = right + (truth == (told == "speech")), total + 1
    assert (right / total, total) == (pytest.approx(scores["accuracy"]), scores["frames"])
    assert "of the time to train on is in no segment: the class 'none'" in (run / "data.json").read_text()
    check_pages(run, scores)


def test_frames_in_transformers(frames_run: tuple[Path, dict[str, Any]], prompts: Path) -> None:
    folder = frames_run[0] / "exported"
    theirs, extractor = (
        kind.from_pretrained(folder) for kind in (AutoModelForAudioFrameClassification, AutoFeatureExtractor)
    )
    ours, _ = load_model(folder)
    waves = [soundfile.read(path)[0] for path in sorted(prompts.glob("test/*/*.ogg"))[:3]]
    inputs = extractor(waves, sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**inputs).logits
        assert torch.equal(logits, ours(inputs["input_values"], inputs["attention_mask"].sum(1)))
        labels = logits.argmax(-1)
        assert theirs(**inputs, labels=labels).loss < theirs(**inputs, labels=1 - labels).loss


def test_few_minutes_are_drawn(
    frames_run: tuple[Path, dict[str, Any]], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, flags = frames_run[0].parent / "model", "--train.updates 1 --train.batch-size 20 --data.max-minutes 0.5"
    tuned("frames", model, prompts, tmp_path / "run", flags)
    account = json.loads((tmp_path / "run" / "data.json").read_text())["parts"]["train"]
    assert account["left_out_as_asked"]["--data.max-minutes"] == account["found"] - account["used"] > 0
    assert "data: 0.5 minutes; recordings of" in capsys.readouterr().err
    unused = ("--out", tmp_path / "other", "--model.pooling", "linear_softmax")
    assert run_here(["finetune", "frames", model, prompts, *unused]) == 2
    assert "--model.pooling is linear_softmax, but nothing" in capsys.readouterr().err


def test_gaps_can_be_ignored_and_segments_may_reach_too_far(
    frames_run: tuple[Path, dict[str, Any]], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(prompts, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows):
        middle = 0.3
        row["segments"] = [
            {"start": 0.0, "end": middle, "label": "first"},
            {"start": middle + 0.1, "end": 99.0 if n == 0 else middle + 0.3, "label": "second"},
        ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    model = frames_run[0].parent / "model"
    flags = "--train.updates 2 --train.batch-size 20 --data.gaps ignore"
    scores = tuned("frames", model, folder, tmp_path / "run", flags)
    assert scores["classes"] == ["first", "second"]
    account = json.loads((tmp_path / "run" / "data.json").read_text())
    assert any("is in no segment: neither learned nor scored" in one for one in account["choices"])
    mended = [why for part in account["parts"].values() for why in part["mended"].values()]
    assert mended == ["segments beyond its end are cut"]


# Patches


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundled pictures, whose masks are what is no background: which garment it is."""
    folder = tmp_path_factory.mktemp("clothes")
    with np.load(fashion_mnist()) as arrays:
        for part, count in (("train", 300), ("test", 80)):
            for n, (x, y) in enumerate(zip(arrays[f"x_{part}"][:count], arrays[f"y_{part}"][:count], strict=True)):
                mask = np.where(x > 0, y + 1, 0).astype(np.uint8)
                for kind, pixels in (("images", x), ("masks", mask)):
                    (folder / part / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(folder / part / kind / f"{n:03}.png")
    (folder / "classes.txt").write_text("\n".join(CLOTHES) + "\n")
    return folder


@pytest.fixture(scope="module")
def patches_run(tmp_path_factory: pytest.TempPathFactory, clothes: Path) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("patches")
    config = ImageConfig(image_size=28, patch_size=4, num_channels=1)
    model = exported(place / "model", config, ImageDataConfig(mean=(0.286,), std=(0.353,)))
    return place / "run", tuned("patches", model, clothes, place / "run", "--train.updates 150 --train.batch-size 8")


def test_patches_from_training_to_predictions(
    patches_run: tuple[Path, dict[str, Any]], clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scores = patches_run
    assert (scores["part"], scores["classes"]) == ("test", list(CLOTHES))
    assert scores["pixels"] == 80 * 28 * 28
    names = ["most common class (background)", "linear probe on mean colours of patches"]
    assert [row["name"] for row in scores["baselines"]] == names
    assert scores["miou"] > scores["baselines"][0]["miou"] + 0.02
    (again,) = said(capsys, "evaluate", run, clothes)
    same = ("miou", "macro_f1", "accuracy", "intervals", "confusion", "pixels")
    assert {key: again[key] for key in same} == {key: scores[key] for key in same}
    found = said(capsys, "predict", run, clothes / "test" / "images", "--masks", tmp_path / "masks")
    right = 0
    for one in found:
        told, truth = (
            np.asarray(Image.open(folder / Path(one["name"]).name))
            for folder in (tmp_path / "masks", clothes / "test" / "masks")
        )
        right += (told == truth).sum()
        shares = {part["class"]: part["share"] for part in one["parts"]}
        assert shares == {CLOTHES[place]: pytest.approx((told == place).mean()) for place in np.unique(told)}
    assert right / scores["pixels"] == pytest.approx(scores["accuracy"])
    assert run_here(["predict", run, clothes / "test" / "images", "--masks", tmp_path / "masks"]) == 1
    check_pages(run, scores)


def test_patches_in_transformers_and_exported(
    patches_run: tuple[Path, dict[str, Any]], clothes: Path, tmp_path: Path
) -> None:
    folder = patches_run[0] / "exported"
    theirs, processor = (
        kind.from_pretrained(folder) for kind in (AutoModelForSemanticSegmentation, AutoImageProcessor)
    )
    ours, _ = load_model(folder)
    wide = Image.open(clothes / "test" / "images" / "000.png").resize((50, 28))
    inputs = processor([wide, wide], return_tensors="pt")
    with torch.no_grad():
        outputs = theirs(**inputs)
        assert outputs.logits.shape == (2, 11, 7, 7)
        assert torch.equal(outputs.logits, ours(inputs["pixel_values"]))
        labels = torch.full((2, 28, 28), 255)
        labels[:, :14] = outputs.logits[:, :, 0, 0].argmax(1)[:, None, None]
        assert theirs(**inputs, labels=labels).loss.isfinite()
    (found, _) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(28, 50)] * 2)
    assert found.shape == (28, 50)
    with CaptureLogger(get_logger("transformers.pipelines.base")) as log:
        told = pipeline("image-segmentation", model=str(folder))(wide)
    assert "not supported" not in log.out
    for one in told:
        mask = np.asarray(one["mask"]) > 0
        assert np.array_equal(mask, found.numpy() == CLOTHES.index(one["label"]))
    (own,) = data2vec2.load(folder).predict(wide)
    assert {part["class"] for part in own.parts} == {one["label"] for one in told}
    assert run_here(["export", folder, tmp_path / "program", "--to", "torch"]) == 0


def test_augmentation_that_moves_pictures_is_refused(
    patches_run: tuple[Path, dict[str, Any]], clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = patches_run[0].parent / "model"
    flags = ("--augment.rand-augment", "rand-m9-mstd0.5-inc1")
    assert run_here(["finetune", "patches", model, clothes, "--out", tmp_path / "run", *flags]) == 2
    assert "timm's augmentation changes pictures without their masks" in capsys.readouterr().err
    flags = ("--augment.label-smoothing", "0.5")
    assert run_here(["finetune", "patches", model, clothes, "--out", tmp_path / "run", *flags]) == 2
    assert "--augment.label-smoothing is 0.5, but nothing would be done with it" in capsys.readouterr().err
    flags = ("--data.max-pixels", "500")
    assert run_here(["finetune", "patches", model, clothes, "--out", tmp_path / "run", *flags]) == 1
    assert "has no masks to learn from (300 too large, above 500 pixels" in capsys.readouterr().err
