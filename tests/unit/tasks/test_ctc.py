"""Fine-tuning on letters: the loss by hand, what evaluation says, and the transcripts that it writes."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import EncoderConfig
from data2vec2.data.batch import Batch, Batches
from data2vec2.data.letters import Letters, normalise
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Recognized, SpeechRecognizer
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.audio.recipes import ctc_tiny
from data2vec2.modalities.audio.speech import SpokenReader, trainable
from data2vec2.tasks import RunContext
from data2vec2.tasks.finetune import CtcTask, LetterTargets
from data2vec2.training.run import RunFolder
from tests.unit.data.sounds import open_recordings

CPU = torch.device("cpu")
AUDIO = AudioConfig(stem="mel", position_depth=2, position_groups=4)
TEXTS = 12
"""Recordings to train on, and as many to evaluate with."""


@pytest.fixture(scope="module")
def reader() -> SpokenReader:
    config = ctc_tiny()
    records, *_ = trainable(open_recordings(english_prompts()).train.select(np.arange(200)), AUDIO, config.data, 0)
    return SpokenReader(records.select(np.arange(TEXTS)), AUDIO, config.data, 0)


def task_of(reader: SpokenReader, run: Path, val: SpokenReader | None, lines: list[str] | None = None) -> CtcTask:
    texts = reader.records.texts or ()
    letters = Letters.of(text or "" for text in texts)
    torch.manual_seed(0)
    encoder = Encoder(
        EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=1, norm_eps=1e-5), AudioModality(AUDIO, 16, 2)
    )
    model, said = SpeechRecognizer(encoder, len(letters)).eval(), [] if lines is None else lines
    nn.init.normal_(model.head.weight)  # so that more than one letter is heard
    model.head.bias.data[letters.ids["<unk>"]] = 5.0  # which is never written
    batches = Batches(reader, reader.order(ctc_tiny().train.batch_size), [LetterTargets(letters, texts)])
    context = RunContext(run=RunFolder(run), device=CPU, log=said.append)
    return CtcTask(model, batches, val, nn.Identity(), context, letters=letters)


class Says(nn.Module):
    """Gives the same probabilities for any sound, and remembers what it was asked."""

    def __init__(self, probabilities_BTV: Tensor, num_tokens_B: Tensor) -> None:
        super().__init__()
        self.found = Recognized(probabilities_BTV.log(), num_tokens_B)

    def forward(self, *inputs: Tensor, freeze_encoder: bool) -> Recognized:
        self.asked = (*inputs, freeze_encoder)
        return self.found


def probability(frames_TV: Tensor, text: list[int]) -> float:
    """Of a text: the sum over all sequences of symbols that collapse to it."""
    total = 0.0
    for path in product(range(frames_TV.shape[1]), repeat=len(frames_TV)):
        merged = [symbol for place, symbol in enumerate(path) if place == 0 or symbol != path[place - 1]]
        if [symbol for symbol in merged if symbol] == text:
            total += math.prod(frames_TV[place, symbol].item() for place, symbol in enumerate(path))
    return total


def test_the_loss_is_that_of_all_paths(reader: SpokenReader, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    frames_BTV = torch.rand(3, 4, 3, generator=generator).softmax(dim=2)
    texts, num_tokens_B = [[1, 2], [2, 2], [1, 1, 2]], torch.tensor([4, 3, 3])  # the last needs four tokens
    targets = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    model, task = Says(frames_BTV, num_tokens_B), task_of(reader, tmp_path, None)
    batch = Batch(
        inputs=torch.zeros(3, 5),
        lengths_B=torch.tensor([5, 4, 4]),
        targets=targets,
        target_lengths_B=torch.tensor([2, 2, 3]),
        time_masks_BT=torch.ones(3, 4, dtype=torch.bool),
        channel_masks_BD=torch.zeros(3, 16, dtype=torch.bool),
        freeze_encoder=True,
    )
    sums = task.loss(model, batch)
    by_hand = [
        probability(frames_TV[:count], text)
        for frames_TV, count, text in zip(frames_BTV, num_tokens_B.tolist(), texts, strict=True)
    ]
    assert by_hand[2] == 0
    assert sums.loss.item() == pytest.approx(-math.log(by_hand[0]) - math.log(by_hand[1]), rel=1e-5)
    frames_TBV = frames_BTV[:2].log().transpose(0, 1)
    torchs = F.ctc_loss(frames_TBV, targets[:2, :2], num_tokens_B[:2], torch.tensor([2, 2]), reduction="sum")
    assert sums.loss.item() == pytest.approx(torchs.item(), rel=1e-6)
    assert sums.count == 3
    assert task.figures(0) == {"impossible": 1.0}
    given = batch.inputs, batch.lengths_B, batch.time_masks_BT, batch.channel_masks_BD
    assert all(mine is theirs for mine, theirs in zip(model.asked, (*given, True), strict=True))


def edits(text: str, other: str) -> int:
    """Insertions, deletions and substitutions between two texts, at least."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(text):
        before, row = row, [place + 1]
        for column, found in enumerate(other):
            row.append(min(before[column] + (letter != found), before[column + 1] + 1, row[-1] + 1))
    return row[-1]


