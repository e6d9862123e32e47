"""A modality that nothing of ours knows: the package of docs/own-modality.md, installed, goes through every command.

The commands of the page run as they stand, in one process, with flags that make models small and runs short.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from data2vec2.data.reader import Windowed
from data2vec2.data.records import listed_files, open_data
from data2vec2.data.source import BadSample
from tests.integration.helpers import assert_same_run, metrics
from tests.pages import ROOT, blocks
from tests.unit.reporting.pages import Page, read_page

PAGE = "docs/own-modality.md"
PACKAGE = ROOT / "docs" / "examples" / "sensors"
COUNT = 12
"""Series of each of four classes in each of the two parts."""
LOOP = (
    "--train.updates 6 --train.save-every 3 --train.eval-every 3 --train.batch-size 8 --train.micro-batch 8 "
    "--train.device cpu --train.precision float32 --train.processes 1 --data.workers 0"
)
SMALL = (
    "--model.encoder.embed-dim 16 --model.encoder.num-heads 2 --model.encoder.depth 2 --model.targets.average-layers 2"
)
MORE = {"pretrain": f"{LOOP} {SMALL}", "finetune": LOOP, "evaluate": "--labels 2 --seeds 1"}
"""Flags that are added to the page's commands."""
PRETRAIN = f"data2vec2 pretrain sensors_tiny {{}} {MORE['pretrain']}"
BY_OTHERS = """
import json, numpy, onnxruntime, torch
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification
from data2vec2.modalities import get_recipe
from data2vec2_sensors.reader import read_series
import pathlib

config = AutoConfig.from_pretrained("runs/sensors/exported")
assert (config.model_type, config.stride, len(config.mean)) == ("data2vec2-sensors", 4, 10), config
model = AutoModel.from_pretrained("runs/sensors/exported")
paths = sorted(pathlib.Path("series/test/digits").iterdir())[:4]
series = [torch.from_numpy(read_series(path.read_bytes())) for path in paths]
lengths = [len(one) for one in series]
assert len(set(lengths)) > 1
batch, mask = torch.full((4, max(lengths) + 9, 10), 1e4), torch.zeros(4, max(lengths) + 9, dtype=torch.int32)
for row, real, one in zip(batch, mask, series):
    row[: len(one)], real[: len(one)] = one, 1
with torch.no_grad():
    together = model(batch, attention_mask=mask).pooler_output
    alone = torch.cat([model(one[None]).pooler_output for one in series])
assert (together - alone).abs().max() < 1e-5, (together - alone).abs().max()
session = onnxruntime.InferenceSession("onnx/model.onnx")
found = session.run(None, {"input_values": batch.numpy(), "attention_mask": mask.numpy()})[1]
assert numpy.abs(found - together.numpy()).max() < 1e-4
classifier = AutoModelForSequenceClassification.from_pretrained("runs/classes/exported")
with torch.no_grad():
    probabilities = classifier(batch, attention_mask=mask).logits.softmax(-1).max(-1)
print(json.dumps([[classifier.config.id2label[i.item()], p.item()] for p, i in zip(*probabilities)]))
made = AutoModelForPreTraining.from_config(type(config).from_run_config(get_recipe("sensors_tiny")))
assert made(torch.randn(2, 64, 1)).loss > 0
"""
CHILD = """
import contextlib, io, json, runpy, sys, traceback
import data2vec2
from data2vec2.cli import main

done = []
for kind, given in json.load(open(sys.argv[1])):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if kind == "data2vec2":
                code = main(given)
            elif kind == "python":
                sys.argv[1:], kept = given[1:], sys.argv[1:]
                runpy.run_path(given[0], run_name="__main__")
                sys.argv[1:] = kept
            else:
                exec(compile(given, "block", "exec"), {"__name__": "block"})
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc(file=err)
            code = 99
    done.append((code, out.getvalue(), err.getvalue()))
json.dump(done, open(sys.argv[2], "w"))
"""
BAD = {
    "text.csv": b"a,b,c,d,e,f,g,h,i,j\n" + b"1,2,3,4,5,6,7,8,9,ten\n" * 40,
    "missing.csv": b"a,b,c,d,e,f,g,h,i,j\n" + b"1,2,3,4,nan,6,7,8,9,10\n" * 40,
    "three.csv": b"a,b,c\n" + b"1,2,3\n" * 40,
    "empty.npz": b"",
}
REASONS = {
    "text.csv": "no table of numbers",
    "missing.csv": "not all numbers are finite",
    "three.csv": "3 channels, not 10",
    "empty.npz": "empty file",
}


