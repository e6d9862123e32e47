"""Pre-training that starts from weights of other families, of each modality; scored beside them, and resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import data2vec2
from data2vec2.evaluation.scores import BEFORE, MODEL, RANDOM
from data2vec2.interop.folder import load_encoder
from data2vec2.modalities import get_recipe
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from tests.foreign import change, saved, theirs, write
from tests.integration.helpers import last_step, run_here, small_npz, words
from tests.integration.speech import spoken_folder

FLAGS = words(
    "--train.updates 6 --train.save-every 3 --train.log-every 1 --train.eval-every 0 --train.precision float32 "
    "--train.device cpu --train.processes 1 --data.workers 0"
)
STILL = words("--optim.lr 1e-30 --ema.start 1 --ema.end 1")
"""Nothing moves, so that the weights at the end are those at the start."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_npz(tmp_path_factory.mktemp("data") / "small.npz", 100, 50)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of pictures of 32 x 32 pixels, cut from 36, with positions for 40 x 40."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino")
    saved("DINOv2 with registers", folder, image_size=40)
    change(folder, "preprocessor_config.json", size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    return folder


def pretrain(recipe: str, data: Path, run: Path, source: Path | str, *flags: object) -> int:
    command = ["pretrain", recipe, data, "--out", run, *FLAGS, "--train.batch-size", "8", "--init-from", source]
    return run_here([*command, *flags])


def test_pictures(tmp_path: Path, pictures: Path, dino: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shape, positions, size, mean and deviation are those of the weights; what is left out and changed is said."""
    run = tmp_path / "run"
    assert pretrain("image_tiny", pictures, run, dino, *STILL) == 0
    said = capsys.readouterr().err
    assert f"width 32, 4 heads, 3 blocks (0 of them the prenet's), pre-norm, as DINOv2 with registers in {dino}" in said
    assert "weights: left out: embeddings.mask_token\n" in said
    assert "weights: positions, made for 40 x 40 pixels, are interpolated to the run's pictures\n" in said
    assert "model: targets.average_layers is 3 instead of 4" in said
    assert "data: mean (0.5, 0.5, 0.5), std (0.25, 0.25, 0.25), eval_crop 0.8889, as the weights need\n" in said
    assert "the teacher a copy of the student; at random initialisation: decoder\n" in said
    config = yaml.safe_load((run / "config.yaml").read_text())
    modality, encoder = config["model"]["modality"], config["model"]["encoder"]
    assert (modality["image_size"], modality["position_size"], modality["num_registers"]) == (32, None, 4)
    assert (encoder["pre_norm"], encoder["layer_scale"], encoder["depth"]) == (True, True, 3)
    assert config["init_from"] == str(dino)
    exported, info = load_encoder(run / "exported")
    assert info.data.mean == (0.5, 0.5, 0.5)
    torch.manual_seed(0)
    model = saved("DINOv2 with registers", tmp_path / "again", image_size=40)
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = exported(inputs).x_NLD, theirs("", model, inputs).last_hidden_state
    assert (found - expected).abs().max() < 1e-4
    assert run_here(["evaluate", run, pictures, "--before", dino, "--probes", "knn"]) == 0
    rows = {row["features"]: row["knn"] for row in json.loads((run / "scores.json").read_text())["rows"]}
    assert rows[MODEL] == rows[BEFORE] != rows[RANDOM], "nothing has moved, so both have the same accuracy"


def test_a_run_goes_on_without_the_weights(
    tmp_path: Path, pictures: Path, dino: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where Python gives the recipe, whose own shape it is not."""
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(dino, source)
    assert pretrain("image_tiny", pictures, run, source) == 0
    whole = load_file(run / "checkpoints" / "step-6" / "model.safetensors")
    shutil.rmtree(source)
    shutil.rmtree(run / "checkpoints" / "step-6")
    command = ["pretrain", "image_tiny", pictures, "--out", run, *FLAGS, "--train.batch-size", "8", "--resume"]
    assert run_here(command) == 0
    again = load_file(run / "checkpoints" / "step-6" / "model.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    shutil.rmtree(run / "checkpoints" / "step-6")
    recipe = get_recipe("image_tiny")
    recipe = replace(recipe, train=replace(recipe.train, updates=6, batch_size=8, processes=1, device="cpu"))
    outcome = data2vec2.pretrain(recipe, pictures, run, init_from=source, resume=True)
    assert (outcome.state, outcome.step) == ("finished", 6)
    again = load_file(run / "checkpoints" / "step-6" / "model.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert pretrain("image_tiny", pictures, tmp_path / "other", source) == 1
    assert "there is nothing to start from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--model.encoder.embed-dim 64", "--model.encoder.embed-dim 64 is against"),
        ("--model.encoder.no-pre-norm", "--model.encoder.pre-norm False is against"),
        ("--model.encoder.depth 5", "--model.encoder.depth 5 is against"),
        ("--model.encoder.prenet-depth 3", "--model.encoder.prenet-depth 3 is against"),
        ("--model.modality.patch-size 4", "--model.modality.patch-size 4 is against"),
        ("--model.modality.num-channels 1", "--model.modality.num-channels 1 is against"),
    ],
)
def test_a_shape_against_the_weights_is_refused(
    tmp_path: Path, pictures: Path, dino: Path, flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain("image_tiny", pictures, tmp_path / "run", dino, *words(flags)) == 1
    assert said in (message := capsys.readouterr().err)
    assert str(dino) in message
    assert not (tmp_path / "run").exists()


def test_what_may_differ(tmp_path: Path, pictures: Path, dino: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The size of pictures, the prenet's share of the blocks, what is done to regularise, and how pictures are read."""
    flags = words(
        "--model.modality.image-size 24 --model.encoder.prenet-depth 1 --model.encoder.dropout 0.1 --data.mean 0.1 0.2 "
        "0.3 --dry-run"
    )
    assert pretrain("image_tiny", pictures, tmp_path / "run", dino / "model.safetensors", *flags) == 0
    said = capsys.readouterr().err
    assert "3 blocks (1 of them the prenet's)" in said
    assert "9 tokens of a picture" in said
    assert "mean (0.1, 0.2, 0.3)" in said
    assert "which the weights were not trained with" in said


def test_other_modalities_are_refused(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("BERT", tmp_path / "bert")
    assert pretrain("image_tiny", pictures, tmp_path / "run", tmp_path / "bert") == 1
    assert "is a model of text, but this recipe is for image" in capsys.readouterr().err
    write(tmp_path / "other", "config.json", {"model_type": "gpt2"})
    assert pretrain("image_tiny", pictures, tmp_path / "run", tmp_path / "other") == 1
    assert "model_type is 'gpt2'; supported are wav2vec2" in capsys.readouterr().err


def test_a_run_of_text_goes_on_with_its_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also on other texts, of which another would be made; one that is another is refused."""
    source, data = tmp_path / "source", tmp_path / "data"
    saved("RoBERTa", source)
    data.mkdir()
    shutil.copy("README.md", data / "text.txt")
    short = ("--model.modality.max-tokens", "64")
    assert pretrain("text_tiny", data, tmp_path / "first", source, *short) == 0
    shutil.copy("CONTRIBUTING.md", data / "text.txt")
    for number, name in enumerate(("first", "first/exported")):
        assert pretrain("text_tiny", data, tmp_path / f"again{number}", tmp_path / name) == 0
        written = tmp_path / f"again{number}" / "tokenizer" / "tokenizer.json"
        assert written.read_bytes() == (source / "tokenizer.json").read_bytes()
    save_tokenizer(train_tokenizer(["another"], 300), tmp_path / "other")
    capsys.readouterr()
    other = ("--data.tokenizer", tmp_path / "other")
    assert pretrain("text_tiny", data, tmp_path / "refused", tmp_path / "first", *other) == 1
    assert "is another than that of the weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wav2vec 2.0", "HuBERT, pre-norm"])
def test_speech(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's mel stem gives way to the waveform stem of the weights."""
    data = spoken_folder(tmp_path / "data", train=12, test=4)
    source, run = tmp_path / "source", tmp_path / "run"
    saved(name, source)
    flags = words("--data.min-seconds 0.2 --data.max-seconds 2 --train.micro-batch 4")
    assert pretrain("audio_mel_tiny", data, run, source, *flags, *STILL) == 0
    said = capsys.readouterr().err
    assert ("masked_spec_embed" in said) and ("quantizer" in said or "lm_head" in said)
    modality = yaml.safe_load((run / "config.yaml").read_text())["model"]["modality"]
    assert (modality["stem"], modality["alibi"], modality["position_kernel"]) == ("waveform", False, 128)
    expected = load_file(source / "model.safetensors")
    found = load_encoder(run / "exported")[0].state_dict()
    prefix = "hubert." if name.startswith("HuBERT") else "wav2vec2."
    assert torch.equal(found["norm.weight"], expected[f"{prefix}encoder.layer_norm.weight"])
    assert run_here(["embed", run, data, "--out", tmp_path / "features.parquet"]) == 0


def test_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tokenizer comes with the weights; blocks may be shorter than the longest text; none may be longer."""
    source, run, data = tmp_path / "source", tmp_path / "run", tmp_path / "data"
    saved("BERT", source)
    data.mkdir()
    shutil.copy("README.md", data / "text.txt")
    assert pretrain("text_tiny", data, run, source, "--model.modality.max-tokens", "32", *STILL) == 0
    said = capsys.readouterr().err
    assert "weights: left out: cls\n" in said
    assert f"data: tokenizer {source}, as the weights need\n" in said
    assert (run / "tokenizer" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    encoder, info = load_encoder(run / "exported")
    assert (info.model.modality.vocab_size, info.model.modality.max_tokens) == (300, 32)
    positions = load_file(source / "model.safetensors")["bert.embeddings.position_embeddings.weight"]
    assert encoder.state_dict()["modality.stem.positions.weight"].shape == (34, positions.shape[1])
    assert last_step(run) == 6
    assert pretrain("text_tiny", data, tmp_path / "long", source, "--model.modality.max-tokens", "128") == 1
    assert "positions.weight has shape [66, 32], and this model needs [130, 32]" in capsys.readouterr().err


def test_the_recipe_follows_an_export_of_ours_too(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = words(
        "--model.encoder.embed-dim 24 --model.encoder.num-heads 3 --model.encoder.depth 2 --model.decoder.dim 8 "
        "--model.decoder.groups 4 --model.targets.average-layers 2"
    )
    command = ["pretrain", "image_tiny", pictures, "--out", tmp_path / "first", *FLAGS, "--train.batch-size", "8"]
    assert run_here([*command, *shape]) == 0
    before = load_file(tmp_path / "first" / "exported" / "model.safetensors")
    capsys.readouterr()
    for number, source in enumerate(("first", "first/exported")):
        run = tmp_path / f"run{number}"
        assert pretrain("image_tiny", pictures, run, tmp_path / source, *STILL) == 0
        said = capsys.readouterr().err
        assert "model: width 24, 3 heads, 2 blocks" in said
        assert "model: targets.average_layers is 2 instead of 4" in said
        after = load_file(run / "exported" / "model.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)
