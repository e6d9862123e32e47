"""The masked autoencoder and the comparison with it run; what they measure is not tested."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from data2vec2.data.records import open_data
from data2vec2.interop.folder import load_encoder
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.reader import PICTURES
from tests.integration.helpers import run_here

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONFIG = get_recipe("image_tiny").model


@pytest.fixture
def masked_autoencoder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import masked_autoencoder

    return masked_autoencoder


@pytest.fixture(scope="module")
def data(parted: Path) -> Path:
    return parted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    return Path(shutil.copytree(pretrained, tmp_path_factory.mktemp("runs") / "seed-3"))


def pictures(count: int) -> torch.Tensor:
    pixels = np.stack([open_data(fashion_mnist(), PICTURES, ARRAYS).train.read(place) for place in range(count)])
    return torch.from_numpy(pixels)[:, None].float() / 255


def test_patches_are_normalised_each_on_its_own(masked_autoencoder: ModuleType) -> None:
    patches = masked_autoencoder.MaskedAutoencoder(CONFIG).patches(pictures(8))
    assert patches.shape == (8, 49, 16)
    assert patches.mean(-1).abs().max() < 1e-3
    varied = torch.nn.functional.unfold(pictures(8), 4, stride=4).std(1) > 0.01
    assert 0.3 < varied.float().mean() < 1  # the background is of one colour
    assert torch.allclose(patches[varied].var(-1, unbiased=False), torch.ones(()), atol=0.02)


def test_only_masked_patches_are_scored_and_they_are_not_seen(masked_autoencoder: ModuleType) -> None:
    torch.manual_seed(0)
    model = masked_autoencoder.MaskedAutoencoder(CONFIG)
    inputs = pictures(4).requires_grad_()
    keep_ids = torch.arange(12).expand(4, -1)
    seen = []
    model.pixels.register_forward_hook(lambda module, given, predictions: seen.append(predictions))
    model(inputs, keep_ids)
    assert seen[0].shape == (4, 49 - 12, 16)
    seen[0].square().sum().backward()
    by_patch = model.patches(inputs).shape[1]
    gradient = torch.nn.functional.unfold(inputs.grad, 4, stride=4).abs().sum(1)
    assert by_patch == 49
    assert (gradient[:, :12] > 0).all()
    assert (gradient[:, 12:] == 0).all()


def test_it_learns(masked_autoencoder: ModuleType) -> None:
    torch.manual_seed(0)
    model, inputs = masked_autoencoder.MaskedAutoencoder(CONFIG), pictures(16)
    keep_ids = torch.stack([torch.randperm(49)[:12].sort().values for _ in range(16)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        losses.append(model(inputs, keep_ids))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_the_command_writes_a_model_that_is_scored(
    masked_autoencoder: ModuleType,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*map(str, (data, tmp_path / "mae")), "--like", str(run), "--batch-size", "4", "--lr", "1e-3"]
    monkeypatch.setattr(sys, "argv", ["masked_autoencoder.py", *words, "--seed", "1", "--updates", "2"])
    masked_autoencoder.main()
    assert "2 updates of 4 samples" in capsys.readouterr().out
    encoder, info = load_encoder(tmp_path / "mae")
    own, own_info = load_encoder(run / "exported")
    assert info == own_info  # shape, crop and normalisation
    assert not torch.equal(encoder.blocks[0].mlp.fc1.weight, own.blocks[0].mlp.fc1.weight)
    monkeypatch.setattr(sys, "argv", ["masked_autoencoder.py", *words, "--seconds", "0.3"])
    masked_autoencoder.main()
    assert re.search(r"\d+ updates of 4 samples", capsys.readouterr().out)
    assert run_here(["evaluate", tmp_path / "mae", data, "--probes", "knn"]) == 0


def test_the_comparison(
    masked_autoencoder: ModuleType,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import compare_pretraining

    tuning = tmp_path / "finetune.yaml"
    train = {"updates": 2, "batch_size": 8, "processes": 1, "device": "cpu", "precision": "float32"}
    tuning.write_text(json.dumps({"recipe": "image_finetune_tiny", "train": train}))
    out, flags = tmp_path / "out", ["--labels", "1,3", "--seeds", "1", "--seconds", "0.3"]
    flags += ["--finetune", str(tuning), "--finetune-labels", "2"]
    monkeypatch.setattr(sys, "argv", ["compare_pretraining.py", str(data), str(run), "--out", str(out), *flags])
    capsys.readouterr()
    compare_pretraining.main()
    header, rule, *rows = capsys.readouterr().out.splitlines()
    names = [name.strip() for name in header.strip("|").split("|")][1:]
    assert names[:2] == ["data2vec2", "masked autoencoder"]
    assert set(names[2:]) == {"random initialisation", "raw pixels", "majority class"}
    assert rule.count("|") == header.count("|")
    assert [row.split("|")[1].strip() for row in rows] == [
        *("knn", "linear", "knn, 1 a class", "knn, 3 a class", "linear, 1 a class", "linear, 3 a class"),
        "finetune, 2 a class",
    ]
    cells = [cell.strip() for cell in rows[-1].split("|")[2:-1]]
    assert sum(re.fullmatch(r"\d+\.\d", cell) is not None for cell in cells) == 3  # from both models and from scratch
    assert "±" not in rows[-1]  # there is one run
    assert "55.0 ± " in compare_pretraining.table({("data2vec2", "knn"): [0.5, 0.6]})
    assert (out / "seed-3" / "model.safetensors").is_file()
    (run / "status.json").write_text(json.dumps({"state": "interrupted"}))
    with pytest.raises(compare_pretraining.UserError, match="has not finished: interrupted"):
        compare_pretraining.main()
