"""Pieces of recordings, crops, batches, replacement of bad ones, and the survey."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from data2vec2.config.model import MaskConfig
from data2vec2.data.account import Bad, PartAccount
from data2vec2.data.batch import Batches, iterate
from data2vec2.data.records import Records
from data2vec2.data.sampler import LengthBatches, Plan
from data2vec2.errors import UserError
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.reader import AudioReader, survey_audio
from data2vec2.modalities.audio.waveform import CANCELLED, TOO_SHORT, normalise
from data2vec2.tasks.pretrain import Masks
from tests.unit.data.sounds import RATE, encoded, open_recordings, put, sound

SPANS = MaskConfig(num_masks=2, mask_ratio=0.5, adjust=0.05, block_length=5, inverse=False)


def reader_of(records: Records, seed: int = 0, config: AudioConfig | None = None, **data: float) -> AudioReader:
    chosen = AudioDataConfig(**({"min_seconds": 1.0, "max_seconds": 3.0} | data))
    return AudioReader(records, config or AudioConfig(), chosen, seed)


def ids(*samples: int) -> np.ndarray:
    return np.array(samples, dtype=np.int64)


def plan(epoch: int, samples: list[int], length: int) -> Plan:
    return Plan(np.full(len(samples), epoch), ids(*samples), length)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of 1 to 3.2 s in three formats and rates, of two speakers; and one of 10 s."""
    root = tmp_path_factory.mktemp("audio")
    for place in range(12):
        name = f"speaker{place % 2}/{place:02}{('.wav', '.flac', '.ogg')[place % 3]}"
        put(root / name, 1 + 0.2 * place, (16_000, 8_000, 44_100)[place % 3], place)
    put(root / "speaker0" / "long.flac", 10.0, 16_000, 99)
    return root


@pytest.fixture(scope="module")
def records(folder: Path) -> Records:
    return open_recordings(folder).train


