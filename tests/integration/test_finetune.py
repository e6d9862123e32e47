"""finetune on real files: what a run leaves behind, every option, mistakes, resume and several processes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import data2vec2
from data2vec2.config.tree import to_dict
from data2vec2.errors import UserError
from data2vec2.interop.folder import load_classifier, load_encoder
from data2vec2.modalities import get_finetune_recipe, read_finetune_config
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.recipes import FINETUNE
from tests.integration.helpers import (
    FINETUNED,
    Child,
    assert_same_run,
    assert_same_tensors,
    files,
    jpeg_folder,
    last_step,
    metrics,
    run_here,
    scores,
    words,
)


def timm_works() -> bool:
    """Whether timm, and the torchvision that it needs, can be imported here."""
    try:
        import timm.data
    except Exception:
        return False
    return bool(timm.data)


@pytest.fixture(scope="module")
def model(untrained: Path) -> Path:
    return untrained


@pytest.fixture(scope="module")
def data(parted: Path) -> Path:
    return parted


@pytest.fixture(scope="module")
def whole(tuned: Path) -> Path:
    """An uninterrupted run."""
    return tuned


def start(run: Path, model: Path, data: Path, *flags: object) -> Child:
    return Child(["finetune", "classify", model, data, "--out", run, *FINETUNED, *flags], run.with_suffix(".out"))


def here(model: object, data: object, run: Path, *flags: object) -> int:
    return run_here(["finetune", "classify", model, data, "--out", run, *FINETUNED, *flags])


def tag_folder(path: Path, count: int = 80) -> Path:
    """JPEG files with metadata.csv: each has a tag for its class being even, and one for being above 4, or none."""
    path.mkdir()
    lines = ["file_name,labels"]
    with np.load(fashion_mnist()) as arrays:
        for place, (pixels, label) in enumerate(zip(arrays["x_train"][:count], arrays["y_train"], strict=False)):
            Image.fromarray(pixels).save(path / f"{place:03}.jpg", quality=95)
            tags = [name for name, has in (("even", label % 2 == 0), ("high", label > 4)) if has]
            lines.append(f"{place:03}.jpg,{'|'.join(tags)}")
    (path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return path


def test_what_a_run_leaves_behind(whole: Path, data: Path) -> None:
    left = {"config.yaml", "environment.json", "split.json", "metrics.jsonl", "train.log", "status.json", "scores.json"}
    assert left | {"mistakes.npz", "report.html", "exported/model.safetensors"} <= files(whole)
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"step-28", "step-30"}
    found = scores(whole)
    assert (found["kind"], found["part"], found["samples"], found["labels"]) == ("classify", "test", 100, 160)
    confusion = np.array(found["confusion"])
    assert confusion.sum() == 100
    assert found["accuracy"] == pytest.approx(np.trace(confusion) / 100)
    assert [row["count"] for row in found["per_class"]] == [10] * 10 == confusion.sum(axis=1).tolist()
    assert [row["name"] for row in found["per_class"]] == found["classes"]
    with np.load(whole / "mistakes.npz", allow_pickle=False) as mistakes:
        assert mistakes["pictures"].shape == (len(mistakes["names"]), 28, 28, 1)
        assert (mistakes["truth"] != mistakes["predicted"]).all()
        assert (np.diff(mistakes["probability"]) <= 0).all()
    assert json.loads((whole / "split.json").read_text())["validation"]
    assert "accuracy" in (whole / "exported" / "README.md").read_text()


def test_the_best_model_by_validation_is_kept_and_exported(whole: Path, data: Path) -> None:
    validation = {line["step"]: line["val_accuracy"] for line in metrics(whole) if "val_accuracy" in line}
    assert sorted(validation) == [10, 20, 30]
    best = max(validation, key=lambda step: (validation[step], -step))
    assert [path.name for path in (whole / "best").iterdir()] == [f"step-{best}"]
    assert scores(whole)["update"] == best
    assert "(best so far)" in (whole / "train.log").read_text()
    classifier, info = load_classifier(whole / "exported")
    assert info.classes == tuple(scores(whole)["classes"])
    with np.load(data) as arrays, torch.no_grad():
        pixels = torch.from_numpy(arrays["x_test"]).float().unsqueeze(1) / 255
        said = classifier((pixels - 0.29) / 0.35).argmax(dim=1).numpy()
        assert scores(whole)["accuracy"] == pytest.approx((said == arrays["y_test"]).mean())


def test_it_learns_and_starts_from_the_model(whole: Path, model: Path) -> None:
    losses = [line["loss"] for line in metrics(whole) if "loss" in line]
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.02
    before, after = (load_encoder(path)[0].state_dict() for path in (model, whole / "exported"))
    name = "blocks.0.attn.qkv.weight"
    assert torch.corrcoef(torch.stack((before[name].flatten(), after[name].flatten())))[0, 1] > 0.9


def test_from_scratch_takes_the_shape_only(tmp_path: Path, model: Path, data: Path) -> None:
    assert here(model, data, tmp_path / "run", "--from-scratch", "--train.updates", 2) == 0
    encoder, info = load_encoder(tmp_path / "run" / "exported")
    pretrained, expected = load_encoder(model)
    assert info.model.encoder == expected.model.encoder
    name = "blocks.0.attn.qkv.weight"
    both = torch.stack((encoder.state_dict()[name].flatten(), pretrained.state_dict()[name].flatten()))
    assert torch.corrcoef(both)[0, 1].abs() < 0.3
    assert scores(tmp_path / "run")["from_scratch"] is True


def test_a_share_of_the_start_is_new(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("--train.updates", 1, "--optim.lr", "1e-12")
    assert here(model, data, tmp_path / "scratch", "--from-scratch", *still) == 0
    assert here(model, data, tmp_path / "run", "--optim.fresh", "0.25", *still) == 0
    paths = (model, tmp_path / "scratch" / "exported", tmp_path / "run" / "exported")
    learned, new, started = (load_encoder(path)[0].state_dict() for path in paths)
    for name, value in started.items():
        own, sizes = learned[name], [float(one.std()) if one.ndim > 1 else 1.0 for one in (learned[name], new[name])]
        at_size = own * sizes[1] / sizes[0] if min(sizes) > 0 else own
        torch.testing.assert_close(value, 0.75 * at_size + 0.25 * new[name], atol=1e-6, rtol=0)
    assert "pre-trained, with 25% of new random values" in " ".join(capsys.readouterr().err.split())


def test_kills_and_resume_end_with_the_same_bits(tmp_path: Path, model: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    for number, aim in enumerate((5, 12, 23)):  # before and after the first best model
        child = start(run, model, data, *(["--resume"] if number else []))
        child.until(lambda: last_step(run) >= aim)  # noqa: B023
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.output
    child = start(run, model, data, "--resume")
    child.until(lambda: last_step(run) >= 26)
    child.signal(signal.SIGTERM)
    assert child.wait() == 75, child.output
    assert run_here(["finetune", "classify", model, data, "--out", run, "--resume"]) == 0  # the run's own flags
    assert_same_run(run, whole, 30)
    best = next((whole / "best").iterdir()).name
    assert_same_tensors(run / "best" / best / "model.safetensors", whole / "best" / best / "model.safetensors")
    assert scores(run) == scores(whole)
    assert (run / "mistakes.npz").exists()


def test_accumulation_and_drop_path_resume(tmp_path: Path, model: Path, data: Path) -> None:
    flags = words("--train.micro-batch 4 --model.drop-path 0.3 --optim.layer-decay 0.5 --optim.clip-norm 1")
    child = start(tmp_path / "whole", model, data, *flags)
    assert child.wait() == 0, child.output
    child = start(tmp_path / "run", model, data, *flags)
    child.until(lambda: last_step(tmp_path / "run") >= 16)
    child.signal(signal.SIGKILL)
    child.wait()
    child = start(tmp_path / "run", model, data, *flags, "--resume")
    assert child.wait() == 0, child.output
    assert_same_run(tmp_path / "run", tmp_path / "whole", 30)


def test_two_processes_learn_as_one(tmp_path: Path, model: Path, data: Path, whole: Path) -> None:
    """Without drop path, whose draws differ from process to process, only the order of sums is another."""
    runs = []
    for processes in ("1", "2"):
        run = tmp_path / processes
        child = start(run, model, data, "--model.drop-path", "0", "--train.processes", processes)
        assert child.wait() == 0, child.output
        runs.append([line["loss"] for line in metrics(run) if "loss" in line])
    assert runs[0] != runs[1]  # there really were two
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


def test_several_labels_a_picture(tmp_path: Path, model: Path) -> None:
    run = tmp_path / "run"
    folder = tag_folder(tmp_path / "tagged")
    flags = words("--augment.label-smoothing 0 --data.workers 1")
    assert here(model, folder, run, *flags) == 0
    found = scores(run)
    assert (found["part"], found["classes"]) == ("validation", ["even", "high"])
    assert found["map"] == pytest.approx(np.mean([row["ap"] for row in found["per_class"]]))
    assert "confusion" not in found
    assert {"val_map", "val_loss"} <= set().union(*metrics(run))
    assert load_classifier(run / "exported")[1].multi_label
    again = data2vec2.evaluate_classifier(run, folder)
    assert (again["part"], again["classes"]) == ("whole", ["even", "high"]) and 0 < again["map"] <= 1
    with pytest.raises(UserError, match=r"have one label each, and .*run gives them several labels"):
        data2vec2.evaluate_classifier(run, jpeg_folder(tmp_path / "one"))


def test_a_run_is_a_model_too(tmp_path: Path, whole: Path, data: Path) -> None:
    """Fine-tuning goes on from a fine-tuned encoder, with a new head."""
    assert here(whole, data, tmp_path / "again", "--train.updates", 2) == 0
    assert here(whole / "exported", data, tmp_path / "export", "--train.updates", 2) == 0
    assert_same_tensors(*(tmp_path / name / "exported" / "model.safetensors" for name in ("again", "export")))


def test_another_image_size_interpolates_positions(tmp_path: Path, model: Path, data: Path) -> None:
    run = tmp_path / "run"
    assert here(model, data, run, "--model.image-size", 42, "--train.updates", 2) == 0
    modality = load_classifier(run / "exported")[1].model.modality
    assert (modality.image_size, modality.position_size) == (42, 28)
    assert here(run, data, tmp_path / "again", "--model.image-size", 14, "--train.updates", 2) == 0
    modality = load_classifier(tmp_path / "again" / "exported")[1].model.modality
    assert (modality.image_size, modality.position_size) == (14, 28)


def test_few_labels_a_class(tmp_path: Path, model: Path, data: Path) -> None:
    assert here(model, data, tmp_path / "run", "--data.labels-per-class", 3, "--train.updates", 2) == 0
    assert scores(tmp_path / "run")["labels"] == 30


def test_a_validation_part_of_its_own(tmp_path: Path, model: Path, data: Path) -> None:
    folder = jpeg_folder(tmp_path / "jpegs")
    held = jpeg_folder(tmp_path / "held", 60)
    flags = ["--val", held, "--data.val-fraction", 0, "--train.updates", 2]
    assert here(model, folder, tmp_path / "run", *flags, "--data.workers", 0) == 0
    found = scores(tmp_path / "run")
    assert (found["part"], found["samples"], found["labels"]) == ("validation", 60, 100)
    assert here(model, folder, tmp_path / "run", *flags, "--resume") == 0  # nothing left to do but the end


def test_a_validation_part_of_fewer_classes(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(data) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    held, run = tmp_path / "held.npz", tmp_path / "run"
    np.savez(held, x_train=x[y > 6], y_train=y[y > 6])  # whose first class is 7
    assert here(model, data, run, "--val", held, "--data.val-fraction", 0, "--train.updates", 2) == 0
    assert scores(run)["classes"] == [str(name) for name in range(10)]
    assert f"{held} has 3 of the 10 classes" in capsys.readouterr().err


def test_without_validation_the_last_model_is_exported(tmp_path: Path, model: Path) -> None:
    folder = jpeg_folder(tmp_path / "jpegs", 40)
    run = tmp_path / "run"
    assert here(model, folder, run, "--data.val-fraction", 0, "--train.updates", 2, "--data.workers", 0) == 0
    assert not (run / "scores.json").exists()
    assert not (run / "best").exists()
    assert load_classifier(run / "exported")


def test_dry_run_writes_nothing(tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(model, data, tmp_path / "run", "--dry-run", "--recipe", "image_finetune_tiny") == 0
    printed = capsys.readouterr().err
    assert "layer decay" in printed
    assert "first batch: pictures (16, 1, 28, 28)" in printed
    assert not (tmp_path / "run").exists()


def test_json_says_how_it_ended(tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert here(model, data, run, "--json", "--train.updates", 2) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["state"], printed["step"], printed["run"]) == ("finished", 2, str(run))
    assert printed["scores"] == scores(run)
    assert here(model, data, run, "--overwrite", "--train.updates", 3) == 0
    assert last_step(run) == 3


def test_the_configuration_of_a_run_is_a_recipe(tmp_path: Path, model: Path, data: Path, whole: Path) -> None:
    recipe = whole / "config.yaml"
    assert run_here(["finetune", "classify", model, data, "--out", tmp_path / "run", "--recipe", recipe]) == 0
    assert_same_run(tmp_path / "run", whole, 30)


def test_every_other_field_is_a_flag(tmp_path: Path, model: Path, data: Path) -> None:
    flags = words(
        "--optim.lr 1e-3 --optim.lr-rule sqrt --optim.lr-batch 64 --optim.warmup-updates 1 --optim.beta1 0.8 "
        "--optim.beta2 0.9 --optim.eps 1e-7 --optim.weight-decay 0.1 --optim.decay-all --optim.clip-norm None "
        "--optim.layer-decay 0.9 --model.drop-path 0.2 --data.min-crop 0.9 --data.no-flip --data.eval-crop 0.9 "
        "--data.mean 0.3 --data.std 0.4 --data.max-bad 0.1 --data.workers 0 --train.seed 3 --train.keep 1 "
        "--train.threads 1 --train.micro-batch 8 --train.updates 3 --augment.label-smoothing 0.2"
    )
    run = tmp_path / "run"
    assert here(model, data, run, *flags) == 0
    config = read_finetune_config(yaml.safe_load((run / "config.yaml").read_text()))
    assert (config.optim.lr, config.optim.clip_norm, config.optim.layer_decay) == (1e-3, None, 0.9)
    assert (config.data.mean, config.data.flip, config.train.seed) == ((0.3,), False, 3)
    assert load_classifier(run / "exported")[1].data.mean == (0.3,)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--recipe", "image_finetune_tini"], 2, "did you mean 'image_finetune_tiny'"),
        (["--recipe", "missing.yaml"], 1, "missing.yaml can't be read"),
        (["--model.drop-path", "1"], 2, "model.drop_path is 1.0"),
        (["--model.image-size", "30"], 2, "a multiple of 7, the patch size"),
        (["--model.image-size", "0"], 2, "model.image_size is 0"),
        (["--optim.layer-decay", "0"], 2, "optim.layer_decay is 0"),
        (["--from-scratch", "--optim.fresh", "0.5"], 2, "--optim.fresh is 0.5, but nothing is learned yet"),
        (["--from-scratch", "--optim.fresh", "0.5", "--seeds", "2"], 2, "--optim.fresh is 0.5, but nothing"),
        (["--no-from-scratch"], 2, "unknown flag --no-from-scratch; did you mean --from-scratch?"),
        (["--optim.lr", "-1"], 2, "optim.lr is -1"),
        (["--augment.label-smoothing", "1"], 2, "augment.label_smoothing is 1"),
        (["--augment.mixup", "-1"], 2, "augment.mixup is -1"),
        (["--augment.erasing", "2"], 2, "augment.erasing is 2"),
        (["--augment.mix-share", "0.5"], 2, "--augment.mix-share is 0.5, but nothing would be done with it"),
        (["--augment.cutmix", "1", "--augment.cutmix-share", "0.3"], 2, "--augment.cutmix-share is 0.3, but nothing"),
        (["--augment.mixup", "1", "--train.batch-size", "15"], 2, "mixed in pairs"),
        (["--data.labels-per-class", "0"], 2, "data.labels_per_class is 0"),
        (["--data.mean", "0.1", "0.2", "0.3", "--data.std", "1", "1", "1"], 2, "the model has 1 channels"),
        (["--train.device", "cuda:99"], 2, "cuda:99"),
        (["--val", "missing", "--data.val-fraction", "0"], 1, "missing does not exist"),
        (["--resume"], 1, "nothing to resume"),
        (["--resume", "--overwrite"], 2, "give one of them"),
    ],
)
def test_mistakes_in_flags_are_said(
    tmp_path: Path,
    model: Path,
    data: Path,
    flags: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert here(model, data, tmp_path / "run", *flags) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_mistakes_in_model_and_data_are_said(
    tmp_path: Path, model: Path, data: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def error(*arguments: object) -> str:
        assert run_here(arguments) in (1, 2)
        assert not run.exists()
        return capsys.readouterr().err

    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, x_train=np.zeros((40, 28, 28), dtype=np.uint8))
    other = jpeg_folder(tmp_path / "other", 12)
    assert "is not an exported model" in error("finetune", "classify", tmp_path, data, "--out", run)
    assert "does not exist" in error("finetune", "classify", model, tmp_path / "no", "--out", run)
    assert "has no labels to learn from" in error("finetune", "classify", model, unlabelled, "--out", run)
    few = tmp_path / "few.npz"
    np.savez(few, x_train=np.zeros((40, 28, 28), dtype=np.uint8), y_train=np.arange(40) % 2)
    assert "must be among these" in error("finetune", "classify", model, few, "--out", run, "--val", other)
    one = tmp_path / "one.npz"
    np.savez(one, x_train=np.zeros((40, 28, 28), dtype=np.uint8), y_train=np.zeros(40, np.int64))
    assert "has no classes to learn from" in error("finetune", "classify", model, one, "--out", run)
    held = ["--val", data, "--data.val-fraction", "0.3"]
    assert "--data.val-fraction is 0.3, but --val says" in error(
        "finetune", "classify", model, data, "--out", run, *held
    )
    (tmp_path / "mine.yaml").write_text("recipe: image_finetune_tiny\nfrom_scratch: true\noptim: {fresh: 0.5}\n")
    mine = ["--recipe", tmp_path / "mine.yaml"]
    assert "--optim.fresh is 0.5, but nothing" in error("finetune", "classify", model, data, "--out", run, *mine)
    assert "the task comes first, not 'detect'" in error("finetune", "detect", model, data, "--out", run)
    assert "the task comes first" in error("finetune")
    assert "already holds a run" in error_of_existing(capsys, model, data, whole)


def error_of_existing(capsys: pytest.CaptureFixture[str], model: Path, data: Path, run: Path) -> str:
    assert here(model, data, run) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optim.lr", "0.5"], "--optim.lr 0.5 can't change on --resume"),
        (["--from-scratch"], "--from-scratch can't change"),
        (["--recipe", "image_finetune_base"], "a run of image_finetune_tiny, not of image_finetune_base"),
        (["--recipe", "{tmp}/mine.yaml"], "--optim.layer-decay 0.25 can't change on --resume"),
        (["--optim.clip-norm", "None"], "--optim.clip-norm None can't change on --resume"),
        (["--recipe", "{tmp}/none.yaml"], "--optim.clip-norm None can't change on --resume"),
    ],
)
def test_what_can_not_change_on_resume(
    tmp_path: Path,
    whole: Path,
    model: Path,
    data: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: image_finetune_tiny\noptim: {layer_decay: 0.25}\n")
    (tmp_path / "none.yaml").write_text("recipe: image_finetune_tiny\noptim: {clip_norm: null}\n")
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    assert run_here(["finetune", "classify", model, data, "--out", whole, "--resume", *flags]) == 1
    assert message in capsys.readouterr().err


def test_the_default_recipe_is_refused_where_the_run_has_another(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it is not asked for."""
    (tmp_path / "mine.yaml").write_text("recipe: image_finetune_tiny\n")
    flags = words(
        "--augment.rand-augment None --train.device cpu --train.processes 1 --train.updates 2 --optim.fresh None"
    )
    start = ["finetune", "classify", model, data, "--out", tmp_path / "run", *flags]
    assert run_here([*start, "--recipe", "image_finetune_base"]) == 0
    for recipe in ("image_finetune_tiny", tmp_path / "mine.yaml"):
        assert run_here([*start, "--resume", "--recipe", recipe]) == 1
        assert "a run of image_finetune_base, not of image_finetune_tiny" in capsys.readouterr().err
    assert run_here([*start, "--resume"]) == run_here([*start, "--resume", "--recipe", "image_finetune_base"]) == 0


