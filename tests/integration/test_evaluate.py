"""What a run held out is what it is scored on; every option of `evaluate` on real files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data2vec2
from data2vec2.commands.evaluate import format_scores
from data2vec2.data.records import open_data
from data2vec2.evaluation.intervals import of_share
from data2vec2.evaluation.probes import Curve
from data2vec2.evaluation.scores import Row, Scores
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.reader import PICTURES
from tests.integration.helpers import SMALL, files, jpeg_folder, run_here
from tests.unit.reporting.pages import read_page


@pytest.fixture(scope="module")
def data(small: Path) -> Path:
    """Two hundred pictures without parts."""
    return small


@pytest.fixture(scope="module")
def tested(parted: Path) -> Path:
    """Two hundred pictures, and a hundred to test on."""
    return parted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Two updates of a small model, which held out half of the data."""
    path = tmp_path_factory.mktemp("runs") / "run"
    flags = [*SMALL, *["--train.updates", "2", "--train.eval-every", "0", "--data.val-fraction", "0.5"]]
    assert run_here(["pretrain", "image_tiny", data, "--out", path, *flags]) == 0
    return path


def test_a_run_is_scored_on_what_it_held_out(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = json.loads((run / "split.json").read_text())["validation"]
    assert len(names) == 100
    capsys.readouterr()

    assert run_here(["evaluate", run, data, "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert "held-out part" in err
    assert (scores["train_samples"], scores["test_samples"]) == (100, 100)
    records = open_data(data, PICTURES, ARRAYS).train
    held_out = np.isin(records.names, names)
    train_labels, test_labels = records.labels[~held_out], records.labels[held_out]
    majority = (test_labels == np.bincount(train_labels).argmax()).mean()
    assert scores["rows"][-1] == {"features": "majority class", "knn": majority, "linear": majority}
    assert json.loads((run / "scores.json").read_text()) == scores
    assert {"gallery.npz", "report.html"} <= files(run)

    assert run_here(["evaluate", run / "exported", data, "--probes", "knn"]) == 0  # an export does not know
    assert "split-off part" in capsys.readouterr().err


def test_a_classifier_is_not_scored_on_what_it_learned_the_labels_of(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--train.updates", "2", "--data.val-fraction", "0.2", "--train.device", "cpu", "--train.processes", "1"]
    assert run_here(["finetune", "classify", run, data, "--out", tmp_path / "run", *flags]) == 0
    capsys.readouterr()
    assert run_here(["evaluate", tmp_path / "run", data, "--probes", "knn", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "held-out part" in err and json.loads(out)["test_samples"] == 40
    assert run_here(["evaluate", tmp_path / "run" / "exported", data, "--probes", "knn"]) == 0
    assert "if it learned labels of" in capsys.readouterr().err


def test_a_classifier_s_own_answers_are_scored_too(
    tuned: Path, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run = json.loads((tuned / "scores.json").read_text())
    assert of_run["part"] == "test"
    quick = ["--probes", "knn", "--device", "cpu"]
    assert run_here(["evaluate", tuned, tested, *quick, "--json"]) == 0
    own = json.loads(capsys.readouterr().out)["own"]
    names = ("samples", "classes", "accuracy", "intervals", "confusion", "per_class")
    assert {name: own[name] for name in names} == {name: of_run[name] for name in names}
    assert run_here(["evaluate", tuned, tested, *quick]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"its own answers: accuracy {own['accuracy']:.4f} (95 % interval ")
    assert err.splitlines()[-1] == f"next: data2vec2 predict {tuned} FILES"
    others = jpeg_folder(tmp_path / "others")
    assert run_here(["evaluate", tuned, others, *quick, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "own" not in json.loads(out) and "has other classes than" in err


def test_a_model_beside_the_one_before(
    run: Path, pretrained: Path, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, before = (Path(shutil.copytree(one / "exported", tmp_path / one.name)) for one in (run, pretrained))
    flags = ["--labels", "2", "--seeds", "2", "--json"]
    assert run_here(["evaluate", before, tested, *flags]) == 0
    own = json.loads(capsys.readouterr().out)
    assert run_here(["evaluate", model, tested, "--before", before, *flags]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [row["features"] for row in both["rows"][:3]] == ["data2vec2", "the model before", "random initialisation"]
    assert both["rows"][1] == own["rows"][0] | {"features": "the model before"}
    assert both["intervals"][1] == own["intervals"][0]
    names = [curve["features"] for curve in both["curves"]]
    assert names[:4] == [*(2 * ["data2vec2"]), *(2 * ["the model before"])]
    assert both["curves"][2]["mean"] == own["curves"][0]["mean"]
    assert run_here(["evaluate", model, tested, "--before", before]) == 0
    assert "the model before" in capsys.readouterr().out.split("kNN: ")[1]
    assert run_here(["evaluate", model, tested, "--before", tmp_path / "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_probes_curves_and_fine_tuning(
    run: Path, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--train.updates", "2", "--train.processes", "1", "--train.device", "cpu", "--train.precision", "float32"]
    assert run_here(["finetune", "classify", run, tested, "--out", tmp_path / "tuned", *recipe]) == 0
    capsys.readouterr()
    flags = [
        *["--probes", "attentive,knn", "--labels", "1,5", "--seeds", "2", "--max-samples", "150", "--device", "cpu"],
        *["--finetune", tmp_path / "tuned" / "config.yaml", "--seed", "3"],
    ]
    before = files(tmp_path)
    assert run_here(["evaluate", run / "exported", tested, *flags]) == 0
    out, err = capsys.readouterr()
    assert "evaluating on 100 pictures (test part), with the labels of 150" in err
    table, curves = out.split("\n\n")
    assert table.splitlines()[0].split() == ["features", "attentive", "kNN"]
    assert re.search(r"raw pixels +n/a +\d+\.\d", table)
    lines = curves.splitlines()
    assert lines[0].split() == ["labels", "per", "class", "1", "5"]
    assert [line.split("  ")[0] for line in lines[1:]].count("data2vec2") == 3
    assert sum(" finetune " in line for line in lines) == 2
    assert err.count("data: 10 to train on, 100 to test on") == err.count("data: 50 to train on, 100 to test on") == 4
    assert all(re.search(r"\d\.\d ±\d+\.\d +\d+\.\d ±\d+\.\d$", line) for line in lines[1:])
    assert files(tmp_path) == before
    for flags, message in (
        (["--max-samples", "99"], "on all 100 samples of the test part, others on --max-samples 99"),
        (["--test", tested], "scores on the test part of DATA itself; leave --test out"),
    ):
        recipe = ["--labels", "1", "--finetune", "image_finetune_tiny"]
        assert run_here(["evaluate", run / "exported", tested, *recipe, *flags]) == 2
        assert message in capsys.readouterr().err


def test_scores_of_other_data_stand_beside_a_runs_own(
    run: Path, data: Path, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    for name in ("scores.json", "gallery.npz"):
        (own / name).unlink(missing_ok=True)
    quick = ["--probes", "knn"]
    assert run_here(["evaluate", own, tested, *quick]) == 0  # the first scores that there are
    of_other = json.loads((own / "scores.json").read_text())
    assert (of_other["data"], of_other["part"]) == (str(tested), "test")
    assert run_here(["evaluate", own, data, *quick]) == 0  # the run's own data push them out
    of_own = json.loads((own / "scores.json").read_text())
    assert (of_own["data"], of_own["part"]) == (str(data), "held-out")
    assert json.loads((own / "other_scores.json").read_text()) == [of_other]
    before = (own / "gallery.npz").read_bytes()
    capsys.readouterr()
    assert run_here(["evaluate", own, tested, *quick, "--seed", 1]) == 0
    assert f"(test part), with the labels of 200: {tested}" in " ".join(capsys.readouterr().err.split())
    assert run_here(["evaluate", own, data, "--test", data, *quick]) == 0
    assert json.loads((own / "scores.json").read_text()) == of_own
    assert (own / "gallery.npz").read_bytes() == before
    others = json.loads((own / "other_scores.json").read_text())
    assert [(one["data"], one["part"]) for one in others] == [(str(tested), "test"), (str(data), "named test")]
    page = read_page(own / "report.html")
    assert page.errors == []
    assert "Other scores" in page.headings
    assert f"of the held-out part of {data}" in page.text
    assert f"of the test part of {tested}" in page.text


def test_scores_of_an_earlier_version_are_never_replaced_by_those_of_other_data(
    run: Path, tested: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    environment = json.loads((own / "environment.json").read_text())
    del environment["data_path"]
    (own / "environment.json").write_text(json.dumps(environment))
    earlier = {"kind": "probes", "part": "held-out", "train_samples": 100, "test_samples": 100, "classes": ["a", "b"]}
    earlier |= {"rows": [{"features": "data2vec2", "knn": 0.6180}], "curves": [], "skipped": {}}
    (own / "scores.json").write_text(json.dumps(earlier))
    assert run_here(["evaluate", own, tested, "--probes", "knn"]) == 0
    assert json.loads((own / "scores.json").read_text()) == earlier
    page = read_page(own / "report.html")
    assert page.errors == []
    assert "61.8 %" in page.text
    assert f"of the test part of {tested}" in page.text


def test_every_accuracy_has_its_error_bar(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_here(["evaluate", run / "exported", data, "--max-samples", "60"]) == 0
    out, err = capsys.readouterr()
    assert all(re.search(r"(  +\d+\.\d±\d+\.\d){2}$", line) for line in out.splitlines()[1:5])
    assert "± is half of a 95 % interval" in " ".join(err.split())
    assert run_here(["evaluate", run / "exported", data, "--max-samples", "60", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    for row, bars in zip(scores["rows"], scores["intervals"], strict=True):
        for probe in ("knn", "linear"):
            assert bars[probe] == pytest.approx(of_share(row[probe], scores["test_samples"]))


def test_another_test_part(run: Path, tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", run / "exported", tested, "--test", tested, "--probes", "knn", "--json"]
    assert run_here(arguments) == 0
    out, err = capsys.readouterr()
    assert "named test part" in err
    assert [list(row) for row in json.loads(out)["rows"]] == [["features", "knn"]] * 4


def test_another_test_part_is_scaled_as_what_is_learned_from(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, top in (("known", 4095), ("asked", 65535)):
        for name, value in (("dark", 500), ("light", 3500)):
            (tmp_path / part / name).mkdir(parents=True)
            for place in range(12):
                values = np.full((28, 28), value + 20 * place, dtype=np.uint16)
                values[0, 0] = top
                Image.fromarray(values).save(tmp_path / part / name / f"{place}.png")
    scores = data2vec2.evaluate(run, tmp_path / "known", test=tmp_path / "asked", device="cpu")
    assert {row.features: row.linear for row in scores.rows}["raw pixels"] == 1.0
    err = capsys.readouterr().err
    assert "values lie in 0 to 4,095;" in err and "values lie in 0 to 65,535;" in err


def test_files_that_can_not_be_read_are_listed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = jpeg_folder(tmp_path / "pictures", 120)
    broken = sorted(path for path in folder.rglob("*.jpg"))[::5]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    capsys.readouterr()
    assert run_here(["evaluate", run / "exported", folder, "--probes", "knn", "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert sum(scores["skipped"].values()) == len(broken)
    assert scores["train_samples"] + scores["test_samples"] == 120 - len(broken)
    assert f"{len(broken)} pictures are left out: " in err
    listed = re.findall(r"^  (class\S+\.jpg): \S+", err, flags=re.MULTILINE)
    assert len(listed) == 20
    assert {folder / name for name in listed} <= set(broken)


def test_a_test_part_that_is_not_there_is_not_replaced_by_another(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [path.relative_to(tmp_path).as_posix() for path in jpeg_folder(tmp_path / "train", 120).rglob("*.jpg")]
    rows = [f"{name},{Path(name).parent.name}" for name in (*names, *(f"test/{name}" for name in names))]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    for flags in ([tmp_path], [tmp_path / "train", "--test", tmp_path]):
        assert run_here(["evaluate", run / "exported", *flags]) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert (
            "no sample of the test part can be used (120 missing, though metadata names it; the first is test/" in err
        )
        assert "none of the 0" not in err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--max-samples", "1"], 2, "--max-samples is 1"),
        (["--seed", "-1"], 2, "--seed is -1"),
        (["--seeds", "0"], 2, "--seeds is 0"),
        (["--probes", "knn,best"], 2, "--probes best is not for pictures; there are knn,linear,attentive"),
        (["--probes", ""], 2, "some of knn, linear, attentive"),
        (["--labels", "ten"], 2, "--labels: 'ten' is not a whole number"),
        (["--labels", "10,5"], 2, "increasing numbers"),
        (["--labels", "0"], 2, "numbers above 0"),
        (["--labels", "1000"], 1, "no class has more than"),
        (["--finetune", "image_finetune_tiny"], 2, "so it needs --labels"),
        (["--seeds", "2"], 2, "--seeds is of the low-label curves, so it needs --labels"),
        (["--labels", "1", "--finetune", "image_finetune_tin"], 2, "did you mean 'image_finetune_tiny'?"),
        (["--labels", "1", "--finetune", "nowhere.yaml"], 1, "nowhere.yaml can't be read"),
        (["--labels", "1", "--finetune", "image_finetune_tiny"], 1, "needs a test part"),
        (["--device", "tpu9"], 2, "tpu9"),
        (["--test", "nowhere"], 1, "nowhere does not exist"),
    ],
)
def test_mistakes(
    flags: list[str], code: int, message: str, run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_here(["evaluate", run / "exported", data, *flags]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert not out


def test_pictures_without_labels_or_with_several(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(fashion_mnist()) as arrays:
        np.savez(tmp_path / "bare.npz", x_train=arrays["x_train"][:50])
        np.savez(tmp_path / "one.npz", x_train=arrays["x_train"][:50], y_train=np.zeros(50, np.int64))
    assert run_here(["evaluate", run / "exported", tmp_path / "bare.npz"]) == 1
    assert "has no labels to evaluate with" in capsys.readouterr().err
    assert run_here(["evaluate", run / "exported", tmp_path / "one.npz"]) == 1
    said = capsys.readouterr().err
    assert "50 train, one class" in said
    assert "has no classes to tell apart: all 50 labels of the train part are '0'" in said
    folder = jpeg_folder(tmp_path / "pictures", 40)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    tags = [["dark"], ["dark", "large"]]
    rows = [json.dumps({"file_name": name, "labels": tags[place % 2]}) for place, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    assert run_here(["evaluate", run / "exported", folder]) == 1
    assert "can have several labels, which probes do not support" in capsys.readouterr().err


def test_what_was_drawn_once_has_no_interval() -> None:
    point = {"features": "data2vec2", "probe": "knn", "labels": (10,), "mean": (0.5,)}
    once = Curve(**point, low=(0.5,), high=(0.5,), draws=1)
    often = Curve(**point, low=(0.4,), high=(0.6,), draws=3)
    shown = format_scores(Scores("test", 1, 1, (), ("knn",), (Row("data2vec2", 0.5),), (once, often)))
    assert [line.split()[2:] for line in shown.splitlines()[-2:]] == [["50.0"], ["50.0", "±10.0"]]
