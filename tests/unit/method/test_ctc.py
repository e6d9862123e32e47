"""The recogniser: padding changes nothing, padded frames are blank, masks are noise, and what is frozen stays."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from data2vec2.config.model import EncoderConfig
from data2vec2.config.run import FinetuneOptimConfig
from data2vec2.evaluation.decoding import greedy
from data2vec2.method import losses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import SpeechRecognizer, mask_tokens
from data2vec2.modalities.audio.config import AudioConfig, AudioHeadConfig, AudioTaskConfig
from data2vec2.modalities.audio.finetune import prepare
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.audio.recipes import ctc_tiny
from data2vec2.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors, set_learning_rate
from data2vec2.training.parallel import World
from tests.unit.method.test_pretraining import no_waiting

SHAPE = EncoderConfig(embed_dim=32, num_heads=4, prenet_depth=0, depth=2, norm_eps=1e-5)
AUDIO = AudioConfig(conv_dim=16, position_groups=4, position_depth=2, position_kernel=5)
SYMBOLS = 6
LENGTHS = torch.tensor([16_000, 9_000, 12_345])


def make(stem: str = "waveform", **changes: float) -> SpeechRecognizer:
    torch.manual_seed(0)
    modality = AudioModality(replace(AUDIO, stem=stem), 32, 4)  # type: ignore[arg-type]
    model = SpeechRecognizer(Encoder(replace(SHAPE, **changes), modality), SYMBOLS)  # type: ignore[arg-type]
    for name, parameter in model.encoder.named_parameters():
        if "norm" in name or "alibi" in name:  # what starts as 0 or 1 would hide mistakes
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    return model


def prepare_finetuning(model: SpeechRecognizer, **changes: float) -> None:
    """Only what is named changes."""
    head = AudioHeadConfig(**({"activation_dropout": 0.0, "layer_drop": 0.0, "freeze_stem": False} | changes))  # type: ignore[arg-type]
    prepare(replace(ctc_tiny(), task=AudioTaskConfig(model=head)), model.encoder)


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(int(length), generator=generator) for length in LENGTHS]


def padded(waves: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=7.0)


@pytest.mark.parametrize("stem", ["waveform", "mel"])
def test_a_clip_gives_the_same_in_any_batch(stem: str) -> None:
    model = make(stem).eval()
    logits_BTV, num_tokens_B = model(padded(clips()), LENGTHS)
    targets = torch.tensor([[1, 2, 2, 3], [4, 5, 0, 0], [2, 0, 0, 0]])
    lengths = torch.tensor([4, 2, 1])
    together = losses.ctc(logits_BTV, num_tokens_B, targets, lengths).loss
    alone_sum = 0.0
    for row, clip in enumerate(clips()):
        alone_TV = model(clip[None]).logits_BTV[0]
        count = int(num_tokens_B[row])
        assert count == len(alone_TV) == AUDIO.num_tokens(len(clip)) if stem == "waveform" else count
        assert torch.allclose(logits_BTV[row, :count], alone_TV, atol=2e-5)
        assert (logits_BTV[row, count:].argmax(dim=1) == 0).all()
        assert (logits_BTV[row, count:].softmax(dim=1)[:, 0] == 1).all()
        whole = logits_BTV[row].log_softmax(dim=1).detach().numpy()  # padded frames decode to nothing
        assert np.array_equal(greedy(whole)[0], greedy(alone_TV.log_softmax(dim=1).detach().numpy())[0])
        alone = losses.ctc(alone_TV[None], torch.tensor([count]), targets[row : row + 1], lengths[row : row + 1])
        alone_sum += alone.loss.item()
    assert together.item() == pytest.approx(alone_sum, rel=1e-5)


def test_what_fills_a_batch_up_gets_no_gradient() -> None:
    model = make()
    waves = padded(clips()).requires_grad_()
    out = model(waves, LENGTHS)
    losses.ctc(*out, torch.tensor([[1, 2], [3, 4], [5, 1]]), torch.tensor([2, 2, 2])).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    assert waves.grad is not None
    for row, length in enumerate(LENGTHS):
        assert waves.grad[row, :length].any()
        assert not waves.grad[row, length:].any()


def test_masked_tokens_are_noise_and_masked_channels_zero() -> None:
    model = make()
    tokens = model.encoder.modality.tokens(padded(clips()), LENGTHS)
    time_BT = torch.zeros(tokens.tokens_BTD.shape[:2], dtype=torch.bool)
    time_BT[0, 10:40] = True
    channels_BD = torch.zeros(3, 32, dtype=torch.bool)
    channels_BD[1, 5:9] = True
    x_BTD = mask_tokens(tokens, time_BT, channels_BD, 0.01).tokens_BTD
    assert x_BTD[0, 10:40].std().item() == pytest.approx(0.01, rel=0.1)
    assert not x_BTD[1, :, 5:9].any()
    untouched = ~(time_BT[..., None] | channels_BD[:, None])
    assert torch.equal(x_BTD[untouched], tokens.tokens_BTD[untouched])
    assert mask_tokens(tokens, None, None, 0.01).tokens_BTD is tokens.tokens_BTD


def test_what_is_masked_is_not_seen() -> None:
    """The same noise, other content under it: the same output."""
    model = make().eval()
    clip = clips()[0][None]
    other = clip.clone()
    other[:, 6_400:6_800] += 1.0  # seen by tokens 19 to 21
    time_BT = torch.zeros(1, AUDIO.num_tokens(16_000), dtype=torch.bool)
    time_BT[:, 18:22] = True
    outputs = []
    for inputs in (clip, other):
        torch.manual_seed(5)
        outputs.append(model(inputs, None, time_BT).logits_BTV)
    assert torch.equal(*outputs)
    assert not torch.allclose(model(clip).logits_BTV, model(other).logits_BTV)


def test_the_head_starts_as_it_should() -> None:
    head = make().head
    assert not head.bias.any()
    assert head.weight.abs().max() <= (6 / (32 + SYMBOLS)) ** 0.5  # Xavier's bound
    assert head.weight.std().item() == pytest.approx((2 / (32 + SYMBOLS)) ** 0.5, rel=0.15)


def test_what_fine_tuning_sets_acts_in_training_only() -> None:
    model, clip = make(), clips()[1][None]
    plain = model.eval()(clip).logits_BTV
    prepare_finetuning(model, activation_dropout=0.5)
    assert torch.equal(model(clip).logits_BTV, plain)
    model.train()
    assert not torch.equal(model(clip).logits_BTV, model(clip).logits_BTV)
    prepare_finetuning(model, layer_drop=0.999)
    assert not torch.allclose(model(clip).logits_BTV, plain)
    assert torch.equal(model.eval()(clip).logits_BTV, plain)


@pytest.mark.parametrize("stem", ["waveform", "mel"])
def test_a_frozen_stem_keeps_its_convolutions(stem: str) -> None:
    model = make(stem)
    prepare_finetuning(model, freeze_stem=True)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == (21 if stem == "waveform" else 0)  # a kernel, a scale and a shift of each of seven
    assert all(".stem.convs." in name or ".stem.norms." in name for name in frozen)


def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(4, 4_000, generator=generator)
    return inputs, torch.randint(1, SYMBOLS, (4, 3), generator=generator), torch.full((4,), 3)


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, part: slice) -> None:
    """The encoder is frozen in the first two steps."""
    inputs, targets, lengths = (tensor[part] for tensor in batch_of(step))
    logits, num_tokens = model(inputs, freeze_encoder=step < 2)
    (losses.ctc(logits, num_tokens, targets, lengths).loss / len(inputs)).backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(steps: range, start: dict[str, dict[str, Tensor]] | None = None) -> dict[str, dict[str, Tensor]]:
    model = make()
    prepare_finetuning(model, freeze_stem=True)
    optimizer = build_optimizer(model, FinetuneOptimConfig(weight_decay=0.1, decay_all=True))
    set_learning_rate(optimizer, 1e-2)
    if start:
        model.load_state_dict(start["model"])
        load_optimizer_tensors(model, optimizer, start["optimizer"])
    for step in steps:
        update(model, optimizer, step, slice(None))
    state = {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}
    return {group: {name: tensor.clone() for name, tensor in tensors.items()} for group, tensors in state.items()}


def test_a_frozen_encoder_does_not_move_and_then_does() -> None:
    start, frozen, later = (trained(range(steps)) for steps in (0, 2, 4))
    for name, tensor in frozen["model"].items():
        assert torch.equal(tensor, start["model"][name]) == (not name.startswith("head.")), name
    assert {name.split(".", 1)[1] for name in frozen["optimizer"]} == {"head.weight", "head.bias"}  # no moments
    moved = {name for name, tensor in later["model"].items() if not torch.equal(tensor, start["model"][name])}
    kept = set(later["model"]) - moved
    assert all(".stem.convs." in name or ".stem.norms." in name for name in kept)
    assert later["optimizer"]["step.head.bias"] == 4
    assert later["optimizer"]["step.encoder.norm.weight"] == 2  # Adam counts from where a parameter began to learn


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_training_goes_on_to_the_bit_from_before_and_after_the_thaw(stop: int) -> None:
    whole, parts = trained(range(4)), trained(range(stop, 4), trained(range(stop)))
    for group in ("model", "optimizer"):
        assert whole[group].keys() == parts[group].keys()
        assert all(torch.equal(tensor, parts[group][name]) for name, tensor in whole[group].items())


def helper(rank: int, folder: str) -> None:
    """One of two processes that train as `trained` does."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = make()
    prepare_finetuning(model, freeze_stem=True)
    optimizer = build_optimizer(model, FinetuneOptimConfig(weight_decay=0.1, decay_all=True))
    set_learning_rate(optimizer, 1e-2)
    for step in range(4):
        if step in (0, 2):  # where it freezes, and where it thaws
            shared = None
            shared = World(rank, 2).wrap(model, step == 0)
        update(shared, optimizer, step, slice(2 * rank, 2 * rank + 2))
    save_file(model.state_dict(), f"{folder}/model-{rank}.safetensors")
    save_file(optimizer_tensors(model, optimizer), f"{folder}/optimizer-{rank}.safetensors")
    dist.destroy_process_group()