def test_evaluation_is_that_of_each_recording_alone(reader: SpokenReader, tmp_path: Path) -> None:
    lines: list[str] = []
    task = task_of(reader, tmp_path, reader, lines)
    letters, losses, expected = task.letters, [], {}
    for place, text in enumerate(reader.records.texts or ()):
        with torch.no_grad():
            logits_TV = task.model(torch.from_numpy(reader.whole(place))[None]).logits_BTV[0]
        target = torch.from_numpy(letters.encode(text or ""))
        counts = torch.tensor(len(logits_TV)), torch.tensor(len(target))
        losses.append(F.ctc_loss(logits_TV.log_softmax(1), target, *counts, reduction="sum").item())
        logits_TV[:, letters.ids["<unk>"]] = -torch.inf
        heard = [letters.symbols[symbol] for symbol in torch.unique_consecutive(logits_TV.argmax(1)).tolist() if symbol]
        hypothesis = " ".join("".join(heard).replace("|", " ").split())
        expected[reader.records.names[place]] = (normalise(text or ""), hypothesis)
    assert len({hypothesis for _, hypothesis in expected.values()}) > TEXTS / 2
    found = task.evaluate(50)
    cer = sum(edits(*pair) for pair in expected.values()) / sum(len(said) for said, _ in expected.values())
    assert found["val_cer"] == pytest.approx(cer)
    assert found["val_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found[task.monitor] == pytest.approx(1 - cer)
    assert set(found) == {"val_loss", "val_cer", "val_wer", task.monitor}
    rows = [json.loads(line) for line in (tmp_path / "transcripts.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 8
    assert {(row["part"], row["update"]) for row in rows} == {("validation", 50)}
    assert all((row["reference"], row["hypothesis"]) == expected[row["name"]] for row in rows)
    assert all(
        row["cer"] == pytest.approx(edits(row["reference"], row["hypothesis"]) / len(row["reference"])) for row in rows
    )
    assert lines == [f'update 50  "{row["reference"]}" heard as "{row["hypothesis"]}"' for row in rows[:3]]


def test_without_validation_nothing_is_said_or_written(reader: SpokenReader, tmp_path: Path) -> None:
    lines: list[str] = []
    assert task_of(reader, tmp_path, None, lines).evaluate(50) == {}
    assert not lines
    assert not list(tmp_path.iterdir())


def test_batches_are_of_the_letters(reader: SpokenReader, tmp_path: Path) -> None:
    task = task_of(reader, tmp_path, None)
    batch = next(iter(task.batches(0, 1)))
    assert batch.target_lengths_B is not None
    said = [task.letters.decode(row[:n].tolist()) for row, n in zip(batch.targets, batch.target_lengths_B, strict=True)]
    order = reader.order(ctc_tiny().train.batch_size)(0).samples_B.tolist()
    texts = [(reader.records.texts or ())[sample] or "" for sample in order]
    assert [task.letters.encode(text).tolist() for text in said] == [task.letters.encode(t).tolist() for t in texts]