@pytest.fixture
def half_bad(tmp_path: Path) -> Records:
    """Ten recordings, of which every second can't be used, each for another reason."""
    wave, nan = sound(2.0), sound(2.0)
    nan[5_000] = np.nan
    bad = [b"", b"text", encoded(nan, subtype="FLOAT"), encoded(0 * wave), encoded(wave, extension=".flac")[:9_000]]
    for place in range(10):
        content = bad[place // 2] if place % 2 == 0 else encoded(sound(2 + 0.1 * place, seed=place))
        path = tmp_path / ("even" if place % 2 == 0 else "odd") / f"{place}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return open_recordings(tmp_path).train


def test_pieces_of_a_long_recording_cover_it(records: Records) -> None:
    for max_seconds, count in ((3.0, 3), (4.9, 2), (5.0, 2), (5.1, 1), (1.0, 10)):
        reader = reader_of(records, max_seconds=max_seconds)
        pieces, long = reader.pieces, records.names.index("speaker0/long.flac")
        of_long = pieces.records_P == long
        starts, lengths = pieces.starts_P[of_long], pieces.lengths_P[of_long]
        assert len(starts) == count
        assert starts[0] == 0
        assert (starts[1:] == (starts + lengths)[:-1]).all()
        assert starts[-1] + lengths[-1] == 10 * RATE
        assert (lengths >= max_seconds * RATE).all()
        assert lengths.max() - lengths.min() <= 1
        waves = [reader.piece(piece) for piece in np.flatnonzero(of_long).tolist()]
        parts = np.split(sound(10.0, seed=99), starts[1:])
        assert [len(wave) for wave in waves] == lengths.tolist()
        for wave, part in zip(waves, parts, strict=True):
            assert np.abs(wave - normalise(part)).max() < 0.01
    assert sorted(set(pieces.records_P.tolist())) == list(range(13))


def test_names_of_pieces_say_where(records: Records) -> None:
    reader = reader_of(records, max_seconds=5.0)
    names = [reader.name(piece) for piece in range(len(reader.pieces))]
    assert names[-9:-6] == ["speaker0/10.flac", "speaker0/long.flac from 0 s", "speaker0/long.flac from 5 s"]


def test_lengths_are_those_of_the_waveforms(records: Records) -> None:
    reader = reader_of(records)
    lengths = [len(reader.whole(place)) for place in range(len(records))]
    assert np.abs(reader.pieces.lengths_N - lengths).max() <= 1


def test_shapes_sizes_and_labels(records: Records) -> None:
    reader = reader_of(records)
    batch = reader.train_batch(plan(0, [3, 4, 3], 20_000))
    assert batch.inputs.shape == (3, 20_000)
    assert batch.inputs.dtype == np.float32
    assert batch.lengths_B is None
    assert batch.bad == ()
    assert batch.indices_B.tolist() == reader.pieces.records_P[[3, 4, 3]].tolist()
    assert batch.labels_B.tolist() == records.labels[batch.indices_B].tolist()
    assert reader.grid(batch.inputs) == (62,)
    assert reader.size(batch) == 1.25
    assert reader.records is records


def test_a_crop_is_part_of_the_normalised_piece(records: Records) -> None:
    reader = reader_of(records)
    for piece in range(len(reader.pieces)):
        whole = reader.piece(piece)
        crop = reader.train_batch(plan(1, [piece], 12_000)).inputs[0]
        windows = np.lib.stride_tricks.sliding_window_view(whole, 12_000)
        assert (np.abs(windows[:, ::999] - crop[::999]).max(axis=1) == 0).any()
        assert abs(whole.mean()) < 1e-4
        assert whole.std() == pytest.approx(1, abs=0.01)


def test_a_crop_depends_on_seed_epoch_and_sample_alone(records: Records) -> None:
    reader = reader_of(records)
    many = reader.train_batch(plan(0, list(range(12)), 14_000)).inputs
    assert np.array_equal(many[[7]], reader.train_batch(plan(0, [7], 14_000)).inputs)
    assert np.array_equal(many[::-1], reader.train_batch(plan(0, list(range(12))[::-1], 14_000)).inputs)
    assert not np.array_equal(many[[7]], reader.train_batch(plan(1, [7], 14_000)).inputs)
    assert not np.array_equal(many[[7]], reader_of(records, 1).train_batch(plan(0, [7], 14_000)).inputs)
    again = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(many, again.train_batch(plan(0, list(range(12)), 14_000)).inputs)
    crops = {reader.train_batch(plan(epoch, [7], 14_000)).inputs.tobytes() for epoch in range(20)}
    assert len(crops) == 20


def test_whole_recordings_are_padded_with_zeros(records: Records) -> None:
    reader = reader_of(records)
    batch = reader.eval_batch(ids(2, 12, 0))
    assert batch.lengths_B is not None
    assert batch.inputs.shape == (3, batch.lengths_B.max())
    assert batch.indices_B.tolist() == [2, 12, 0]
    assert batch.labels_B.tolist() == records.labels[[2, 12, 0]].tolist()
    for row, length, sample in zip(batch.inputs, batch.lengths_B, (2, 12, 0), strict=True):
        assert np.array_equal(row[:length], reader.whole(sample))
        assert not row[length:].any()
        assert row[:length].std() == pytest.approx(1, abs=0.01)


def test_another_rate_of_the_model(records: Records) -> None:
    reader = reader_of(records, config=AudioConfig(sample_rate=8_000, stem="mel"))
    assert np.abs(reader.pieces.lengths_N - 0.5 * reader_of(records).pieces.lengths_N).max() <= 1
    assert len(reader.whole(1)) == reader.pieces.lengths_N[1]


# Order


def test_every_piece_once_an_epoch_in_batches_of_so_many_seconds(records: Records) -> None:
    reader = reader_of(records, max_seconds=2.0)
    lengths = np.minimum(reader.pieces.lengths_P, 2 * RATE)
    order = reader.order(6)
    count = len(order.batches)
    for epoch in range(3):
        plans = [order(epoch * count + step) for step in range(count)]
        sizes = [len(one.samples_B) for one in plans]
        samples = np.concatenate([one.samples_B for one in plans])
        assert set(samples.tolist()) == set(range(len(lengths)))
        assert len(samples) - len(lengths) < max(sizes)  # the last batch is filled up
        for one in plans:
            assert len(set(one.samples_B.tolist())) == len(one.samples_B)
            assert one.length <= lengths[one.samples_B].min()
            assert len(one.samples_B) * one.length <= 6 * RATE < (len(one.samples_B) + 1) * one.length
            assert (one.epochs_B == epoch).all()
    firsts = [order(epoch * count).samples_B.tolist() for epoch in range(6)]
    assert len({tuple(first) for first in firsts}) > 3
    again = reader_of(records, max_seconds=2.0).order(6)
    for step in (17, 3, 8, 3):
        assert np.array_equal(order(step).samples_B, again(step).samples_B)
        assert order(step).length == again(step).length
        for size in (1, 2, 3):
            parts = [order(step).part(rank, size) for rank in range(size)]
            assert np.concatenate([part.samples_B for part in parts]).tolist() == order(step).samples_B.tolist()
            assert {part.length for part in parts} == {order(step).length}
            assert sum(part.weight for part in parts) == pytest.approx(size)


@pytest.mark.parametrize("count", [1, 2, 50, 1_000])
@pytest.mark.parametrize("seconds", [20, 100])
def test_order_of_lengths(count: int, seconds: int) -> None:
    lengths = np.minimum(np.random.default_rng(count).lognormal(2, 0.8, count), 20).clip(2) * RATE
    order = LengthBatches(lengths.astype(np.int64), seconds, 0, RATE)
    plans = [order(step) for step in range(len(order.batches))]
    seen = np.bincount(np.concatenate([one.samples_B for one in plans]), minlength=count)
    assert seen.min() == 1
    assert seen.max() <= 2
    used = sum(len(one.samples_B) * one.length for one in plans)
    assert used >= 0.9 * lengths.sum() or count < 1_000
    assert all(len(one.samples_B) * one.length <= seconds * RATE for one in plans)
    assert all(one.length <= lengths[one.samples_B].min() for one in plans)


def test_workers_and_processes_change_nothing(records: Records) -> None:
    reader = reader_of(records)
    order = reader.order(6)
    masks = [Masks(SPANS, reader)]
    here, there = (list(iterate(Batches(reader, order, masks), 0, 4, workers=workers)) for workers in (0, 1))
    for step, (one, two) in enumerate(zip(here, there, strict=True)):
        assert torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.keep_ids_NK, two.keep_ids_NK)
        ranks = [Batches(reader, order, masks, rank, 2)[step] for rank in range(2)]
        assert torch.equal(torch.cat([part.inputs for part in ranks]), one.inputs)
        assert torch.equal(torch.cat([part.keep_ids_NK for part in ranks]), one.keep_ids_NK)
        parts = list(one.split(3))
        assert all(len(part) * part.size <= 3 or len(part) == 1 for part in parts)
        assert torch.equal(torch.cat([part.inputs for part in parts]), one.inputs)


