"""Text becomes blocks: nothing is lost, what is unchanged is not made again, and what is damaged is."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data2vec2.data.records import Parts
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.modalities.text import corpus as shards
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.corpus import Corpus, cut_blocks, open_text, tokenised
from data2vec2.modalities.text.files import find_text, pieces_of
from data2vec2.modalities.text.reader import TextReader
from data2vec2.modalities.text.tokenizer import TextTokenizer, load_tokenizer, save_tokenizer, train_tokenizer

TEXT = Path("CONTRIBUTING.md").read_text("utf-8")
MODEL = TextConfig(vocab_size=400, max_tokens=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer(TEXT.splitlines(), 400), path)
    return load_tokenizer(path)


def opened(path: Path, tokenizer: TextTokenizer, **data: object) -> Parts:
    return open_text(path, tokenizer, MODEL, TextDataConfig(**data))  # type: ignore[arg-type]


def corpus_of(path: Path, tokenizer: TextTokenizer) -> Corpus:
    return tokenised(find_text(path)["train"], tokenizer, "text", "line")


def units(path: Path, unit: str, column: str = "text") -> tuple[list[str], Counter[str]]:
    """The text of every unit, put together from its pieces."""
    counts: Counter[str] = Counter()
    found, text = [], ""
    for source in find_text(path)["train"]:
        for piece, ends in pieces_of(source, column, unit, counts, lambda _: None):  # type: ignore[arg-type]
            text += piece
            if ends:
                found.append(text)
                text = ""
    assert not text
    return found, counts


def test_units(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo \n\n \n\nthree\nfour")
    (tmp_path / "b.txt").write_bytes(b"five\n\nsix\n\n")
    (tmp_path / "c.txt").write_bytes(b"\n \n")
    assert units(tmp_path, "line")[0] == ["one", "two ", "three", "four", "five", "six"]
    assert units(tmp_path, "document")[0] == ["one\ntwo \n", "three\nfour", "five\n", "six\n"]
    found, counts = units(tmp_path, "file")
    assert found == ["one\ntwo \nthree\nfour", "five\nsix\n"]
    assert counts["empty files"] == 1


def test_what_can_not_be_text_is_mended_and_counted(tmp_path: Path) -> None:
    odd = "good \ufffd\n".encode() + b"bad \xff\xfe and \xc3\n" + b"nul \0\0.\nend \xe4"
    (tmp_path / "a.txt").write_bytes(b"good\n" * 60 + odd)
    found, counts = units(tmp_path, "line")
    assert found[60:] == ["good \ufffd", "bad \ufffd\ufffd and \ufffd", "nul .", "end \ufffd"]
    assert (counts["undecodable bytes replaced"], counts["NUL characters removed"]) == (4, 2)
    (tmp_path / "a.txt").write_bytes(odd)
    with pytest.raises(UserError, match=r"2 of 4 lines of .*a.txt are not UTF-8; save .*--data.encoding cp1252"):
        units(tmp_path, "line")


def test_old_macs_and_keys_of_another_case(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r\rthree")
    (tmp_path / "b.txt").write_bytes(b"one\r\nin\rside\n")
    (tmp_path / "c.jsonl").write_text('{"Text": "one"}\n{"Text": "two"}\n')
    assert units(tmp_path, "line")[0] == ["one", "two", "three", "one", "in\rside", "one", "two"]
    assert units(tmp_path, "document")[0] == ["one\ntwo\n", "three", "one\nin\rside\n", "one", "two"]
    long = "a" * 65_535  # a return is the last that is read at once
    (tmp_path / "long.txt").write_bytes(f"{long}\r\nb\n".encode())
    assert units(tmp_path / "long.txt", "document")[0] == [f"{long}\nb\n"]


@pytest.mark.parametrize("name", ["train.csv", "a/train.jsonl"])
def test_the_same_text_twice(tmp_path: Path, name: str) -> None:
    other = (tmp_path / name).with_suffix(".parquet")
    other.parent.mkdir(exist_ok=True)
    for path in (tmp_path / name, other):
        path.touch()
    with pytest.raises(UserError, match=f"{name} and .*train.parquet: the same text twice, it seems; keep one"):
        find_text(tmp_path)


@pytest.mark.parametrize(("name", "what"), [("a.gz", "unpack"), ("a.zip", "unpack")])
def test_what_to_do_about_other_files(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=rf"no text in .*\(1\); {what}"):
            find_text(path)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_compressed_files_say_the_same_or_are_errors(tmp_path: Path, tokenizer: TextTokenizer, ending: str) -> None:
    text = "".join(f"{place} größe, {hash_of(place)}\n" for place in range(20_000))
    (tmp_path / "a.txt").write_text(text, "utf-8")
    plain = corpus_of(tmp_path, tokenizer)
    path = (tmp_path / "a.txt").rename(tmp_path / "plain").with_name(f"a.txt.{ending}")
    with pytest.raises(UserError, match="no text"):
        find_text(tmp_path)
    whole = packed(text[:300_000], ending) + packed(text[300_000:], ending)  # joined
    path.write_bytes(whole)
    read = list[int]()
    (source,) = find_text(tmp_path)["train"]
    corpus = tokenised([source], tokenizer, "text", "line", read.append)
    assert (corpus.checksum, corpus.counts) == (plain.checksum, plain.counts)
    assert sum(read) == source.size == len(whole) and len(read) > 1, "bytes of the file, not of what is in it"
    half, second = bytearray(whole), len(packed(text[:300_000], ending))
    half[second + 1] ^= 255  # the beginning of the second stream
    for damaged in (b"", whole[: second // 2], whole[: second + 3], whole[:-1], half, whole + b"more", text.encode()):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"can't unpack .*a.txt.{ending}: .*; download or create it again"):
            corpus_of(tmp_path, tokenizer)


def hash_of(place: int) -> str:
    """What can hardly be compressed."""
    return hashlib.sha256(str(place).encode()).hexdigest()


def packed(text: str, ending: str) -> bytes:
    """Compressed as a file of such a name is."""
    if ending == "zst":
        return bytes(pa.compress(text.encode(), "zstd", asbytes=True))
    return {"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(text.encode())  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("unit", ["line", "document"])
def test_labels_of_fasttext_are_not_learned(tmp_path: Path, unit: str) -> None:
    (tmp_path / "a.txt").write_text("__label__x __label__y one\ntwo __label__z\n")
    (tmp_path / "b.txt").write_text("about __label__x\n__label__y\n")
    found, counts = units(tmp_path, unit)
    lines = ["one", "two ", "about __label__x", "__label__y"]
    assert found == (lines if unit == "line" else ["one\ntwo \n", "about __label__x\n__label__y\n"])
    assert counts["labels of fastText removed"] == 3


def test_headers_of_joined_tables_are_left_out_and_named(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    (tmp_path / "a.csv").write_text("text,n\none,1\ntext,n\ntwo,2\n")
    corpus = corpus_of(tmp_path, tokenizer)
    assert (corpus.counts["units"], corpus.bad) == (2, {})
    assert corpus.left_out == {"a.csv[1] (line 3: 'text,n')": "header repeated"}


def test_a_compressed_copy_is_the_same_text_twice(tmp_path: Path) -> None:
    for name in ("train.csv", "train.jsonl.GZ"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"train.csv and .*train.jsonl.GZ: the same text twice"):
        find_text(tmp_path)


def test_encodings(tmp_path: Path) -> None:
    text = "größe\nstraße \u0105\u010a\n" * 30_000
    (tmp_path / "a.txt").write_text(text, "utf-16")
    assert units(tmp_path, "line")[0] == text.splitlines()
    (tmp_path / "a.txt").write_text("größe\n", "cp1252")
    (source,) = find_text(tmp_path, "cp1252")["train"]
    assert list(pieces_of(source, "text", "line", Counter(), lambda _: None)) == [("größe", True)]
    with pytest.raises(ValueError, match="encoding is 'rot13'; it must be an encoding that Python knows"):
        find_text(tmp_path, "rot13")


@pytest.mark.parametrize("unit", ["line", "file"])
def test_a_long_line_is_cut_without_loss(tmp_path: Path, unit: str) -> None:
    text = "é" * 70_000 + " wörd" * 40_000 + "漢" * 30_001
    (tmp_path / "a.txt").write_text(text + "\nnext", "utf-8")
    expected = [text, "next"] if unit == "line" else [text + "\nnext"]
    found, counts = units(tmp_path, unit)
    assert found == expected
    assert not counts["undecodable bytes replaced"]


def test_tables_and_json_lines(tmp_path: Path) -> None:
    rows = ["one\ntwo", "three", None, " "]
    pq.write_table(pa.table({"body": rows}), tmp_path / "a.parquet")
    lines = [json.dumps({"body": row}) for row in rows] + [""]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    found, counts = units(tmp_path, "line", "body")
    assert found == ["one", "two", "three"] * 2
    assert counts["rows without text left out"] == 4
    assert units(tmp_path, "document", "body")[0] == ["one\ntwo", "three"] * 2
    for name in ("a.parquet", "b.jsonl"):
        with pytest.raises(UserError, match=rf"{name} has no column 'text' but body.*text-column"):
            units(tmp_path / name, "line")


def test_csv_and_tsv(tmp_path: Path) -> None:
    quoted = '"two\nlines, ""quoted"""'
    (tmp_path / "a.csv").write_bytes(f"\ufefflabel,text\r\n1,plain\r\n2,{quoted}\r\n3,\r\n\r\n4,a, b!\n".encode())
    (tmp_path / "b.tsv").write_bytes(b'text\tlabel\nsays "so\t1\n\t2\n')
    found, counts = units(tmp_path, "document")
    assert found == ["plain", 'two\nlines, "quoted"', "a, b!", 'says "so']
    mended = counts["commas of the last column taken as text"]
    assert (counts["rows without text left out"], mended) == (2, 1)
    assert units(tmp_path, "line")[0][1:3] == ["two", 'lines, "quoted"']
    with pytest.raises(
        UserError, match=r"a.csv has no column 'body' but label, text; name the one with text, --data.text-column"
    ):
        units(tmp_path, "line", "body")


