"""timm's augmentation: it depends on seed, epoch and sample alone, and leaves no trace in any generator."""

from __future__ import annotations

import pickle
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data2vec2.errors import UserError
from data2vec2.modalities.image.config import AugmentConfig
from data2vec2.modalities.image.finetune import Augment, needs_timm
from data2vec2.modalities.image.recipes import image_finetune_base
from tests.unit.data.pictures import clothes, photo

try:
    import timm.data
except Exception as error:
    timm, why = None, f"timm can't be imported: {error}"
else:
    why = ""
with_timm = pytest.mark.skipif(timm is None, reason=why)

FULL = image_finetune_base().task.augment
ZEROS = np.zeros(8, dtype=np.int64)


def grey(count: int = 8) -> NDArray[np.uint8]:
    return np.stack([np.asarray(clothes().read(index)) for index in range(count)])[:, None]


def colour(count: int = 8) -> NDArray[np.uint8]:
    pixels = np.asarray(photo(32, 32)).transpose(2, 0, 1)
    return np.stack([np.roll(pixels, shift, axis=2) for shift in range(count)])


def make(config: AugmentConfig = FULL, channels: int = 1, seed: int = 0) -> Augment:
    return Augment(config, 28 if channels == 1 else 32, (0.3,) * channels, (0.25,) * channels, seed)


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (AugmentConfig(), False),
        (AugmentConfig(label_smoothing=0.1), False),
        (AugmentConfig(erasing=0.1), True),
        (AugmentConfig(mixup=0.1), True),
        (AugmentConfig(cutmix=0.1), True),
        (AugmentConfig(rand_augment="rand-m9"), True),
    ],
)
def test_what_needs_timm(config: AugmentConfig, needed: bool) -> None:
    assert needs_timm(config) == needed


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    with pytest.raises(UserError, match=r"pip install 'data2vec2\[vision\]'"):
        make()


@with_timm
@pytest.mark.parametrize("pixels", [grey(), colour()], ids=["grey", "colour"])
def test_a_picture_depends_on_seed_epoch_and_sample_alone(pixels: NDArray[np.uint8]) -> None:
    channels = pixels.shape[1]
    augment, samples = make(channels=channels), np.arange(8)
    whole = augment.pictures(pixels, ZEROS, samples)
    assert whole.shape == pixels.shape
    alone = [augment.pictures(pixels[i : i + 1], ZEROS[:1], samples[i : i + 1])[0] for i in reversed(range(8))]
    assert torch.equal(torch.stack(alone[::-1]), whole)
    in_a_worker = pickle.loads(pickle.dumps(augment))
    assert torch.equal(in_a_worker.pictures(pixels, ZEROS, samples), whole)
    for other in (
        augment.pictures(pixels, ZEROS + 1, samples),
        augment.pictures(pixels, ZEROS, samples + 8),
        make(channels=channels, seed=1).pictures(pixels, ZEROS, samples),
    ):
        assert not torch.equal(other, whole)


@with_timm
def test_the_highest_level_is_survived() -> None:
    """Its Posterize would keep no bit at all."""
    augment, pixels = make(AugmentConfig(rand_augment="rand-m10-inc1")), np.repeat(grey(1), 100, axis=0)
    augmented = augment.pictures(pixels, np.zeros(100, dtype=np.int64), np.arange(100))
    assert len(torch.unique(augmented, dim=0)) > 20


@with_timm
def test_no_generator_is_left_changed() -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    augment = make()
    mixed = augment.mix(augment.pictures(grey(), ZEROS, np.arange(8)), torch.eye(8), 0, 0)
    assert len(mixed) == 2
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@with_timm
def test_erasing_puts_normal_noise_into_a_share_of_the_pictures() -> None:
    pixels = np.full((400, 1, 28, 28), 77, dtype=np.uint8)
    erased = make(AugmentConfig(erasing=0.25)).pictures(pixels, np.zeros(400, dtype=np.int64), np.arange(400))
    changed = (erased - 77).abs() > 1e-3
    assert changed.flatten(1).any(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.09)
    noise = erased[changed]
    assert noise.mean().item() == pytest.approx(255 * 0.3, abs=2)
    assert noise.std().item() == pytest.approx(255 * 0.25, rel=0.05)


@with_timm
def test_mixup_mixes_pictures_and_targets_alike() -> None:
    augment = make(replace(AugmentConfig(), mixup=1.0))
    pixels_BCHW, targets_BC = torch.from_numpy(grey()), torch.rand(8, 3)
    mixed_BCHW, mixed_BC = augment.mix(pixels_BCHW.clone(), targets_BC, 3, 0)
    difference = pixels_BCHW.float() - pixels_BCHW.float().flip(0)
    share = ((mixed_BCHW - pixels_BCHW.flip(0)) / difference)[difference != 0]
    assert share.std() < 1e-4
    assert 0 < share.mean() < 1
    assert torch.allclose(mixed_BC, share.mean() * targets_BC + (1 - share.mean()) * targets_BC.flip(0), atol=1e-4)


@with_timm
def test_cutmix_weighs_targets_by_area() -> None:
    augment = make(replace(AugmentConfig(), cutmix=1.0))
    pixels_BCHW = torch.arange(8).view(8, 1, 1, 1).expand(8, 1, 28, 28).to(torch.uint8)
    mixed_BCHW, mixed_BC = augment.mix(pixels_BCHW.clone(), torch.eye(8), 1, 0)
    own = (mixed_BCHW == pixels_BCHW).float().mean(dim=(1, 2, 3))
    assert 0 < own[0] < 1
    assert torch.allclose(mixed_BC.diagonal(), own, atol=1e-6)
    assert torch.allclose(mixed_BC.sum(dim=1), torch.ones(8))


@with_timm
def test_mixing_depends_on_seed_step_and_rank_alone() -> None:
    augment, targets_BC = make(replace(AugmentConfig(), mixup=1.0)), torch.eye(8)

    def weights(step: int, rank: int) -> torch.Tensor:
        return augment.mix(torch.from_numpy(grey()), targets_BC, step, rank)[1]

    assert torch.equal(weights(1, 0), weights(1, 0))
    assert not torch.equal(weights(1, 0), weights(2, 0))
    assert not torch.equal(weights(1, 0), weights(1, 1))


@with_timm
@pytest.mark.parametrize("policy", ["", "foo", "rand-x9"])
def test_an_unknown_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=r"augment.rand_augment is .* must be a policy of timm's"):
        make(AugmentConfig(rand_augment=policy))