# Bad ones


REASONS = {"even/0.wav": "empty file", "even/2.wav": "not audio", "even/8.wav": "damaged"}


def test_what_can_not_be_decoded_is_left_out(half_bad: Records) -> None:
    reader = reader_of(half_bad)
    assert dict(reader.pieces.unreadable) == REASONS
    assert len(reader.pieces) == 7
    short = reader_of(half_bad, min_seconds=2.25)
    assert Bad("odd/1.wav", TOO_SHORT) in short.pieces.short
    assert short.pieces.unreadable == reader.pieces.unreadable
    assert min(short.pieces.lengths_P) >= 2.25 * RATE
    assert reader_of(half_bad, min_seconds=0.001).pieces.unreadable == reader.pieces.unreadable
    assert not reader_of(half_bad, min_seconds=0.001).pieces.short


def test_bad_pieces_are_replaced_counted_and_named(half_bad: Records) -> None:
    reader = reader_of(half_bad)
    samples = np.flatnonzero(reader.pieces.records_P < 5).tolist()  # even/4, 6: not finite, silent
    assert [half_bad.names[record] for record in reader.pieces.records_P[samples]] == ["even/4.wav", "even/6.wav"]
    batch = reader.train_batch(plan(2, [*samples, samples[0], 5], 2 * RATE))
    reasons = [Bad("even/4.wav", "not finite"), Bad("even/6.wav", "silent")]
    assert list(batch.bad) == [*reasons, reasons[0]]
    assert (batch.indices_B >= 5).all()
    assert (half_bad.labels[batch.indices_B] == batch.labels_B).all()
    assert np.array_equal(batch.inputs[0], batch.inputs[2])
    alone = reader.train_batch(plan(2, [samples[1]], 2 * RATE))
    assert np.array_equal(alone.inputs[0], batch.inputs[1])
    good = reader.train_batch(plan(2, list(range(2, 7)), 2 * RATE)).inputs
    for row in batch.inputs:  # it is the crop that the other piece has in this epoch
        assert (row == good).all(axis=1).any()


