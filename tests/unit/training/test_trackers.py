"""Trackers get every line of metrics.jsonl, read back here from what they keep without a network."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data2vec2.errors import UsageError, UserError
from data2vec2.training import trackers

LINES = [{"step": step, "samples": 8 * step, "elapsed_s": 0.5 * step, "loss": 1 / step} for step in (1, 2, 3)]
CONFIG = {"recipe": "image_tiny", "train": {"updates": 3, "seed": 0}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (run := tmp_path / "my-run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)  # which it sets for its own processes
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return run


def track(run: Path, *names: str, state: str = "finished") -> list[str]:
    said: list[str] = []
    with trackers.tracking(names, run, CONFIG, said.append) as hear:
        for line in LINES:
            hear(line)
        (run / "status.json").write_text(json.dumps({"state": state}))
    return said


@pytest.mark.parametrize("names", [(), ("tensorboard",)])
def test_tensorboard_is_written_where_it_is_installed(run: Path, names: tuple[str, ...]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track(run, *names) == []
    events = EventAccumulator(str(run / "tb")).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (line["step"], pytest.approx(line["loss"])) for line in LINES
    ]


def test_wandb(run: Path) -> None:
    pytest.importorskip("wandb", reason="not of the extra dev: pip install 'data2vec2[wandb]'")
    assert track(run, "wandb") == []
    (kept,) = run.glob("wandb/offline-run-*/run-*.wandb")
    limit = time.monotonic() + 20  # its own process may write a moment later
    while b"loss" not in (content := kept.read_bytes()) and time.monotonic() < limit:
        time.sleep(0.1)
    assert b"loss" in content and b"my-run" in content and b"image_tiny" in content and b"elapsed_s" not in content


def test_mlflow(run: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="not of the extra dev: pip install 'data2vec2[mlflow]'")
    assert track(run, "mlflow") == []
    (found,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("data2vec2").experiment_id])
    assert (found.info.run_name, found.info.status) == ("my-run", "FINISHED")
    assert found.data.params["train.updates"] == "3"
    kept = mlflow.MlflowClient().get_metric_history(found.info.run_id, "loss")
    assert [(one.step, one.value) for one in kept] == [(line["step"], line["loss"]) for line in LINES]


@pytest.mark.parametrize(("state", "said"), [("interrupted", "KILLED"), ("diverged", "FAILED")])
def test_mlflow_is_told_how_a_run_ended_and_goes_on_with_it(run: Path, state: str, said: str) -> None:
    mlflow = pytest.importorskip("mlflow", reason="not of the extra dev: pip install 'data2vec2[mlflow]'")
    for end, status in ((state, said), ("finished", "FINISHED")):
        assert track(run, "mlflow", state=end) == []
        (found,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("data2vec2").experiment_id])
        assert found.info.status == status


def test_wandb_is_told_how_a_run_ended_and_goes_on_with_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="not of the extra dev: pip install 'data2vec2[wandb]'")
    codes, finish = [], wandb.Run.finish

    def heard(tracked: Any, exit_code: int) -> None:
        codes.append(exit_code)
        finish(tracked, exit_code)

    monkeypatch.setattr(wandb.Run, "finish", heard)
    for state in ("interrupted", "finished"):
        assert track(run, "wandb", state=state) == []
    assert codes == [1, 0]
    assert {path.name for path in run.glob("wandb/offline-run-*/run-*.wandb")} == {
        f"run-{(run / 'wandb.id').read_text()}.wandb"
    }


def test_trackio(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trackio", reason="not of the extra dev: pip install 'data2vec2[trackio]'")
    assert track(run, "trackio") == []
    assert capsys.readouterr().out == ""  # where results go
    (kept,) = (run.parent / "trackio").rglob("data2vec2*.db")
    with sqlite3.connect(kept) as database:
        rows = database.execute("select run_name, step from metrics order by step").fetchall()
    assert rows == [("my-run", 1), ("my-run", 2), ("my-run", 3)]


def test_a_tracker_that_fails_is_said_and_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    assert track(run, "tensorboard") == ["tensorboard gets no more metrics: ConnectionError: no route to host"]
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", fail)
    assert track(run, "tensorboard")[1:] == ["tensorboard did not finish properly: ConnectionError: no route to host"]
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.__init__", fail)
    with pytest.raises(UserError, match="--track tensorboard can't start: no route to host"):
        track(run, "tensorboard")


def test_trackers_that_are_not_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--track is 'board'; it must be some of tensorboard, wandb, mlflow, trackio"):
        trackers.check(("tensorboard", "board"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--track wandb needs pip install 'data2vec2\[wandb\]'"):
        trackers.check(("wandb",))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert track(run) == []
