"""How long a run is, in updates, passes or hours, and what is said beforehand of what it takes."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import data2vec2
from data2vec2.commands.estimate import Plan, format_plan, model_bytes, outlined
from data2vec2.config.run import MIN_UPDATES, bounded_updates
from data2vec2.config.tree import to_dict
from data2vec2.data.sampler import GlobalBatches, LengthBatches
from data2vec2.files import cache_folder
from data2vec2.modalities import get_finetune_recipe, get_recipe, read_run_config, spec_of
from data2vec2.training.device import activation_bytes
from data2vec2.training.measure import Cost
from tests.integration.helpers import SMALL, Child, metrics, run_here, words


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert run_here(["estimate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_pass_is_every_sample_once() -> None:
    for order in (GlobalBatches(1000, 16, seed=0), LengthBatches(np.arange(100, 1100), 5.0, 0, sample_rate=100)):
        whole = round(order.per_epoch * 4)
        seen = np.concatenate([order(step).samples_B for step in range(whole)])
        assert np.bincount(seen, minlength=1000).min() >= 3
        assert (order(whole + 1).epochs_B >= 4).all()


def test_where_no_length_is_given_small_data_shorten_a_run() -> None:
    base, head = get_recipe("image_base"), get_finetune_recipe("image_finetune_base")
    per_epoch = 9_500 / 256
    assert bounded_updates(base, per_epoch) == 4_453  # 120 passes
    assert bounded_updates(base, 100 / 256) == MIN_UPDATES
    assert bounded_updates(base, 1_281_167 / 256) == base.train.updates
    assert bounded_updates(head, per_epoch) == 14_844  # 400 passes
    assert bounded_updates(get_recipe("image_tiny"), 100 / 16) == 1_000
    assert bounded_updates(get_recipe("text_tiny"), 1) == 600


def test_lengths_in_words(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = planned(capsys, "image_tiny", small, *SMALL)["samples"]
    for flags, updates in (
        (["--train.epochs", "7"], round(7 * number / 16)),
        (["--train.updates", "2200"], 2_200),
        ([], bounded_updates(get_recipe("image_tiny"), number / 16)),
    ):
        plan = planned(capsys, "image_tiny", small, *SMALL, *flags)
        assert plan["updates"] == plan["config"]["train"]["updates"] == updates
        assert plan["passes"] == pytest.approx(updates * 16 / number)
        assert plan["config"]["optim"]["warmup_updates"] == round(160 * min(1, updates / 2_200))
    by_hours = planned(capsys, "image_tiny", small, *SMALL, "--train.hours", "0.01")
    assert by_hours["updates"] == pytest.approx(36 / by_hours["update"]["seconds"], abs=1)
    mine = replace(get_recipe("image_tiny"), train=replace(get_recipe("image_tiny").train, epochs=2.0))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(to_dict(mine)))
    assert planned(capsys, tmp_path / "mine.yaml", small, *SMALL)["updates"] == round(2 * number / 16)
    plan = planned(capsys, tmp_path / "mine.yaml", small, *SMALL, "--train.updates", "9")  # the flag, not the file
    assert plan["updates"] == 9 and plan["config"]["train"]["epochs"] is None


def test_flags_that_say_what_the_recipe_says_are_left_alone(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = words("--train.updates 300 --train.save_every 550 --optim.warmup-updates=160 --ema.start .99")
    config = planned(capsys, "image_tiny", small, *SMALL, *flags)["config"]
    assert (config["train"]["save_every"], config["train"]["eval_every"]) == (550, 100)
    assert (config["optim"]["warmup_updates"], config["ema"]["start"]) == (160, 0.99)
    assert config["ema"]["end"] < get_recipe("image_tiny").ema.end  # this one was not set
    length = f"--train.updates={get_recipe('image_tiny').train.updates}"
    assert data2vec2.estimate("image_tiny", small, flags=(*SMALL, length)).config.train.updates == 2_200


def test_a_run_of_so_many_passes_is_fixed_and_resumes_as_it_was_begun(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, length = tmp_path / "run", ["--train.epochs", "0.5"]
    start = ["pretrain", "image_tiny", small, "--out", run, *SMALL, *length]
    assert run_here(start) == 0
    said = capsys.readouterr().err
    config = read_run_config(yaml.safe_load((run / "config.yaml").read_text()))
    assert f"pictures x 0.5 passes = {config.train.updates} updates of 16 pictures" in said
    assert metrics(run)[-1]["step"] == config.train.updates and config.train.epochs == 0.5
    assert config.train.updates == round(0.5 * planned(capsys, "image_tiny", small, *SMALL)["samples"] / 16)
    assert run_here([*start, "--resume"]) == 0  # the same words again
    assert run_here(["pretrain", "image_tiny", small, "--out", run, "--resume"]) == 0
    (tmp_path / "mine.yaml").write_text("recipe: image_tiny\ntrain: {updates: 40, hours: null}\n")
    assert run_here(["pretrain", tmp_path / "mine.yaml", *start[2:], "--resume"]) == 0  # the passes are the length
    assert run_here([*start[:5], "--train.epochs", "3", "--resume"]) == 1
    assert "--train.epochs 3.0 can't change on --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--train.epochs 0", "train.epochs is 0.0; it must be above 0"),
        ("--train.hours inf", "train.hours is inf; it must be above 0 and finite"),
        ("--train.hours 1 --train.epochs 1", "train.hours is 1.0; it must be none where train.epochs is given"),
        ("--train.updates 8 --train.epochs 3", "--train.updates and --train.epochs both say how long the run is"),
        ("--train.updates 8 --train.hours 3", "--train.updates and --train.hours both say how long the run is"),
    ],
)
def test_wrong_lengths(small: Path, capsys: pytest.CaptureFixture[str], flags: str, says: str) -> None:
    assert run_here(["estimate", "image_tiny", small, *flags.split()]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_an_estimate_is_ten_lines_and_holds(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Within a factor of 1.5 of a real run of one process; other programs may disturb one of three tries."""
    length = [*SMALL, "--train.updates", "60", "--train.processes", "1", "--train.eval-every", "0"]
    assert run_here(["estimate", "image_tiny", small, *length]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 10
    assert "computed" in printed.splitlines()[-1] and "with 0 " not in printed and "with 1 readers" not in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 120
    assert run_here(["estimate", "image_tiny", small, *length, "--show-config"]) == 0
    shown = capsys.readouterr().out
    assert read_run_config(yaml.safe_load(shown[shown.index("recipe: image_tiny") :])).train.updates == 60
    ratios = []
    for attempt in range(3):
        said, run = planned(capsys, "image_tiny", small, *length), tmp_path / f"run{attempt}"
        assert run_here(["pretrain", "image_tiny", small, "--out", run, *length, "--train.log-every", "10"]) == 0
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        rates = [line["samples_per_s"] for line in lines if "samples_per_s" in line][1:]
        ratios.append(said["update"]["seconds"] * float(np.median(rates)) / 16)
        checkpoints = [*(run / "checkpoints").glob("*")]
        written = sum(file.stat().st_size for file in checkpoints[0].rglob("*") if file.is_file())
        assert said["checkpoint_bytes"] == pytest.approx(written, rel=0.2)  # files have heads
        print(ratios)
        if 1 / 1.5 < ratios[-1] < 1.5:
            return
    pytest.fail(f"an update was said to take {ratios} times as long as it did")


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("image_small", "audio_mel_small", "audio_small", "text_small"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("recipe", "kind", "copy"),
    [
        ("image_tiny", "image", "*.pictures"),
        ("text_tiny", "text", "text-*/tokens.bin"),
        ("audio_mel_tiny", "audio", ""),
    ],
)
def test_memory_and_disk_are_those_of_a_run(tmp_path: Path, recipe: str, kind: str, copy: str) -> None:
    """Memory within a factor of 1.5 of the most that such a run held at a time; copies as large as the files."""
    demo = spec_of(kind).demo
    assert demo
    flags = [recipe, demo.data(), "--train.processes", "1", "--train.updates", "3", "--train.eval-every", "0"]
    child = Child(["estimate", *flags, "--json"], tmp_path / "estimate.out")
    assert child.wait() == 0, child.output
    said = json.loads(next(line for line in child.output.splitlines() if line.startswith("{")))
    child, peaks = Child(["pretrain", *flags, "--out", tmp_path / "run"], tmp_path / "run.out"), [0]
    status = Path(f"/proc/{child.process.pid}/status")

    def look() -> bool:
        with suppress(OSError):  # it has ended
            peaks.extend(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if "VmHWM" in line)
        return False

    child.until(look)
    assert child.wait() == 0, child.output
    print(said["update"]["memory"], max(peaks))
    assert 1 / 1.5 < said["update"]["memory"] / max(peaks) < 1.5
    assert said["cache_bytes"] in ([path.stat().st_size for path in cache_folder().glob(copy)] if copy else [0])


def plan_of(recipe: str, reading_s: float = 0.1) -> Plan:
    """As on some machine, with what a recipe's model takes."""
    config = get_recipe(recipe)
    config = replace(config, train=replace(config.train, updates=1_000, device="cpu"))
    config = replace(config, data=replace(config.data, workers=1))
    model, loss, _ = outlined(config)
    sizes = {"samples": 9_000, "held_out": 90, "passes": 28.4, "free_memory": 1 << 33}
    return Plan(
        config=config,
        data="folder of pictures: " + "9,000 train, " * 20,
        many="pictures",
        unit="pictures",
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        cost=Cost(9.0, reading_s, 256, 8, 8, 1 << 33),
        checkpoint_bytes=model_bytes(model),
        cache_bytes=0,
        sample_bytes=activation_bytes(loss),
        update_flops=1e14,
        **sizes,
    )


@pytest.mark.parametrize(("reading_s", "says"), [(0.1, ""), (60.0, "; reading at this machine's speed takes 17 h")])
def test_slow_reading_is_said_where_gpus_are(reading_s: float, says: str) -> None:
    lines = format_plan(plan_of("image_base", reading_s)).splitlines()
    assert len(lines) == 10 and len(lines[1]) <= 120 and " ...; 9,000 pictures to train on" in lines[1]
    assert lines[-1].endswith(f"of each peak){says}") and ("reading" in lines[-1]) == bool(says)
    assert lines[5] == "disk     3.9 GiB for 2 checkpoints, one being written"


def test_what_a_gpu_can_hold_is_said_of_large_models() -> None:
    """One of 80 GiB holds both; several, over which the model is sharded, hold more samples each."""
    huge, large = plan_of("image_huge14"), plan_of("audio_large")
    assert huge.state_bytes == pytest.approx(4 * (4 * huge.parameters + 637e6), rel=0.02)  # three more, and the teacher
    assert huge.at_once() == 15 and huge.at_once(8) == 17
    assert large.at_once() == 1 and large.at_once(8) == 2
    said = "large    11.8 GiB and 2.2 GiB for each of 15 pictures at once in 80 GiB, 17 with --train.shard over 8 GPUs"
    assert format_plan(huge).splitlines()[-1] == f"{said} (computed)"