def test_a_replacement_is_long_enough_or_repeated(half_bad: Records, tmp_path: Path) -> None:
    reader = reader_of(half_bad)
    batch = reader.train_batch(plan(0, [0], round(2.8 * RATE)))
    assert half_bad.names[batch.indices_B[0]] == "odd/9.wav"
    longest = sound(3.0)
    longest[7] = np.inf
    (tmp_path / "odd" / "longest.wav").write_bytes(encoded(longest, subtype="FLOAT"))
    reader = reader_of(open_recordings(tmp_path).train)
    batch = reader.train_batch(plan(0, [7], 3 * RATE))
    assert batch.bad == (Bad("odd/longest.wav", "not finite"),)
    length = reader.pieces.lengths_N[batch.indices_B[0]]
    assert length < 3 * RATE
    assert np.array_equal(batch.inputs[0, length:], batch.inputs[0, : 3 * RATE - length])


def test_whole_recordings_are_replaced(half_bad: Records) -> None:
    reader = reader_of(half_bad)
    batch = reader.eval_batch(ids(0, 1, 2, 3, 4, 7))
    reasons = ["empty file", "not audio", "not finite", "silent", "damaged"]
    assert list(batch.bad) == [Bad(half_bad.names[place], reason) for place, reason in enumerate(reasons)]
    assert (batch.indices_B >= 5).all()
    assert batch.indices_B[5] == 7


def test_a_recording_of_less_than_a_token_is_too_short(tmp_path: Path) -> None:
    for name, count in (("a", 399), ("b", 400)):
        (tmp_path / f"{name}.wav").write_bytes(encoded(sound(1.0)[4_000 : 4_000 + count]))
    batch = reader_of(open_recordings(tmp_path).train).eval_batch(ids(0, 1))
    assert batch.bad == (Bad("a.wav", TOO_SHORT),)
    assert batch.inputs.shape == (2, 400)