def test_another_model_or_other_data_are_refused_on_resume(
    tmp_path: Path, whole: Path, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(["finetune", "classify", whole, data, "--out", whole, "--resume"]) == 1
    assert "the run was started from a different MODEL" in capsys.readouterr().err
    assert run_here(["finetune", "classify", model, fashion_mnist(), "--out", whole, "--resume"]) == 1
    assert "have changed since the run started" in capsys.readouterr().err


def test_files_that_can_not_be_read_are_counted_and_too_many_stop_it(tmp_path: Path, model: Path) -> None:
    folder = jpeg_folder(tmp_path / "jpegs", 60)
    broken = sorted(folder.rglob("*.jpg"))[:3]
    for path in broken:
        path.write_bytes(b"\xff\xd8\xff")
    quick = ("--train.updates", 4, "--data.workers", 0)
    assert here(model, folder, tmp_path / "strict", *quick, "--data.max-bad", 0.01) == 1
    assert here(model, folder, tmp_path / "run", *quick, "--data.max-bad", 0.2) == 0
    bad = json.loads((tmp_path / "run" / "data.json").read_text())["parts"]["train"]["bad"]
    named = {path.relative_to(folder).as_posix() for path in broken}
    assert bad.keys() <= named
    assert {*bad.values()} == {"damaged"}


@pytest.mark.parametrize("name", FINETUNE)
def test_every_recipe_round_trips(name: str) -> None:
    config = get_finetune_recipe(name)
    assert config.recipe == name
    assert read_finetune_config(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.skipif(not timm_works(), reason="timm can't be imported")
def test_with_all_augmentation_resume_and_workers_change_nothing(tmp_path: Path, model: Path) -> None:
    """The recipe of the base model, with the fields that are for its size made small."""
    folder = jpeg_folder(tmp_path / "jpegs")
    flags = words("--recipe image_finetune_base --optim.warmup-updates 3 --train.micro-batch 8")
    child = start(tmp_path / "whole", model, folder, *flags, "--data.workers", 0)
    assert child.wait() == 0, child.output
    run = tmp_path / "run"
    child = start(run, model, folder, *flags, "--data.workers", 1)
    child.until(lambda: last_step(run) >= 16)
    child.signal(signal.SIGKILL)
    child.wait()
    child = start(run, model, folder, *flags, "--data.workers", 2, "--resume")
    assert child.wait() == 0, child.output
    assert_same_run(run, tmp_path / "whole", 30)


def test_augmentation_without_timm_names_the_extra(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    assert here(model, data, tmp_path / "run", "--recipe", "image_finetune_base") == 1
    assert "pip install 'data2vec2[vision]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
