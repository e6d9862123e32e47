"""bench: a few real updates of each modality, timed; and what is said of them."""

from __future__ import annotations

import json

import pytest
import torch

import data2vec2
from data2vec2.commands.bench import Stopwatch
from tests.integration.helpers import run_here

CPU = ("--train.device", "cpu", "--train.precision", "float32")
PARTS = {
    *("batch", "clip", "optimiser", "EMA", "teacher"),
    *(
        name + end
        for name in ("stem", "arrange", "student", "decoder", "targets and loss")
        for end in ("", ", backward")
    ),
}


def test_every_modality_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run_here(["bench", "--seconds", "0.1", "--train.device", "cpu", "--train.precision", "float32", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert [speed["recipe"].split("_")[0] for speed in found] == ["image", "audio", "text", "sound"]
    for speed in found:
        assert set(speed["parts_s"]) == PARTS
        assert all(seconds > 0 for seconds in speed["parts_s"].values())
        assert speed["update_middle_s"][0] <= speed["update_s"] <= speed["update_middle_s"][1]
        assert speed["samples_per_s"] == pytest.approx(speed["batch"] / speed["update_s"])
        assert 0 < speed["share"] < 1
        assert speed["updates"] >= 3
        assert speed["peak_memory"] > speed["at_once"] * speed["kept_per_sample"] > 2**20
    image, audio, text, sound = found
    assert image["tokens_per_s"] == pytest.approx(49 * image["samples_per_s"])
    assert audio["units_per_s"] == pytest.approx(1.5 * audio["samples_per_s"])
    assert text["tokens_per_s"] == pytest.approx(128 * text["samples_per_s"])
    assert sound["tokens_per_s"] == pytest.approx(144 * sound["samples_per_s"])


def test_flags_decide_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train.batch-size", "6", "--train.micro-batch", "3", "--train.processes", "1", "--train.precision"]
    asked = ["bench", "image_tiny", "--seconds", "2", *flags, "bfloat16", "--model.encoder.depth", "5"]
    assert run_here(asked) == 0
    shown = capsys.readouterr()
    assert "image_tiny on cpu in bfloat16, 1 thread\n" in shown.out
    assert "for 6 pictures, 3 at once" in shown.out
    assert "next: data2vec2 estimate RECIPE DATA" in shown.err
    assert run_here(["bench", "image_tinny"]) == 2
    assert "did you mean 'image_tiny'?" in capsys.readouterr().err


def test_more_masks_keep_more_memory_and_take_more_operations() -> None:
    few, many = (
        data2vec2.bench("image_tiny", seconds=0.1, flags=["--model.masks.num-masks", count, *CPU])[0]
        for count in ("2", "8")
    )
    flags = ["--model.masks.num-masks", "8", "--train.checkpoint-activations", *CPU]
    assert data2vec2.bench("image_tiny", seconds=0.1, flags=flags)[0].kept_per_sample < many.kept_per_sample / 2
    assert many.kept_per_sample > 3 * few.kept_per_sample
    assert many.update_flops / many.batch > 2 * few.update_flops / few.batch


def test_the_parts_of_an_update_are_all_of_its_time() -> None:
    watch = Stopwatch(torch.device("cpu"))
    times = iter([0.0, 1.0, 3.0, 3.5, 10.0, 10.25])
    watch.clock = lambda: next(times)
    for name in ("", "stem", "student", "stem", "", "stem"):
        watch.mark(name)
    assert watch.updates() == [{"stem": 1.5, "student": 2.0}, {"stem": 0.25}]
    assert watch.updates() == []