@pytest.mark.parametrize("extension", [".mp3", ".wav"])
def test_a_header_that_promises_more_than_there_is(tmp_path: Path, extension: str) -> None:
    """An MP3 knows its length from a tag at its start, a manifest's from its list."""
    for place in range(4):
        content = encoded(sound(4.0, seed=place), extension=extension)
        (tmp_path / f"{place}{extension}").write_bytes(content[: len(content) // 2] if place == 1 else content)
    lines = [str(tmp_path), *(f"{place}{extension}\t{4 * RATE}" for place in range(4))]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    records = open_recordings(tmp_path / "train.tsv" if extension == ".wav" else tmp_path).train
    records = records.select(np.argsort(records.names))
    reader = reader_of(records, max_seconds=4.0)
    assert reader.pieces.lengths_N.tolist() == [4 * RATE, 0, 4 * RATE, 4 * RATE]
    assert reader.pieces.unreadable == (Bad(f"1{extension}", "truncated"),)
    assert reader.train_batch(plan(0, [0, 1, 2], 3 * RATE)).bad == ()
    assert survey_audio(reader, print).bad == reader.pieces.unreadable


def test_a_header_that_claims_a_thousand_pieces(tmp_path: Path) -> None:
    for place in range(3):
        content = bytearray(encoded(sound(4.0, seed=place), extension=".flac"))
        content[21] |= place  # one bit: 4 s become 3 days, or 6
        (tmp_path / f"{place}.flac").write_bytes(content)
    reader = reader_of(open_recordings(tmp_path).train)
    assert reader.pieces.lengths_P.tolist() == [4 * RATE] * 3
    assert survey_audio(reader, print).bad == ()


@pytest.mark.parametrize("claimed", ["0", "1000", "100000000000000000000", "9" * 5_000])
def test_a_manifest_that_is_wrong(tmp_path: Path, claimed: str) -> None:
    for place in range(3):
        put(tmp_path / f"{place}.flac", 2.0)
    rows = "".join(f"{place}.flac\t{claimed if place == 1 else 2 * RATE}\n" for place in range(3))
    (tmp_path / "train.tsv").write_text(f".\n{rows}")
    reader = reader_of(open_recordings(tmp_path / "train.tsv").train, max_bad=0.5)
    assert reader.pieces.unreadable == (Bad("1.flac", "not as long as the manifest says"),)
    assert reader.pieces.records_P.tolist() == [0, 2]
    assert survey_audio(reader, print).bad == reader.pieces.unreadable


def test_held_out_recordings_that_can_not_be_used_are_noted(half_bad: Records, tmp_path: Path) -> None:
    (tmp_path / "even" / "6.wav").write_bytes(encoded(sound(1.0)[4_000:4_399]))
    reader = reader_of(half_bad)
    part, said = PartAccount(found=10, max_bad=0.4), list[str]()
    reader.note_unreadable(part, said.append)
    assert part.bad == REASONS | {"even/6.wav": TOO_SHORT}
    assert part.used == 6
    assert said == ["data: 4 of 10 held out can't be used: 1 empty file, 1 not audio, 1 damaged, 1 too short"]
    with pytest.raises(UserError, match=r"4 of 10 samples can't be used .*--data.max-bad 0.3"):
        reader.note_unreadable(PartAccount(found=10, max_bad=0.3), print)


def test_files_that_vanish(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data2vec2.modalities.audio.reader.KEPT_BYTES", 0)  # else what was read once needs no file
    for place in range(3):
        put(tmp_path / f"{place}.wav", seed=place)
    reader = reader_of(open_recordings(tmp_path).train)
    assert len(reader.pieces) == 3
    (tmp_path / "1.wav").unlink()
    assert reader.train_batch(plan(0, [0, 1], RATE)).bad == (Bad("1.wav", "unreadable"),)
    for place in (0, 2):
        (tmp_path / f"{place}.wav").unlink()
    with pytest.raises(
        UserError, match=r"1\.wav can't be used \(unreadable\), nor can any of 100 replacements .* unreadable"
    ):
        reader.train_batch(plan(0, [1], RATE))
    with pytest.raises(UserError, match=r"0\.wav can't be used"):
        reader.eval_batch(ids(0))
    with pytest.raises(UserError, match=r"none of 3 recordings of the folder of recordings can be used: 3 unreadable"):
        survey_audio(reader, print)


def test_few_recordings_are_read_once(tmp_path: Path) -> None:
    for place in range(3):
        put(tmp_path / f"{place}.wav", seed=place)
    reader = reader_of(open_recordings(tmp_path).train)
    assert reader.in_memory
    first = reader.train_batch(plan(0, [0, 1, 2], RATE)).inputs
    for place in range(3):
        (tmp_path / f"{place}.wav").unlink()
    assert np.array_equal(reader.train_batch(plan(0, [0, 1, 2], RATE)).inputs, first)


# Survey


def test_survey(records: Records) -> None:
    found = survey_audio(reader_of(records), print)
    assert found.bad == ()
    assert found.checked == 13
    assert found.hours == pytest.approx((sum(1 + 0.2 * place for place in range(12)) + 10) / 3600, rel=1e-3)
    assert (found.shortest_s, found.longest_s) == pytest.approx((1.0, 10.0), abs=0.01)
    assert survey_audio(reader_of(records), print, limit=5) == found


def test_survey_of_bad_ones(half_bad: Records) -> None:
    found = survey_audio(reader_of(half_bad, max_bad=0.5), print)
    assert {bad.name: bad.reason for bad in found.bad} == REASONS | {"even/4.wav": "not finite", "even/6.wav": "silent"}
    assert found.checked == 10
    with pytest.raises(UserError, match=r"2 of 7 samples can't be used .*--data.max-bad 0.1"):
        survey_audio(reader_of(half_bad, max_bad=0.1), print)
    with pytest.raises(UserError, match="5 of 10 samples can't be used"):
        PartAccount(found.checked, 0.45).add(found.bad)
    assert len(PartAccount(found.checked, 0.5).add(found.bad)) == 5


def test_nothing_to_train_on(half_bad: Records) -> None:
    with pytest.raises(UserError, match=r"none of 10 recordings .*7 too short, 1 empty.*--data.min-seconds 3"):
        survey_audio(reader_of(half_bad, min_seconds=3.0), print)


def test_long_measurements_are_told(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data2vec2.modalities.audio.waveform._NOTE_EVERY_S", -1.0)
    said: list[str] = []
    reader_of(records).measure(said.append)
    assert said[-1] == "measured 13 of 13 recordings"


def test_recordings_whose_channels_cancel_are_told(tmp_path: Path) -> None:
    left = sound(4.0)
    for name, right in (("plain.wav", left), ("mirrored.wav", -left)):
        (tmp_path / name).write_bytes(encoded(np.stack([left, right], 1)))
    reader = AudioReader(open_recordings(tmp_path).train, AudioConfig(), AudioDataConfig(), 0)
    assert survey_audio(reader, print).mended == (Bad("mirrored.wav", CANCELLED),)
