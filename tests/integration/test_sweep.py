"""finetune --sweep and --seeds on real files: what is left, what is chosen, resume, mistakes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

import data2vec2
from data2vec2.errors import UsageError
from data2vec2.modalities import get_finetune_recipe
from data2vec2.training.checkpoint import Best
from tests.integration.helpers import Child, assert_same_run, files, last_step, run_here, scores, words

FLAGS = words(
    "--train.updates 6 --train.batch-size 16 --train.log-every 1 --train.eval-every 3 --train.save-every 2 "
    "--train.precision float32 --train.device cpu --train.processes 1 --data.val-fraction 0.2"
)
RUNS = ("lr-0.01-seed-3", "lr-0.01-seed-4", "lr-0.0001-seed-3", "lr-0.0001-seed-4")
SWEEP = (*FLAGS, *words("--train.seed 3 --sweep 1e-2,1e-4 --seeds 2"))


@pytest.fixture(scope="module")
def model(untrained: Path) -> Path:
    return untrained


@pytest.fixture(scope="module")
def data(parted: Path) -> Path:
    return parted


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Path:
    """A sweep that nothing interrupted, and in `whole.out` what it printed."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    child = Child(["finetune", "classify", model, data, "--out", out, *SWEEP], out.with_suffix(".out"))
    assert child.wait() == 0, child.output
    return out


def here(model: Path, data: Path, out: Path, *flags: object) -> int:
    return run_here(["finetune", "classify", model, data, "--out", out, *FLAGS, *flags])


