"""Every kind of source from the first look to the scores: bundled pictures, written in each format."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data2vec2.data.batch import Batches, iterate
from data2vec2.data.records import open_data
from data2vec2.data.sampler import GlobalBatches
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.reader import PICTURES, ImageReader
from data2vec2.tasks.pretrain import Masks
from tests.integration.helpers import SMALL, jpeg_folder, metrics, run_here

datasets = pytest.importorskip("datasets")

FLAGS = [
    *SMALL,
    *["--train.updates", "3", "--train.log-every", "1", "--train.eval-every", "3", "--train.batch-size", "20"],
    *["--data.val-fraction", "0.3", "--data.workers", "0"],
]


def pictures(root: Path) -> list[tuple[bytes, int]]:
    """JPEG files and labels, and one file that is cut off."""
    files = sorted(jpeg_folder(root / "jpeg", 120).rglob("*.jpg"), key=lambda path: path.name)
    found = [(path.read_bytes(), int(path.parent.name.removeprefix("class"))) for path in files]
    return [*found, (found[0][0][:200], 0)]


def parquet(root: Path) -> Path | str:
    files, labels = zip(*pictures(root), strict=True)
    pq.write_table(pa.table({"image": list(files), "label": list(labels)}), root / "a.parquet", row_group_size=16)
    return root / "a.parquet"


def webdataset(root: Path) -> Path | str:
    (root / "shards").mkdir()
    found = pictures(root)
    for shard in range(3):
        with tarfile.open(root / "shards" / f"{shard:06}.tar", "w") as tar:
            for place, (content, label) in enumerate(found[shard::3]):
                for ending, data in (("cls", str(label).encode()), ("jpg", content)):
                    info = tarfile.TarInfo(f"{place:04}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return root / "shards"


def hugging_face(root: Path) -> Path | str:
    files, labels = zip(*pictures(root), strict=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = {"image": [{"bytes": file, "path": None} for file in files], "label": list(labels)}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


def metadata(root: Path) -> Path | str:
    (root / "flat").mkdir()
    lines = []
    for place, (content, label) in enumerate(pictures(root)):
        (root / "flat" / f"{place:03}.jpg").write_bytes(content)
        lines.append(json.dumps({"file_name": f"{place:03}.jpg", "label": label}))
    (root / "flat" / "metadata.jsonl").write_text("\n".join(lines))
    return root / "flat"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (parquet, "Parquet tables"),
        (webdataset, "WebDataset tars"),
        (hugging_face, "Hugging Face data set"),
        (metadata, "folder of images"),
    ],
)
def test_from_source_to_scores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path | str],
    kind: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, run = make(tmp_path), tmp_path / "run"
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *FLAGS]) == 0
    err = capsys.readouterr().err
    assert f"{kind}: 121 train, 10 classes" in err
    assert "1 samples could not be used: 1 truncated" in err or "truncated" not in err  # it may be held out
    lines = metrics(run)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert any("val_knn" in line for line in lines)

    capsys.readouterr()
    assert run_here(["evaluate", run / "exported", data, "--json", "--probes", "knn", "--max-samples", "60"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert 10 < scores["train_samples"] <= 60
    assert 10 < scores["test_samples"] <= 60


@pytest.mark.parametrize("make", [parquet, webdataset, hugging_face])
def test_workers_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path | str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = get_recipe("image_tiny")
    records = open_data(make(tmp_path), PICTURES, ARRAYS).train
    reader = ImageReader(records, config.model.modality, config.data, 0)
    order = GlobalBatches(len(records), 64, 0)  # four batches hold every sample
    batches = Batches(reader, order, [Masks(config.model.masks, reader)])
    here, there = (list(iterate(batches, 0, 4, workers=workers)) for workers in (0, 1))
    assert all(torch.equal(one.inputs, two.inputs) for one, two in zip(here, there, strict=True))
    assert [one.bad for one in here] == [two.bad for two in there]
    assert {bad.reason for one in here for bad in one.bad} == {"truncated"}


def test_a_source_that_can_not_be_used_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    (tmp_path / "a.tar").write_bytes(b"no archive")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    for data in (tmp_path / "a.tar", tmp_path / "a.parquet", f"hf:{tmp_path / 'gone'}"):
        assert run_here(["pretrain", "image_tiny", data, "--out", run, *FLAGS]) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert str(data).rpartition("/")[2] in err
    assert not run.exists()


def test_the_benchmark_prints_a_row_for_each_source() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "loader.py"
    arguments = ["--pictures", "4", "--steps", "1", "--workers", "0", "--training-rate", "100"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows] == ["source", "---", "folder", "parquet", "tar"]
    for row in rows[2:]:
        rate, share = row[1].split(" (")
        assert float(rate) / 100 == pytest.approx(float(share.split()[0]), abs=0.06)
