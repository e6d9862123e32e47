"""What a spike of the loss is blamed on: the samples of a batch by their names."""

from __future__ import annotations

from types import SimpleNamespace

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.reader import AudioReader
from data2vec2.modalities.data import Columns
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks import ReadingTask


def test_pieces_of_recordings_are_named() -> None:
    """There are more of them than recordings, and their places are others."""
    records = tools_of("audio").open_labelled(english_prompts() / "test", Columns(), "none").train
    reader = AudioReader(records, AudioConfig(), AudioDataConfig(min_seconds=0.5, max_seconds=0.5), seed=0)
    order = reader.order(20)
    assert len(reader.pieces) > 2 * len(records)
    task = SimpleNamespace(dataset=SimpleNamespace(reader=reader, order=order))
    for step in range(3):
        found = ReadingTask.names(task, step)
        pieces = order(step).samples_B.tolist()
        assert len(found) == len(pieces)
        for name, piece in zip(found, pieces, strict=True):
            record = reader.pieces.records_P[piece]
            assert name.startswith(records.names[record])
            assert (" from " in name) == (reader.pieces.lengths_P[piece] < reader.pieces.lengths_N[record])