class Worked:
    """A folder in which the page's commands ran, and what each printed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.said: dict[str, tuple[int, str, str]] = {}
        """Exit code, stdout and stderr of each line or block as it was given."""

    def run(self, site: Path, *given: str) -> None:
        """Lines of a shell, or Python, one after another in one process."""
        asked = [self.words(one) for one in given]
        (self.place / "asked.json").write_text(json.dumps(asked))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-c", CHILD, "asked.json", "said.json"]
        done = subprocess.run(command, cwd=self.place, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        self.said |= dict(zip(given, json.loads((self.place / "said.json").read_text()), strict=True))

    @staticmethod
    def words(given: str) -> tuple[str, Any]:
        """How a line is run: by which program, and with which words."""
        program, *words = shlex.split(given) if "\n" not in given else [""]
        if program == "data2vec2":
            return program, [*words, *shlex.split("" if "--help" in words else MORE.get(words[0], ""))]
        if program == "python":
            return program, [str(ROOT / words[0]), *words[1:], str(COUNT)]
        return "", given

    def out(self, begins: str, code: int = 0) -> str:
        """Stdout of what begins so; it must have ended with `code`."""
        (found,) = (said for given, said in self.said.items() if given.startswith(begins))
        assert found[0] == code, f"{begins}: {found}"
        return found[1]

    def all(self, begins: str, code: int = 0) -> str:
        """Stderr too."""
        out = self.out(begins, code)
        return out + next(said[2] for given, said in self.said.items() if given.startswith(begins))

    def json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / name).read_text())
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "installed", folder / "source"], check=True)
    return folder / "installed"


@pytest.fixture(scope="module")
def worked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Worked:
    found = Worked(tmp_path_factory.mktemp("place"))
    lines = [line for language, text in blocks(PAGE) if language == "bash" for line in text.splitlines()]
    assert lines.pop(0) == f"pip install {PACKAGE.relative_to(ROOT)}"
    code = [text for language, text in blocks(PAGE) if language == "python" and not text.startswith("# data2vec2_")]
    damaged = """
import pathlib, shutil
shutil.copytree("series/train", "damaged")
for name, content in %r.items():
    pathlib.Path("damaged/digits", name).write_bytes(content)