def test_two_processes_freeze_as_one(tmp_path: Path) -> None:
    program = "import sys; from tests.unit.method.test_ctc import helper; helper(int(sys.argv[1]), sys.argv[2])"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", program, str(rank), str(tmp_path)] for rank in (0, 1)]
    children = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert "find_unused_parameters" not in "".join(said)
    alone = trained(range(4))
    for group in ("model", "optimizer"):
        first, second = (load_file(tmp_path / f"{group}-{rank}.safetensors") for rank in (0, 1))
        assert first.keys() == second.keys() == alone[group].keys()
        for name, tensor in alone[group].items():
            assert torch.equal(first[name], second[name]), name
            if name.startswith("step."):
                assert torch.equal(first[name], tensor), name
    shift = load_file(tmp_path / "model-0.safetensors")["head.weight"] - alone["model"]["head.weight"]
    assert shift.abs().max() < 1e-3


def test_a_step_never_waits_for_the_device() -> None:
    model = make()
    prepare_finetuning(model, activation_dropout=0.1, freeze_stem=True)
    inputs, targets, lengths = batch_of(0)
    sizes = torch.full((4,), 4_000)
    tokens = AUDIO.num_tokens(4_000)
    masks = torch.zeros(4, tokens, dtype=torch.bool), torch.zeros(4, 32, dtype=torch.bool)
    with no_waiting():
        losses.ctc(*model(inputs, sizes, *masks), targets, lengths).loss.backward()
