"""What a fine-tuned model is compared with on its page."""

import json
import shutil
from pathlib import Path

import pytest

from data2vec2.reporting.baselines import rivals
from data2vec2.reporting.build import write_report
from tests.unit.reporting.pages import fill, fill_finetuned, read_page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A classifier, made of a model that nobody has evaluated yet."""
    for name in ("run", "model"):
        (tmp_path / name).mkdir()
    fill(tmp_path / "model")
    path = fill_finetuned(tmp_path / "run")
    (path / "config.yaml").write_text("recipe: image_finetune_tiny\nfrom_scratch: false\ntrain: {updates: 60}\n")
    command = ["finetune", "classify", "MODEL", "D", "--out", "run", "--train.updates", "60", "--resume"]
    about = {"model": str(tmp_path / "model"), "task": "classify", "data_path": "/D", "command": command}
    (path / "environment.json").write_text(json.dumps(about))
    scores = json.loads((path / "scores.json").read_text())
    (path / "scores.json").write_text(json.dumps(scores | {"data": "/D", "accuracy": 0.75}))
    return path


def scored(path: Path, **changed: object) -> None:
    (path / "scores.json").write_text(json.dumps(json.loads((path / "scores.json").read_text()) | changed))


def test_what_was_not_measured_is_a_command(run: Path) -> None:
    page = read_page(write_report(run))
    scratch = f"data2vec2 finetune classify MODEL D --out {run}-scratch --train.updates 60 --from-scratch, then"
    assert f"Not measured: the same from random initialisation. {scratch}" in page.text
    assert f"data2vec2 evaluate {run.parent / 'model'} /D, then data2vec2 report {run}" in page.text
    assert "Accuracy 75.0 %" in page.text


def test_a_run_from_scratch_beside_it_is_the_baseline(run: Path) -> None:
    other = run.parent / "called anything"
    shutil.copytree(run, other)
    (other / "config.yaml").write_text((run / "config.yaml").read_text().replace("false", "true"))
    scored(other, from_scratch=True, accuracy=0.5, intervals={"accuracy": [0.47, 0.53]})
    scored(run, intervals={"accuracy": [0.71, 0.79]})
    page = read_page(write_report(run))
    assert "+25.0 points over the same network trained from scratch, ±5.0" in page.text
    assert "random initialisation. data2vec2" not in page.text
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("60", "61"))
    assert "trained from scratch" not in read_page(write_report(run)).text, "it was trained in another way"


def test_probes_of_the_same_samples_stand_beside_it(run: Path) -> None:
    model = run.parent / "model"
    scored(model, data="/D", train_samples=400)
    (found, raw) = rivals(run).rows[1:]
    assert found == ("a linear probe on data2vec2 (this run) (400 labels)", ["71.0 %"])
    assert raw == ("a linear probe on raw pixels (400 labels)", ["75.0 %"])
    scored(model, data="/another")
    assert rivals(run).rows == []


def test_error_rates_are_better_below(run: Path) -> None:
    other = run.parent / "scratch"
    shutil.copytree(run, other)
    (other / "config.yaml").write_text((run / "config.yaml").read_text().replace("false", "true"))
    for path, rate in ((run, 0.25), (other, 0.5)):
        speech = {"kind": "ctc", "from_scratch": path == other, "wer": rate, "cer": 0.125}
        (path / "scores.json").write_text(json.dumps(speech))
    assert rivals(run).verdict == ["word error rate: 25.0 points fewer than the same network trained from scratch"]