def test_blocks_cover_the_stream(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    parts = opened(tmp_path / "a.txt", tokenizer, val_fraction=0.1)
    expected: list[int] = []
    for line in filter(str.strip, TEXT.splitlines()):
        expected += [*tokenizer.backend.encode(line, add_special_tokens=False).ids, tokenizer.eos_id]
    assert corpus_of(tmp_path / "a.txt", tokenizer).tokens.tolist() == expected
    assert parts.val is not None
    train, val = (
        TextReader(records, MODEL, 0).eval_batch(np.arange(len(records))).inputs for records in (parts.train, parts.val)
    )
    assert (train[:, 0] == 0).all() and (val[:, 0] == 0).all() and train.dtype == np.int64
    assert train[:, 1:].ravel().tolist() == expected[: train[:, 1:].size]
    start = int(parts.val.names[0].split()[1])
    assert start >= train[:, 1:].size and expected[start - 1] == tokenizer.eos_id
    assert val[:, 1:].ravel().tolist() == expected[start : start + val[:, 1:].size]
    assert len(expected) - start - val[:, 1:].size < 31


def test_equal_readers_give_equal_batches(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    reader = TextReader(opened(tmp_path / "a.txt", tokenizer).train, MODEL, 0)
    other = pickle.loads(pickle.dumps(reader))
    plan = reader.order(16)(3)
    whole = reader.train_batch(plan).inputs
    assert np.array_equal(other.train_batch(plan).inputs, whole)
    halves = [other.train_batch(plan.part(rank, 2)).inputs for rank in range(2)]
    assert np.array_equal(np.concatenate(halves), whole)
    chosen = reader.records.select(plan.samples_B)
    zero = np.zeros(16, dtype=np.int64)
    assert np.array_equal(TextReader(chosen, MODEL, 0).train_batch(Plan(zero, np.arange(16))).inputs, whole)
    assert chosen.fingerprint != reader.records.fingerprint == other.records.fingerprint


def test_a_corpus_is_made_once_and_again_after_a_change(
    tmp_path: Path, cache: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = tmp_path / "a.txt", []
    write = shards._write
    monkeypatch.setattr(shards, "_write", lambda *args: (made.append(1), write(*args)))
    path.write_text(TEXT, "utf-8")
    first = corpus_of(path, tokenizer)
    assert corpus_of(path, tokenizer) == first and len(made) == 1
    path.write_text(TEXT.swapcase(), "utf-8")  # of the same size
    os.utime(path, ns=(1, 1))
    assert corpus_of(path, tokenizer).checksum != first.checksum and len(made) == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "no manifest", "broken manifest"])
def test_a_damaged_corpus_is_made_again(tmp_path: Path, tokenizer: TextTokenizer, damage: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, "utf-8")
    corpus = corpus_of(path, tokenizer)
    content, manifest = corpus.path.read_bytes(), corpus.path.with_name("manifest.json")
    if damage == "flip":
        corpus.path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "cut":
        corpus.path.write_bytes(content[:-2])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:40])
    assert corpus_of(path, tokenizer) == corpus
    assert corpus.path.read_bytes() == content


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    vocabulary = {word: place for place, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "one"))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    save_tokenizer(words, tmp_path / "words")
    (tmp_path / "a.txt").write_text("one два\none три\n", "utf-8")
    corpus = corpus_of(tmp_path / "a.txt", load_tokenizer(tmp_path / "words"))
    assert (corpus.num_tokens, corpus.remarks) == (6, "2 unknown tokens")


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, cache: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")

    def stop(size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenised(find_text(tmp_path / "a.txt")["train"], tokenizer, "text", "line", stop)
    assert not list(cache.iterdir())


def test_memory_does_not_grow_with_a_line(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    """The peak of a process that tokenises one line of 50 MB, over that of one that tokenises a short one."""
    with (tmp_path / "long.txt").open("w") as file:
        for _ in range(1_000):
            file.write(("all work and no play makes a dull day " * 1_300)[:50_000])
    (tmp_path / "short.txt").write_text("all work and no play")
    program = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from data2vec2.modalities.text.corpus import tokenised\n"
        "from data2vec2.modalities.text.files import find_text\n"
        "from data2vec2.modalities.text.tokenizer import load_tokenizer\n"
        "tokenised(find_text(sys.argv[1])['train'], load_tokenizer(Path(sys.argv[2])), 'text', 'line')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", program, tmp_path / f"{name}.txt", tokenizer.path]))
        for name in ("short", "long")
    ]
    unit = 1 if sys.platform == "darwin" else 1024
    assert (peaks[1] - peaks[0]) * unit < 150e6


