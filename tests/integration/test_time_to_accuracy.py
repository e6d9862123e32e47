"""The objectives that data2vec 2.0 is compared with are what they should be, and the comparison runs.

What it measures is not tested.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batch
from data2vec2.data.records import open_data
from data2vec2.errors import UserError
from data2vec2.method.masking import complement
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.reader import PICTURES
from data2vec2.modalities.tools import tools_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPES = {"image": "image_tiny", "audio": "audio_mel_tiny", "text": "text_tiny"}


@pytest.fixture
def objectives(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import objectives

    mask = SimpleNamespace(backend=SimpleNamespace(token_to_id=lambda _: 3_999))
    monkeypatch.setattr(objectives, "load_tokenizer", lambda _: mask)
    return objectives


@pytest.fixture
def comparison(objectives: ModuleType) -> ModuleType:
    import time_to_accuracy

    return time_to_accuracy


def config_of(kind: str) -> RunConfig:
    config = get_recipe(RECIPES[kind])
    data = replace(config.data, tokenizer="none") if kind == "text" else config.data
    shape = replace(config.model.modality, num_channels=1) if kind == "image" else config.model.modality
    return replace(config, model=replace(config.model, modality=shape), data=data)


def pictures(count: int) -> torch.Tensor:
    pixels = np.stack([open_data(fashion_mnist(), PICTURES, ARRAYS).train.read(place) for place in range(count)])
    return torch.from_numpy(pixels)[:, None].float() / 255


def batch_of(config: RunConfig, count: int, share: float) -> Batch:
    """Inputs (normalised), kept places and classes."""
    tools = tools_of(config.model.modality.kind)
    if config.model.modality.kind == "image":
        inputs = pictures(count)
    elif config.model.modality.kind == "text":
        inputs = torch.arange(10, 42).repeat(count, 4)
    else:
        paths = [
            path for path in sorted(english_prompts().glob("train/*/*.ogg")) if soundfile.info(path).duration > 1.5
        ]
        inputs = torch.from_numpy(
            np.stack([soundfile.read(path, 24_000, dtype="float32")[0] for path in paths[:count]])
        )
    places = tools.build(config.model).tokens(inputs).tokens_BTD.shape[1]
    kept = torch.stack([torch.randperm(places)[: int(places * share)].sort().values for _ in range(count)])
    return Batch(inputs=inputs, keep_ids_NK=kept, targets=torch.arange(count) % 3)


def test_patches_are_normalised_each_on_its_own(objectives: ModuleType) -> None:
    patches = objectives.MaskedAutoencoder(config_of("image")).patches(pictures(8))
    assert patches.shape == (8, 49, 16)
    assert patches.mean(-1).abs().max() < 1e-3
    varied = torch.nn.functional.unfold(pictures(8), 4, stride=4).std(1) > 0.01
    assert 0.3 < varied.float().mean() < 1  # the background is of one colour
    assert torch.allclose(patches[varied].var(-1, unbiased=False), torch.ones(()), atol=0.02)


def test_a_masked_autoencoder_sees_kept_patches_and_tells_the_others(objectives: ModuleType) -> None:
    model = objectives.MaskedAutoencoder(config_of("image"))
    inputs = pictures(4).requires_grad_()
    seen = []
    model.pixels.register_forward_hook(lambda module, given, predictions: seen.append(predictions))
    model(inputs, Batch(inputs=inputs, keep_ids_NK=torch.arange(12).expand(4, -1)))
    assert seen[0].shape == (4, 49 - 12, 16)
    seen[0].square().sum().backward()
    gradient = torch.nn.functional.unfold(inputs.grad, 4, stride=4).abs().sum(1)
    assert (gradient[:, :12] > 0).all() and (gradient[:, 12:] == 0).all()


def test_a_masked_language_model_hides_most_of_the_asked_tokens(objectives: ModuleType) -> None:
    model = objectives.MaskedLanguageModel(config_of("text"))
    ids = torch.randint(4, 3_999, (16, 128))
    kept = torch.stack([torch.randperm(128)[:88].sort().values for _ in ids])
    asked = complement(kept, 128)
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loss = model(ids, Batch(inputs=ids, keep_ids_NK=kept))
    assert loss.item() == pytest.approx(math.log(4_000), abs=0.2)
    changed = seen[0] != ids
    places = torch.zeros_like(changed).scatter(1, asked, True)
    assert not changed[~places].any()
    assert (seen[0][places] == 3_999).float().mean().item() == pytest.approx(0.8, abs=0.06)
    assert changed[places].float().mean().item() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("kind", RECIPES)
def test_data2vec_1_sees_nothing_of_masked_places(objectives: ModuleType, kind: str) -> None:
    """Of audio: of what its stem makes of them, which looks at neighbours."""
    config = config_of(kind)
    model, batch = objectives.Data2Vec1(config).eval(), batch_of(config, 3, 0.5)
    tokens = model.encoder.modality.tokens(batch.inputs)
    hidden = complement(batch.keep_ids_NK, tokens.tokens_BTD.shape[1])
    changed = tokens.tokens_BTD.scatter(1, hidden[..., None].expand(-1, -1, tokens.tokens_BTD.shape[2]), 7.0)
    said, _ = model.encoded(batch.inputs, batch.keep_ids_NK)
    model.encoder.modality.tokens = lambda _: replace(tokens, tokens_BTD=changed)
    again, _ = model.encoded(batch.inputs, batch.keep_ids_NK)
    assert torch.equal(said, again)


def test_a_teacher_follows_over_its_share_of_the_training(objectives: ModuleType) -> None:
    config = config_of("image")
    model = objectives.Ours(config)
    model.follow(0.0)
    half = config.ema.anneal_updates / config.train.updates / 2
    middle = (config.ema.start + config.ema.end) / 2
    for share, decay in ((0.0, config.ema.start), (half, middle), (2 * half, config.ema.end), (1.0, config.ema.end)):
        assert model.ema.decay(int(1_000_000 * min(1.0, share / model.shares))) == pytest.approx(decay, abs=1e-6)


def test_codes_are_chosen_and_spread(objectives: ModuleType) -> None:
    model = objectives.Contrastive(config_of("audio"))
    codes, unused = model.quantised(torch.randn(4, 50, 96))
    assert codes.shape == (4, 50, 96)
    halves = codes.view(200, 2, 48)
    for group in range(2):  # every half is an entry of its codebook
        nearest = torch.cdist(halves[:, group], model.codes_GVD[group]).min(1).values
        assert nearest.max() < 0.02  # others are about 2.8 away
    assert 0 < unused.item() < 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("image", name) for name in ("data2vec 2.0, M = 4", "data2vec 1", "MAE", "supervised")),
        *(("audio", name) for name in ("data2vec 1", "wav2vec 2.0")),
        *(("text", name) for name in ("data2vec 1", "masked language model")),
    ],
)
def test_each_learns(objectives: ModuleType, kind: str, name: str) -> None:
    config = config_of(kind)
    method = objectives.methods(config, 3)[name]
    model, batch = method.build(config), batch_of(config, 6, 0.5)
    if name.startswith("data2vec 2.0"):
        batch = replace(batch, keep_ids_NK=batch.keep_ids_NK.repeat_interleave(4, 0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(60 if name == "wav2vec 2.0" else 30):
        losses.append(model(batch.inputs, batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.stack(losses[-5:]).mean() < 0.9 * losses[0]


def test_no_rival_gets_fewer_trials(objectives: ModuleType) -> None:
    for kind in RECIPES:
        known = objectives.methods(config_of(kind), 3)
        trials = {name: len(method.rates) + len(method.masks) - 1 for name, method in known.items()}
        assert (
            len({trials.pop(name) for name in known if name.startswith("data2vec 2.0")} | {min(trials.values())}) == 1
        )
        rows = {
            method.batch * method.masks[0].num_masks
            for name, method in known.items()
            if name.startswith("data2vec 2.0")
        }
        assert rows == {config_of(kind).model.masks.num_masks}


def test_ratios_of_known_curves(comparison: ModuleType) -> None:
    assert comparison.reached([0, 1, 2], [0.1, 0.3, 0.5], 0.4) == 1.5
    assert comparison.reached([0, 1, 2], [0.1, 0.3, 0.2], 0.25) == 0.75
    assert comparison.reached([0, 1], [0.1, 0.3], 0.4) == math.inf
    rival = [(0.0, [0.1] * 3), (5.0, [0.2] * 3), (10.0, [0.3] * 3)]
    quick = [(0.0, [0.1] * 3), (4.0, [0.3] * 3), (10.0, [0.5] * 3)]
    assert comparison.ratio(rival, quick) == pytest.approx((2.5, 2.5, 2.5))
    assert comparison.ratio(quick, rival) == (0.0, 0.0, 0.0)
    varied = [(0.0, [0.1] * 3), (4.0, [0.28, 0.3, 0.32]), (10.0, [0.5] * 3)]
    value, low, high = comparison.ratio(rival, varied)
    assert value == pytest.approx(2.5) and low < high and low <= 2.5 <= high


def test_the_comparison(
    comparison: ModuleType,
    parted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(comparison, "SHARES", (0.5, 1))
    monkeypatch.setattr(comparison, "SCORING_S", 0.0)
    monkeypatch.setattr(comparison, "MOST", 100)
    monkeypatch.setattr("objectives.PICTURES", (1e-3,))
    flags = ["image", "--data", str(parted), "--out", str(out), "--hours", "0.0006", "--seeds", "2", "--jobs", "0"]
    flags += ["--only", "data2vec 2.0, M = 4", "MAE"]
    monkeypatch.setattr(sys, "argv", ["time_to_accuracy.py", *flags])
    comparison.main()
    first = capsys.readouterr()
    results = json.loads((out / "results.json").read_text())
    assert len(results["sweep"]) == 5 * 2 and len(results["runs"]) == 2 + 2 * 2 * 2
    assert set(results["best"]) == {"data2vec 2.0, M = 4", "MAE"}
    assert {one["part"] for one in results["sweep"]} == {"validation"}
    assert all(one["part"] == "test" and 0 < one["knn"] < 1 for one in results["runs"])
    assert all(one["updates"] > 0 for one in results["runs"] if one["method"] != "untrained")
    assert (out / "curves.png").stat().st_size > 10_000
    assert first.out.count("| MAE |") == 2 * 3 and first.out.strip() == (out / "table.md").read_text().strip()
    comparison.main()  # nothing is done again
    again = capsys.readouterr()
    assert again.out == first.out
    kept = sorted((out / "runs").iterdir())
    kept[0].unlink()
    comparison.main()
    assert sorted((out / "runs").iterdir()) == kept
    monkeypatch.setattr(sys, "argv", ["time_to_accuracy.py", *flags, "--precision", "bfloat16"])
    with pytest.raises(UserError, match="is of another precision; give another --out"):
        comparison.main()


def test_the_best_rates_are_tried_again(comparison: ModuleType) -> None:
    scores = {1.0: 0.2, 2.0: 0.5, 3.0: 0.4, 4.0: 0.3, 5.0: 0.1}
    found = [{"method": "one", "rate": rate, "mask": 0, "linear": value} for rate, value in scores.items()]
    found += [{"method": "other", "rate": 1.0, "mask": 0, "linear": 0.9}]
    again = comparison.best_rates(found, ["linear"])
    assert sorted(again) == [("one", 2.0), ("one", 3.0), ("one", 4.0), ("other", 1.0)]
    assert comparison.chosen(found, ["linear"]) == {"one": (2.0, 0), "other": (1.0, 0)}


def test_settings_are_ranked_by_the_mean_of_their_seeds(comparison: ModuleType) -> None:
    scores = {1.0: (0.2, 0.9), 2.0: (0.5, 0.4), 3.0: (0.5, 0.5)}
    found = [
        {"method": "one", "rate": rate, "mask": 0, "linear": value} for rate, pair in scores.items() for value in pair
    ]
    found += [{"method": "other", "rate": 1.0, "mask": mask, "linear": value} for mask, value in ((0, 0.8), (1, 0.9))]
    expected = {"one": [(1.0, 0), (3.0, 0), (2.0, 0)], "other": [(1.0, 1), (1.0, 0)]}
    assert comparison.ranked(found, ["linear"]) == expected
