"""Batches for fine-tuning on speech: parts, masks, and what they depend on."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data2vec2.data.batch import Batch, Batches, iterate
from data2vec2.data.letters import Letters
from data2vec2.modalities.audio.config import AudioConfig, AudioFinetuneDataConfig, SpanMaskConfig
from data2vec2.modalities.audio.finetune import CtcJob, Spans
from data2vec2.modalities.audio.speech import SpokenReader
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks.finetune import ClassTargets, LetterTargets
from tests.unit.data.sounds import RATE, open_recordings, put

WORDS = ("one", "two", "three", "four", "fire!", "six")
LETTERS = Letters.of(WORDS)
WIDTH, FROZEN, SECONDS = 48, 3, 6
MASKS = SpanMaskConfig(time_share=0.4, time_length=4, channel_share=0.5, channel_length=6)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen recordings of 1 to 2 s in two folders, which say one word each."""
    root, rows = tmp_path_factory.mktemp("spoken"), ["file_name,transcription"]
    for place in range(14):
        name = f"{'ab'[place % 2]}/{place:02}.wav"
        put(root / name, 1 + place / 14, RATE, place)
        rows.append(f"{name},{WORDS[place % 6]}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def reader(folder: Path) -> SpokenReader:
    data = AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=3.0)
    return SpokenReader(open_recordings(folder).train, AudioConfig(), data, 5)


def batches_of(
    reader: SpokenReader, masks: SpanMaskConfig = MASKS, rank: int = 0, size: int = 1, seconds: int = SECONDS
) -> Batches:
    targets = LetterTargets(LETTERS, reader.records.texts or ())
    additions = [targets, Spans(masks, AudioConfig(), WIDTH, FROZEN)]
    return Batches(reader, reader.order(seconds), additions, rank, size)


def assert_same(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(mine, theirs) if isinstance(mine, Tensor) else mine == theirs, field.name


def word(reader: SpokenReader, sample: int) -> str:
    """What is said in a recording."""
    return (reader.records.texts or ())[sample].rstrip("!")  # type: ignore[union-attr]


def rows(batch: Batch, place: int) -> list[Tensor]:
    """Recording, letters and masks at one place, without what fills them up."""
    assert batch.target_lengths_B is not None and batch.lengths_B is not None
    assert batch.time_masks_BT is not None and batch.channel_masks_BD is not None
    length = int(batch.lengths_B[place])
    return [
        batch.inputs[place, :length],
        batch.targets[place, : int(batch.target_lengths_B[place])],
        batch.time_masks_BT[place, : AudioConfig().num_tokens(length)],
        batch.channel_masks_BD[place],
    ]


def test_what_a_batch_holds(reader: SpokenReader) -> None:
    dataset = batches_of(reader)
    for step in range(6):
        batch, plan = dataset[step], reader.order(SECONDS)(step)
        assert batch.lengths_B is not None and batch.target_lengths_B is not None
        assert len(batch) == len(plan.samples_B)
        assert batch.size == batch.inputs.shape[1] / RATE == int(batch.lengths_B.max()) / RATE
        assert len(batch) * batch.size <= SECONDS
        assert (batch.weight, batch.bad) == (1.0, ())
        for place, sample in enumerate(plan.samples_B.tolist()):
            wave, letters, *_ = rows(batch, place)
            assert np.array_equal(wave.numpy(), reader.whole(sample))
            assert not batch.inputs[place, len(wave) :].any()
            assert LETTERS.decode(letters.tolist()) == word(reader, sample)
            assert not batch.targets[place, len(letters) :].any()


def test_a_batch_is_a_function_of_its_step(reader: SpokenReader) -> None:
    """In any order, from another object, and read by other processes; in another epoch the masks are others."""
    forwards = [batches_of(reader)[step] for step in range(8)]
    again = batches_of(reader)
    for step in reversed(range(8)):
        assert_same(forwards[step], again[step])
    for here, there in zip(forwards[2:6], iterate(batches_of(reader), 2, 6, workers=1), strict=True):
        assert_same(here, there)
    assert not torch.equal(torch.cat(masks_of(reader, 0, 0)), torch.cat(masks_of(reader, 0, 1)))


def masks_of(reader: SpokenReader, sample: int, epoch: int) -> list[Tensor]:
    """A sample's masks in an epoch."""
    dataset, order = batches_of(reader), reader.order(SECONDS)
    count = len(order.batches)
    for step in range(epoch * count, (epoch + 1) * count):
        if sample in (samples := order(step).samples_B.tolist()):
            return rows(dataset[step], samples.index(sample))[2:]
    raise AssertionError("every recording has its turn in every epoch")


@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_processes_make_the_whole(reader: SpokenReader, size: int) -> None:
    """The same recordings, letters and masks, each filled up to its part's longest; weights make means exact."""
    uneven = False
    for step in range(6):
        whole = batches_of(reader)[step]
        parts = [batches_of(reader, rank=rank, size=size)[step] for rank in range(size)]
        assert sum(len(part) for part in parts) == len(whole)
        place = 0
        for part in parts:
            for row in range(len(part)):
                assert all(map(torch.equal, rows(part, row), rows(whole, place)))
                place += 1
        assert [part.weight for part in parts] == pytest.approx([len(part) * size / len(whole) for part in parts])
        uneven |= len({len(part) for part in parts}) > 1
    assert uneven


def test_the_head_learns_alone_at_first(reader: SpokenReader) -> None:
    assert [batches_of(reader)[step].freeze_encoder for step in range(6)] == [True] * FROZEN + [False] * 3


def test_masks_lie_over_what_is_there(reader: SpokenReader) -> None:
    hidden = 0
    for step in range(6):
        batch = batches_of(reader)[step]
        assert batch.time_masks_BT is not None and batch.channel_masks_BD is not None and batch.lengths_B is not None
        assert batch.time_masks_BT.shape == (len(batch), AudioConfig().num_tokens(batch.inputs.shape[1]))
        assert batch.channel_masks_BD.shape == (len(batch), WIDTH)
        for mask_T, length in zip(batch.time_masks_BT, batch.lengths_B.tolist(), strict=True):
            assert not mask_T[AudioConfig().num_tokens(length) :].any()
            hidden += int(mask_T.sum())
    assert hidden


@pytest.mark.parametrize(("name", "share"), [("time", 0.2), ("time", 0.65), ("channel", 0.2), ("channel", 0.65)])
def test_as_much_is_hidden_as_the_share_says(reader: SpokenReader, name: str, share: float) -> None:
    """Single places at random: of a share s, about 1 - exp(-s) (spans may meet)."""
    other = "channel" if name == "time" else "time"
    masks = SpanMaskConfig(**{f"{name}_share": share, f"{name}_length": 1, f"{other}_share": 0.0})
    found = []
    for step in range(3 * len(reader.order(SECONDS).batches)):
        batch = batches_of(reader, masks)[step]
        assert getattr(batch, "time_masks_BT" if name == "channel" else "channel_masks_BD") is None
        mask = batch.time_masks_BT if name == "time" else batch.channel_masks_BD
        assert mask is not None and batch.lengths_B is not None
        sizes = [AudioConfig().num_tokens(length) for length in batch.lengths_B.tolist()]
        found += (mask.sum(1) / (torch.tensor(sizes) if name == "time" else WIDTH)).tolist()
    assert np.mean(found) == pytest.approx(1 - math.exp(-share), abs=0.02)


def test_without_masks(reader: SpokenReader) -> None:
    batch = batches_of(reader, SpanMaskConfig(time_share=0.0, channel_share=0.0))[0]
    assert batch.time_masks_BT is None
    assert batch.channel_masks_BD is None


@pytest.mark.parametrize(("seconds", "count"), [(1, 1), (4, 2), (100, 3)])
def test_micro_batches_are_slices_of_so_many_seconds(reader: SpokenReader, seconds: int, count: int) -> None:
    batch = next(item for item in (batches_of(reader)[step] for step in range(6)) if len(item) == 3)
    parts = list(batch.split(seconds))
    assert [len(part) for part in parts] == [min(count, 3 - start) for start in range(0, 3, count)]
    for field in fields(Batch):
        if isinstance(value := getattr(batch, field.name), Tensor):
            assert torch.equal(torch.cat([getattr(part, field.name) for part in parts]), value), field.name
    for part in parts:
        kept = part.freeze_encoder, part.weight, part.size
        assert kept == (batch.freeze_encoder, batch.weight, batch.size)


def test_moving_a_batch_keeps_all_of_it(reader: SpokenReader) -> None:
    batch = batches_of(reader)[0]
    assert_same(batch.to(CPU), batch)
    moved = batch.to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values() if isinstance(value, Tensor)} == {"meta"}
    assert (moved.weight, moved.size, moved.freeze_encoder) == (batch.weight, batch.size, True)