def test_parts_and_mistakes(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_text(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt is no file"):
        find_text(tmp_path / "pipe.txt")
    (tmp_path / "pipe.txt").unlink()
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no text in .*\.png \(1\)"):
        find_text(tmp_path)
    (tmp_path / "train.txt").write_text("short")
    with pytest.raises(UserError, match="and a block takes 31"):
        opened(tmp_path, tokenizer)
    (tmp_path / "train.txt").write_text(TEXT, "utf-8")
    (tmp_path / "valid-00.txt").write_text(TEXT[:3000], "utf-8")
    (tmp_path / "test of time.txt").write_text("not a test part")
    texts = find_text(tmp_path)
    assert {part: [s.name for s in sources] for part, sources in texts.items()} == {
        "train": ["test of time.txt", "train.txt"],
        "val": ["valid-00.txt"],
    }
    parts = opened(tmp_path, tokenizer)
    assert parts.val is not None and parts.train.source.corpus.path != parts.val.source.corpus.path  # type: ignore[attr-defined]
    assert "tokens in" in parts.description


def test_the_account_counts_units_and_names_what_is_left_out(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    rows = [json.dumps({"text": line}) for line in TEXT.splitlines() if line.strip()]
    (tmp_path / "train.jsonl").write_text("\n".join([*rows[:50], "{", *rows[50:], '{"text": " "}']), "utf-8")
    (tmp_path / "train-2.txt").write_text("\n \n")
    (tmp_path / "test_en.txt").write_text("not read")
    for _ in range(2):  # the second from the cache
        parts = opened(tmp_path, tokenizer, val_fraction=0.1)
        train, val = parts.account.parts["train"], parts.account.parts["val"]
        assert train.bad == {"train.jsonl[50] (line 51: '{')": "not a JSON object"}
        assert train.left_out == {"train-2.txt": "empty file"}
        assert (train.used + val.used, train.found) == (len(rows), train.used + 2)
        assert val.used > 0
        assert parts.account.beside == {"test_en.txt": "test part, which pre-training does not read"}
        assert parts.account.choices == ["parts by name: train is train-2.txt, train.jsonl; test is test_en.txt"]
        assert parts.account.remarks[0] == "train part: 1 empty files, 1 rows without text left out"
        assert "tokens at the ends of parts fill no block of 31" in parts.account.remarks[1]


NAMES = [
    ("train_en.txt", "valid_en.txt", "test_en.txt"),
    ("wiki.train.txt", "wiki.valid.txt", "wiki.test.txt"),
    ("imdb_train.csv", "imdb-dev.csv", "imdb_test.csv"),
    ("train/a.txt", "eval/a.txt", "testing/a.txt"),
    ("Training Set 1.txt", "Evaluation Set.txt", "Test Set (2).txt"),
    ("trainData.txt", "devel.txt", "TestSplit.txt"),
    ("traindata.txt", "development.txt", "testset.txt"),
]


@pytest.mark.parametrize("names", NAMES)
def test_files_called_after_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\nwords\n")
    found = {part: [source.name for source in sources] for part, sources in find_text(tmp_path).items()}
    assert found == {part: [name] for part, name in zip(("train", "val", "test"), names, strict=True)}


def test_nothing_is_held_out_of_little(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    (tmp_path / "a.txt").write_text(TEXT[:800], "utf-8")
    corpus = corpus_of(tmp_path / "a.txt", tokenizer)
    train, held = cut_blocks(corpus, 2, 31, 0.5)
    assert 0 < len(train.starts) < 20 and not len(held.starts)