shutil.copytree("runs/sensors", "runs/again")
shutil.rmtree("runs/again/checkpoints/step-6")
"""
    found.run(
        site, *lines, *code, BY_OTHERS, damaged % BAD,
        PRETRAIN.format("series --out runs/again --resume"),
        PRETRAIN.format("damaged --out runs/refused"),
        PRETRAIN.format("damaged --out runs/damaged --data.max-bad 0.2"),
        "data2vec2 embed runs/sensors damaged --out damaged.parquet --pool none",
        PRETRAIN.format("series --out x --model.modality.stride 0"),
        PRETRAIN.format("series --out x --model.modality.strid 2"),
        "data2vec2 export runs/sensors nothing",
    )  # fmt: skip
    return found


def test_blocks_are_in_the_files() -> None:
    named = [text for language, text in blocks(PAGE) if language == "python" and text.startswith("# data2vec2_")]
    assert len(named) >= 6
    for text in named:
        name, excerpt = text.split("\n", 1)
        assert excerpt in (PACKAGE / name.removeprefix("# ")).read_text("utf-8"), name
    assert '[project.entry-points."data2vec2.modalities"]\nsensors = "data2vec2_sensors:SPEC"' in (
        PACKAGE / "pyproject.toml"
    ).read_text("utf-8")


def test_inspect(worked: Worked) -> None:
    said = worked.out("data2vec2 inspect series")
    assert "folder of series: 48 train, 48 test, 4 classes" in said and "sensors_tiny: " in said
    page = read_page(worked.place / "series.html")
    assert page.errors == [] and "What the model sees" in page.headings


def test_pretrain(worked: Worked) -> None:
    said = worked.all("data2vec2 pretrain sensors_tiny series --out runs/sensors")
    assert "folder of series: 48 train, 48 test, 4 classes" in said
    assert "10 channels, as most of the series have" in said
    config = yaml.safe_load((worked.place / "runs/sensors/config.yaml").read_text())
    modality = config["model"]["modality"]
    assert (modality["kind"], modality["num_channels"], modality["stride"]) == ("sensors", 10, 4)
    assert len(modality["mean"]) == len(modality["std"]) == 10 and min(modality["std"]) > 0
    assert (config["data"]["kind"], config["data"]["crop_steps"]) == ("sensors", 128)
    lines = metrics(worked.place / "runs/sensors")
    assert lines[-1]["step"] == 6 and "val_knn" in lines[-1]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_resume_is_the_same_to_the_bit(worked: Worked) -> None:
    assert "resuming from update 3" in worked.all(PRETRAIN.format("series --out runs/again --resume"))
    assert_same_run(worked.place / "runs/again", worked.place / "runs/sensors", 6)


def test_help_and_doctor(worked: Worked) -> None:
    said = worked.out("data2vec2 pretrain sensors_tiny --help")
    assert "as sensors_tiny has them" in said
    for field in ("--model.modality.num-channels", "--model.modality.stride", "--data.crop-steps", "--data.max-steps"):
        assert field in said
    known = r"^modalities +image, audio, text, sound, sensors$"
    assert re.search(known, worked.out("data2vec2 doctor"), flags=re.MULTILINE)


def test_evaluate(worked: Worked) -> None:
    said, scores = worked.out("data2vec2 evaluate"), worked.json("runs/sensors/scores.json")
    assert scores["classes"] == ["digits", "letters", "phonetic", "prompts"]
    assert (scores["part"], scores["train_samples"], scores["test_samples"]) == ("test", 48, 48)
    rows = {row["features"]: row for row in scores["rows"]}
    assert rows.keys() == {"data2vec2", "random initialisation", "input statistics", "majority class"}
    assert all(0 <= row[probe] <= 1 for row in rows.values() for probe in ("knn", "linear"))
    assert all(name in said for name in rows)
    assert {curve["features"] for curve in scores["curves"]} == rows.keys() - {"majority class"}


def test_embed(worked: Worked) -> None:
    table = pq.read_table(worked.place / "features.parquet").to_pydict()
    assert "(96 series, 16 numbers each)" in worked.out("data2vec2 embed runs/sensors series")
    assert np.array(table["features"]).shape == (96, 16)
    assert set(table["label"]) == {"digits", "letters", "phonetic", "prompts"}
    assert set(table["part"]) == {"train", "test"}


def test_finetune_and_predict(worked: Worked) -> None:
    worked.out("data2vec2 finetune classify")
    scores = worked.json("runs/classes/scores.json")
    assert (scores["kind"], scores["samples"], scores["part"]) == ("classify", 48, "test")
    assert {row["name"] for row in scores["per_class"]} == {"digits", "letters", "phonetic", "prompts"}
    config = yaml.safe_load((worked.place / "runs/classes/config.yaml").read_text())
    assert config["task"] == {"kind": "sensors"} and config["data"]["kind"] == "sensors"
    rows = [line.split("\t") for line in worked.out("data2vec2 predict").splitlines()]
    files = sorted((worked.place / "series/test/digits").iterdir())
    assert [name for name, _, _ in rows] == [path.relative_to(worked.place).as_posix() for path in files]
    for (_, name, probability), (same, value) in zip(rows, json.loads(worked.out(BY_OTHERS)), strict=False):
        assert name == same and float(probability) == pytest.approx(value, abs=1e-4)


def test_export_and_transformers(worked: Worked) -> None:
    """`BY_OTHERS` has compared ONNX Runtime, a padded batch and single series."""
    said = worked.out("data2vec2 export runs/sensors onnx")
    found = re.search(r"sensors encoder: onnx \(largest difference from PyTorch (\S+)\)", said)
    assert found and 0 <= float(found[1]) < 1e-4
    worked.out(BY_OTHERS)
    (example,) = (given for given in worked.said if "print(model(series" in given)
    assert worked.out(example) == "torch.Size([2, 16])\n"
    card = (worked.place / "onnx/README.md").read_text()
    assert '"input_values": numpy.ones((2, 128, 10), dtype=numpy.float32)' in card
    for name, words in (("sensors", "AutoModel.from_pretrained"), ("classes", "data2vec2 predict PATH SERIES")):
        assert words in (worked.place / "runs" / name / "exported/README.md").read_text()
    said = worked.all("data2vec2 export runs/sensors nothing", code=2)
    assert "--data names series to check with" in said


def test_report(worked: Worked) -> None:
    page: Page = read_page(worked.place / "runs/sensors/report.html")
    assert page.errors == page.unnamed == []
    assert {"Scores", "Masks", "Nearest neighbours", "Map of samples"} <= set(page.headings)
    assert "can't be shown" not in page.text
    assert "the whole series" in page.text and "Series seen" in page.text and "A row is a channel" in page.text
    pictures = [value for name, value in page.attributes if name == "src" and value.startswith("data:image/png")]
    with np.load(worked.place / "runs/sensors/masks.npz") as masks:
        assert masks["values"].shape == (2, 32, 10)  # as many as are held out
        assert len(pictures) == 2 * 3  # masks of each
        assert all(name in page.text for name in masks["names"].tolist())
    with np.load(worked.place / "runs/sensors/gallery.npz") as gallery:
        assert all(name in page.text for name in gallery["names"].tolist())
    tuned = read_page(worked.place / "runs/classes/report.html")
    assert "Series seen" in tuned.text and "can't be shown" not in tuned.text


def test_bad_files_are_counted_and_said(worked: Worked) -> None:
    refused = worked.all(PRETRAIN.format("damaged --out runs/refused"), code=1)
    said = worked.all(PRETRAIN.format("damaged --out runs/damaged --data.max-bad 0.2"))
    known = {f"digits/{name}": reason for name, reason in REASONS.items()}
    found = worked.json("runs/damaged/data.json")["parts"]["train"]["bad"]
    held_out = set(worked.json("runs/damaged/split.json")["validation"])
    assert found == {name: reason for name, reason in known.items() if name not in held_out}
    for name, reason in found.items():
        assert f"{name}: {reason}" in refused and f"1 {reason}" in said
    left_out = worked.all("data2vec2 embed runs/sensors damaged")
    for name, reason in known.items():
        assert f"{name}: {reason}" in left_out
    table = pq.read_table(worked.place / "damaged.parquet").to_pydict()
    sizes = {len(row) for row in table["features"]}  # tokens times width
    assert len(table["name"]) == 48 and len(sizes) > 1 and all(size % 16 == 0 for size in sizes)


def test_wrong_flags_name_the_field(worked: Worked) -> None:
    said = worked.all(PRETRAIN.format("series --out x --model.modality.stride 0"), code=2)
    assert "model.modality.stride is 0; it must be" in said
    said = worked.all(PRETRAIN.format("series --out x --model.modality.strid 2"), code=2)
    assert "unknown flag --model.modality.strid; did you mean --model.modality.stride?" in said
    assert not (worked.place / "x").exists()


# The reader, in this process


@pytest.fixture
def package(site: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(site)
    import data2vec2_sensors.reader as found

    return found


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


SERIES = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npz(x=SERIES), SERIES),
        (npz(acc=SERIES, light=np.arange(6)), np.column_stack([SERIES, np.arange(6)])),
        (b'\xef\xbb\xbf"a","b"\r\n"1","2.5"\r\n3,4e1\r\n', [[1, 2.5], [3, 40]]),
        (b"PK1,b\n1,2\n", [[1, 2]]),
        (npz(x=np.zeros((2, 3, 4))), "no table of numbers"),
        (npz(x=SERIES, y=np.zeros(5)), "no table of numbers"),
        (npz(x=SERIES.astype(str)), "no table of numbers"),
        (npz(x=SERIES + 1j), "no table of numbers"),
        (npz(x=np.array([[1, None]], dtype=object)), "no table of numbers"),
        (npz(x=SERIES)[:-40], "no table of numbers"),
        (npz(), "no rows"),
        (npz(x=SERIES * 1e300), "not all numbers are finite"),
        (b"a,b\n1,2\n3,\n", "no table of numbers"),
        (b"a,b\n1,2\n3\n", "no table of numbers"),
        (b"a;b\n1;2\n", "no table of numbers"),
        (b"a,b\n1,inf\n", "not all numbers are finite"),
        (b"1,2\n3,4\n", "no names of channels in the first row"),
        (b"a,b\n", "no rows"),
        (b"\xff\xfe\0a", "no table of numbers"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_file_is_a_series_or_says_why_not(content: bytes, expected: Any, package: Any) -> None:
    if not isinstance(expected, str):
        found = package.read_series(content)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.asarray(expected, dtype=np.float32))
        return
    with pytest.raises(BadSample) as error:
        package.read_series(content)
    assert error.value.reason == expected


@pytest.fixture
def reader(package: Any, tmp_path: Path) -> Callable[..., Any]:
    """A reader of eight series of 8 to 64 steps, whose first channel counts the steps."""
    for number in range(8):
        steps = 8 * (number + 1)
        np.savez(tmp_path / f"{number}.npz", x=np.column_stack([np.arange(steps), np.full(steps, number)]))

    def made(**data: Any) -> Any:
        config = package.SensorDataConfig(crop_steps=32, **data)
        records = listed_files([tmp_path], package.SERIES)
        return package.SensorReader(records, package.SensorConfig(num_channels=2), config, seed=3)

    return made


def test_crops_follow_from_seed_epoch_and_sample(reader: Callable[..., Any]) -> None:
    order = reader().order(8)
    first, again, later = (reader().train_batch(order(step)) for step in (0, 0, 1))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert first.inputs.shape == (8, 32, 2) and first.inputs.dtype == np.float32
    starts = []
    for batch in (first, later):
        for crop, sample in zip(batch.inputs, batch.indices_B.tolist(), strict=True):
            steps = 8 * (sample + 1)
            start = int(crop[0, 0])
            assert set(crop[:, 1]) == {sample} and start <= max(0, steps - 32)
            assert crop[:, 0].tolist() == [(start + step) % steps for step in range(32)]  # short ones are repeated
        starts.append(dict(zip(batch.indices_B.tolist(), batch.inputs[:, 0, 0].tolist(), strict=True)))
    assert starts[0] != starts[1]


def test_long_series_are_cut_or_come_in_parts(reader: Callable[..., Any]) -> None:
    batch = reader(max_steps=20).eval_batch(np.array([1, 7]))
    assert batch.inputs.shape == (2, 20, 2) and batch.lengths_B.tolist() == [16, 20]
    assert not batch.inputs[0, 16:].any()
    whole, parts = (reader(max_steps=22).entire(sample) for sample in (1, 7))
    assert len(whole) == 16 and isinstance(parts, Windowed)
    assert [len(part) for part, _ in parts] == [20, 20, 20, 4]
    assert np.concatenate([part[kept] for part, kept in parts])[:, 0].tolist() == list(range(64))


def test_a_table_of_labels_is_no_series(package: Any, tmp_path: Path) -> None:
    """Though its name ends as those of series do."""
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.csv,up\nb.csv,down\n")
    found = open_data(tmp_path, package.SERIES).train
    assert (list(found.names), found.classes, found.labels.tolist()) == (["a.csv", "b.csv"], ("down", "up"), [1, 0])
    assert [Path(name).name for name in listed_files([tmp_path], package.SERIES).names] == ["a.csv", "b.csv"]