def test_a_run_for_each_rate_and_seed(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {*RUNS, "sweep.yaml", "scores.json"}
    for name in RUNS:
        config = yaml.safe_load((whole / name / "config.yaml").read_text())
        assert name == f"lr-{config['optim']['lr']:g}-seed-{config['train']['seed']}"
        assert {"exported/model.safetensors", "scores.json", "report.html"} <= files(whole / name)


def test_the_rate_with_the_best_median_on_validation_is_first(whole: Path) -> None:
    found = scores(whole)
    validation = {name: Best(whole / name).score for name in RUNS}
    assert {run["run"]: run["validation"] for run in found["runs"]} == validation
    medians = [row["median"] for row in found["rates"]]
    assert medians == sorted(medians, reverse=True)
    for row in found["rates"]:
        own = [name for name in RUNS if name.startswith(f"lr-{row['lr']:g}-")]
        assert row["median"] == pytest.approx(np.median([validation[name] for name in own]))
        assert row["best"] == max(validation[name] for name in own) == validation[row["run"]]
        tested = {name: scores(whole / name)["accuracy"] for name in own}
        assert row["tested"]["accuracy"] == tested[row["run"]]
        assert row["tested"]["median accuracy"] == pytest.approx(np.median(list(tested.values())))
    best = found["rates"][0]
    printed = whole.with_suffix(".out").read_text()
    assert f"best: rate {best['lr']:g}, {whole / best['run']}" in printed
    assert f"{best['median']:.4f}  {best['best']:.4f}" in printed


def test_a_run_of_a_sweep_is_the_run_alone(whole: Path, model: Path, data: Path, tmp_path: Path) -> None:
    assert here(model, data, tmp_path / "run", "--optim.lr", "1e-4", "--train.seed", 4) == 0
    assert_same_run(tmp_path / "run", whole / RUNS[3], 6)


def test_a_killed_sweep_goes_on(whole: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    arguments = ["finetune", "classify", model, data, "--out", out]
    child = Child([*arguments, *SWEEP], tmp_path / "out")
    child.until(lambda: (out / RUNS[1] / "metrics.jsonl").is_file() and last_step(out / RUNS[1]) >= 3)
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, child.output
    first = (out / RUNS[0] / "exported" / "model.safetensors").stat()
    assert run_here([*arguments, *words("--sweep 1e-2,1e-4 --seeds 2 --resume")]) == 0  # other flags are the sweep's
    kept = (out / RUNS[0] / "exported" / "model.safetensors").stat()
    assert (first.st_ino, first.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    for name in RUNS:
        assert_same_run(out / name, whole / name, 6)
    assert scores(out) == scores(whole)


def test_seeds_alone_and_json(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(model, data, tmp_path / "sweep", "--seeds", 2, "--optim.lr", "1e-3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["state"], printed["out"]) == ("finished", str(tmp_path / "sweep"))
    assert printed["rates"] == scores(tmp_path / "sweep")["rates"]
    assert [run["run"] for run in scores(tmp_path / "sweep")["runs"]] == ["lr-0.001-seed-0", "lr-0.001-seed-1"]


def test_flags_that_say_what_the_recipe_says_count_in_every_run(model: Path, data: Path, tmp_path: Path) -> None:
    """Also in those that begin when the sweep goes on, without the flags."""
    warmup = get_finetune_recipe("image_finetune_tiny").optim.warmup_updates
    out = tmp_path / "sweep"
    assert here(model, data, out, "--seeds", 2, "--optim.lr", "1e-3", f"--optim.warmup-updates={warmup}") == 0
    shutil.rmtree(out / "lr-0.001-seed-1")
    assert run_here(["finetune", "classify", model, data, "--out", out, "--seeds", 2, "--resume"]) == 0
    for run in ("lr-0.001-seed-0", "lr-0.001-seed-1"):
        config = yaml.safe_load((out / run / "config.yaml").read_text())
        assert (config["optim"]["warmup_updates"], config["train"]["updates"]) == (warmup, 6)


def test_python(model: Path, data: Path, tmp_path: Path) -> None:
    outcome = data2vec2.finetune(model, data, tmp_path / "sweep", sweep="1e-2, 1e-4", flags=FLAGS)  # type: ignore[arg-type]
    assert (outcome.state, outcome.scores) == ("finished", scores(tmp_path / "sweep"))
    best, other = outcome.scores["rates"]
    assert outcome.run == tmp_path / "sweep" / best["run"] and best["median"] >= other["median"]
    assert outcome.model and data2vec2.load(outcome.model).classes
    with pytest.raises(UsageError, match="--sweep is 'fast': could not convert"):
        data2vec2.finetune(model, data, tmp_path / "none", sweep="fast")  # type: ignore[arg-type]


def test_a_rate_that_diverges_has_failed_and_is_last(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = words("--sweep 1e30,1e-3 --optim.clip-norm None --optim.warmup-updates 0")
    assert here(model, data, tmp_path / "sweep", *flags) == 0
    first, last = scores(tmp_path / "sweep")["rates"]
    assert (first["lr"], last["lr"], last["median"], last["run"]) == (1e-3, 1e30, None, None)
    assert "failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--sweep 1e-3,x", 2, "--sweep: could not convert string to float: 'x'"),
        ("--sweep 0", 2, "rates must be above 0"),
        ("--sweep 1e-3,0.001", 2, "all different"),
        ("--sweep nan", 2, "rates must be above 0"),
        ("--seeds 0", 2, "seeds at least 1"),
        ("--sweep 1e-3 --optim.lr 1e-3", 2, "--sweep and --optim.lr both say the peak learning rate"),
        ("--sweep 1e-3 --overwrite", 2, "--overwrite can't be combined with"),
        ("--sweep 1e-3 --dry-run", 2, "--dry-run can't be combined with"),
        ("--sweep 1e-3 --resume", 1, "holds no sweep"),
    ],
)
def test_mistakes(
    model: Path, data: Path, tmp_path: Path, flags: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here(model, data, tmp_path / "sweep", *words(flags)) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "sweep").exists()


def test_what_a_sweep_refuses(
    whole: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert here(model, data, whole, "--sweep", "1e-3") == 1
    assert "is not empty" in capsys.readouterr().err
    assert here(model, data, whole, "--sweep", "1e-2", "--resume", "--train.updates", 9) == 1
    assert "--train.updates 9 can't change" in capsys.readouterr().err
    assert here(model, data, whole, "--sweep", "1e-2", "--resume", "--from-scratch") == 1
    assert "from random weights" in capsys.readouterr().err
    assert here(model, data, tmp_path / "none", "--sweep", "1e-2", "--data.val-fraction", 0) == 1
    assert "no validation scores" in capsys.readouterr().err
    assert run_here(["finetune", "classify", whole / RUNS[0], data, "--out", whole, *SWEEP, "--resume"]) == 1
    assert "was started from a different MODEL" in capsys.readouterr().err
    with np.load(data) as same:
        np.savez(tmp_path / "other.npz", **{**same, "x_train": 255 - same["x_train"]})
    assert run_here(["finetune", "classify", model, tmp_path / "other.npz", "--out", whole, *SWEEP, "--resume"]) == 1
    assert f"the data has changed since {whole / RUNS[0]} was trained" in capsys.readouterr().err
    assert here(tmp_path, data, tmp_path / "new", "--sweep", "1e-2") == 1
    assert "is not an exported model" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert here(model, data, tmp_path / "torchrun", "--sweep", "1e-2") == 2
    assert "without torchrun" in capsys.readouterr().err