def test_what_could_not_be_read_is_named_once(folder: Path, tmp_path: Path) -> None:
    """Its stand-in brings its own letters; of micro-batches none names it again."""
    for path in sorted(folder.rglob("*.*")):
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    data = AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=3.0)
    reader = SpokenReader(open_recordings(tmp_path).train, AudioConfig(), data, 5)
    lengths = reader.pieces.lengths_N.tolist()
    gone = reader.order(SECONDS)(0).samples_B.tolist()[0]
    (tmp_path / reader.records.names[gone]).unlink()
    batch = batches_of(reader)[0]
    assert [item.name for item in batch.bad] == [reader.records.names[gone]]
    assert [part.bad for part in batch.split(1)] == [()] * len(batch)
    wave, letters, *_ = rows(batch, 0)
    stand_in = lengths.index(len(wave))
    assert stand_in != gone
    assert LETTERS.decode(letters.tolist()) == word(reader, stand_in)


def test_targets_of_classes(reader: SpokenReader) -> None:
    targets = ClassTargets(reader.records)
    dataset = Batches(reader, reader.order(SECONDS), [targets, Spans(MASKS, AudioConfig(), WIDTH, FROZEN)])
    batch, samples = dataset[0], reader.order(SECONDS)(0).samples_B
    assert batch.target_lengths_B is None
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [
        [1.0, 0.0] if reader.records.names[sample].startswith("a/") else [0.0, 1.0] for sample in samples.tolist()
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_the_loss_that_is_measured_has_as_many_samples_as_asked_for(count: int) -> None:
    job = CtcJob(tools_of("audio"))
    logits_BTV = torch.randn(count, 7, 5, requires_grad=True)
    loss = job.error((logits_BTV, torch.full((count,), 7)))
    loss.backward()
    assert loss.item() > 0
    assert logits_BTV.grad is not None and bool((logits_BTV.grad.abs().sum((1, 2)) > 0).all())
