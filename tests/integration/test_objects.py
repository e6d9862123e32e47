"""Training, scoring and embedding on data sets that are Python objects: the same as on files of the same samples."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import data2vec2
from data2vec2.errors import UserError
from data2vec2.modalities.text import wordnet_glosses
from tests.integration.helpers import FINETUNED, PRETRAINED, SMALL, assert_same_run, metrics, words
from tests.integration.speech import FLAGS, spoken_folder, tiny_encoder


class Pictures(Dataset[tuple[Image.Image, int]]):
    """As torchvision's data sets are: pictures of Pillow, `targets`, `classes`; the last can't be read."""

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.uint8], broken: int = 0) -> None:
        self.pictures, self.targets, self.reads, self.broken = pictures, labels.tolist(), 0, broken
        self.classes = [f"kind {label}" for label in range(10)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        self.reads += 1
        if place >= len(self) - self.broken:
            raise OSError("a broken file")
        return Image.fromarray(self.pictures[place]), self.targets[place]


@pytest.fixture(scope="module")
def arrays(parted: Path) -> dict[str, NDArray[np.uint8]]:
    with np.load(parted) as file:
        return dict(file)


def test_pretraining_is_bit_for_bit_that_on_a_file(
    pretrained: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(small) as file:
        x, y = file["x_train"], file["y_train"]
    data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    outcome = data2vec2.pretrain("image_tiny", data, tmp_path / "run", flags=PRETRAINED)
    assert outcome.state == "finished"
    assert "Python data set: 200 train, 10 classes" in capsys.readouterr().err
    assert_same_run(tmp_path / "run", pretrained, 12)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["data_path"] == "python:TensorDataset-200"
    again = data2vec2.pretrain("image_tiny", data, tmp_path / "run", resume=True)
    assert again.state == "finished"
    with pytest.raises(UserError, match="have changed since the run started"):
        data2vec2.pretrain("image_tiny", TensorDataset(torch.from_numpy(x[1:])), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"--train.processes is 2.*give 1"):
        data2vec2.pretrain("image_tiny", data, tmp_path / "two", flags=(*PRETRAINED, "--train.processes", "2"))
    assert not (tmp_path / "two").exists()


def test_finetuning_with_validation_and_evaluation(
    untrained: Path, arrays: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    train = Pictures(arrays["x_train"], arrays["y_train"])
    test = Pictures(arrays["x_test"], arrays["y_test"])
    outcome = data2vec2.finetune(
        untrained, train, tmp_path / "run", val=test, flags=(*FINETUNED, "--data.val-fraction", "0")
    )
    assert outcome.state == "finished"
    assert json.loads((tmp_path / "run" / "data.json").read_text())["parts"]["train"]["found"] == 200
    assert data2vec2.load(tmp_path / "run").classes == tuple(train.classes)
    scores = data2vec2.evaluate(untrained, train, test=test, probes=("knn",), baselines=False)
    np.savez(tmp_path / "both.npz", **arrays)
    files = data2vec2.evaluate(untrained, tmp_path / "both.npz", probes=("knn",), baselines=False)
    assert scores.rows == files.rows
    done = data2vec2.embed(untrained, test, tmp_path / "f.parquet")
    assert done.rows == 100 and pq.read_table(tmp_path / "f.parquet")["label"].to_pylist() == [
        f"kind {label}" for label in test.targets
    ]


def test_targets_save_reading_and_what_can_not_be_read_is_counted(
    untrained: Path, arrays: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    data = Pictures(arrays["x_train"], arrays["y_train"], broken=3)
    found = data2vec2.inspect(data, kind="image")
    assert found.account.part("train").bad == {f"Pictures-200[{place}]": "OSError" for place in (197, 198, 199)}
    data = Pictures(arrays["x_train"], arrays["y_train"])
    data2vec2.embed(untrained, data, tmp_path / "f.parquet")
    assert data.reads < 420  # to find the levels, and to encode; not for labels, too


def test_labels_that_are_no_classes_are_not_read(arrays: dict[str, NDArray[np.uint8]]) -> None:
    pictures = [Image.fromarray(picture) for picture in arrays["x_train"][:4]]
    for label in ({"boxes": [[0, 0, 3, 3]], "labels": [1]}, [{"bbox": [0, 0, 3, 3]}], pictures[0], 0.5):
        account = data2vec2.inspect([(picture, label) for picture in pictures], kind="image").account
        assert account.part("train").used == 4
        assert f"labels of python:list-4 are not read: the type {type(label).__name__} is no class" in account.remarks
    named = data2vec2.inspect([(picture, np.eye(3)[place % 3]) for place, picture in enumerate(pictures)], kind="image")
    assert "4 train, 3 classes" in named.description


def test_data_sets_of_the_library(untrained: Path, arrays: dict[str, NDArray[np.uint8]], tmp_path: Path) -> None:
    def rows(part: str) -> Any:
        named = datasets.ClassLabel(names=[f"kind {label}" for label in range(10)])
        features = datasets.Features({"image": datasets.Image(), "label": named})
        pictures = [Image.fromarray(picture) for picture in arrays[f"x_{part}"]]
        return datasets.Dataset.from_dict({"image": pictures, "label": arrays[f"y_{part}"].tolist()}, features)

    both = datasets.DatasetDict({"train": rows("train"), "test": rows("test")})
    scores = data2vec2.evaluate(untrained, both, probes=("knn",), baselines=False)
    assert (scores.part, scores.test_samples, scores.classes[0]) == ("test", 100, "kind 0")
    with pytest.raises(UserError, match="has no labels"):
        data2vec2.evaluate(untrained, rows("train").remove_columns("label"))


def test_recordings_with_transcripts(tmp_path: Path) -> None:
    folder = spoken_folder(tmp_path / "data", train=30, test=0)
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}
    items = []
    for name in sorted(texts):
        wave, rate = soundfile.read(folder / name, dtype="float32")
        items.append({"audio": {"array": wave, "sampling_rate": rate}, "transcription": texts[name]})
    encoder = tiny_encoder(tmp_path / "encoder")
    outcomes = [
        data2vec2.finetune(encoder, data, tmp_path / name, task="ctc", flags=FLAGS)
        for name, data in (("files", folder), ("items", items))
    ]
    assert [one.state for one in outcomes] == ["finished"] * 2
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("files", "items")]
    assert np.abs(np.subtract(*losses)).max() < 1e-3 and len(losses[0]) == 12


def test_texts(tmp_path: Path) -> None:
    table = pq.read_table(wordnet_glosses() / "test.parquet")
    table = table.take(list(range(0, len(table), len(table) // 300)))
    rows = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    pq.write_table(table, tmp_path / "train.parquet")
    flags = (
        *SMALL,
        *words("--train.updates 3 --train.log-every 1 --train.batch-size 8 --model.modality.vocab-size 300"),
    )
    losses = []
    for name, data in (("files", tmp_path / "train.parquet"), ("pairs", rows), ("rows", datasets.Dataset(table))):
        assert data2vec2.pretrain("text_tiny", data, tmp_path / name, flags=flags).state == "finished"
        losses.append([line["loss"] for line in metrics(tmp_path / name) if "loss" in line])
    assert losses[0] == losses[1] == losses[2]
    model, flags = tmp_path / "rows", words("--train.updates 2 --train.processes 1 --train.batch-size 512")
    assert data2vec2.finetune(model, rows, tmp_path / "tuned", flags=flags).state == "finished"


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "data is a Stream, which lacks __len__"),
        (TensorDataset(torch.zeros(0, 8, 8)), "TensorDataset-0 is empty"),
        (TensorDataset(torch.zeros(4, 8, 8, 8, 8)), "none of 4 samples of the Python data set can be used"),
        ([object()] * 3, "none of 3 samples"),
    ],
)
def test_objects_that_are_no_data(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        data2vec2.pretrain("image_tiny", data, tmp_path / "run", flags=SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", [[(1, 2)] * 3, [("a", 0), "b"], [("a", 0), ("b", "c")], [()] * 2, range(0)])
def test_objects_that_are_no_texts(data: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items of python:.* must all be texts, pairs of texts"):
        data2vec2.pretrain("text_tiny", data, tmp_path / "run", flags=SMALL)
