"""Curves of metrics.jsonl: what is drawn, what is left out, and the alarm's thresholds."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from data2vec2.reporting.charts import COLOURS
from data2vec2.reporting.curves import read_curves
from data2vec2.training.progress import FLOORS, SHARES
from tests.unit.reporting.pages import write_lines


def test_a_cut_last_line_is_ignored(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"step": step, "samples": 32 * step, "loss": 1.0} for step in (1, 60)])
    whole = read_curves(tmp_path / "metrics.jsonl")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "elapsed_s": 7.9, "loss": 0.')
    assert read_curves(tmp_path / "metrics.jsonl") == whole
    assert whole.step == 60
    assert whole.samples == 1920


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    def drawn(*steps: tuple[int, float]) -> str:
        lines = [{"step": step, "loss": loss} for step, loss in steps]
        return read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts[0].by_step

    assert drawn((1, 9), (2, 8), (3, 1), (2, 7), (3, 6)) == drawn((1, 9), (2, 8), (2, 7), (3, 6))


def test_values_that_cannot_be_drawn_are_counted(tmp_path: Path) -> None:
    losses = [1.0, float("nan"), float("inf"), -1e308, 10**400, None, True, "text"]
    path = write_lines(tmp_path / "metrics.jsonl", [{"step": step, "loss": loss} for step, loss in enumerate(losses)])
    (chart,) = read_curves(path).charts
    assert chart.note.endswith("Left out, because not finite or beyond 1e30: 4.")
    assert chart.by_time is None


def test_a_long_run_keeps_its_peaks_and_a_small_page(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).normal(size=20_000)

    def drawn() -> str:
        lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
        return read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts[0].by_step

    calm = drawn()
    assert len(calm) < 50_000
    losses[12_345] = 1000
    assert re.search(r">1,?000<", drawn())


def test_the_callers_plots_are_left_alone_and_have_no_say(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "metrics.jsonl", [{"step": step, "loss": 1.0, "cls": 2.0} for step in (1, 60)])
    plain = read_curves(path)
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert read_curves(path) == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("key", FLOORS)
def test_the_alarms_threshold_is_drawn_and_said(tmp_path: Path, key: str) -> None:
    lines = [{"step": step, key: 5.0} for step in (1, 2)]
    (chart,) = read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts
    assert f"alarm's threshold ({FLOORS[key]:g})" in chart.note
    dashed = re.findall(r"stroke-dasharray: *([\d., ]+)", chart.by_step)
    assert len(dashed) == 1, "the line itself is the first one, which is solid"


def test_the_threshold_of_the_knn_score_follows_from_its_first_value(tmp_path: Path) -> None:
    lines = [{"step": step, "val_knn": 0.5, "val_knn_error": 0.01} for step in (0, 100)]
    (chart,) = read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts
    floor = SHARES["val_knn"] * 0.5 - 0.02
    assert f"alarm's threshold ({100 * floor:.1f} %)" in chart.note
    assert len(re.findall(r"stroke-dasharray: *([\d., ]+)", chart.by_step)) == 1


def test_the_threshold_of_the_encoders_rank_follows_from_its_first_value(tmp_path: Path) -> None:
    lines = [{"step": step, "rank_encoder": rank, "rank_stem": 40.0} for step, rank in ((1, 56.0), (50, 60.0))]
    (chart,) = read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts
    assert "7" in chart.note and "1.5" in chart.note, chart.note
    assert len(re.findall(r"stroke-dasharray: *([\d., ]+)", chart.by_step)) >= 2


def test_a_figure_without_alarm_has_no_threshold(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 5.0} for step in (1, 2)]
    (chart,) = read_curves(write_lines(tmp_path / "metrics.jsonl", lines)).charts
    assert "alarm" not in chart.note
    assert "stroke-dasharray" not in chart.by_step


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", COLOURS)
def test_lines_stand_out_on_light_and_on_dark_ground(colour: str) -> None:
    style = (Path(read_curves.__code__.co_filename).parent / "templates" / "style.css").read_text()
    grounds = re.findall(r"--ground: (#\w{6})", style)
    assert len(grounds) == 2
    for ground in grounds:
        darker, lighter = sorted((luminance(ground), luminance(colour)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3
