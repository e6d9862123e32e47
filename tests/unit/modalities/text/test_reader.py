"""Tables of texts become records, and records become batches of tokens."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data2vec2.data.account import Bad
from data2vec2.data.reading import wording
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.reader import EVAL_TOKENS, NO_TEXT, SentenceReader, Texts, open_sentences
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer

GLOSSES = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][::50]
MODEL = TextConfig(vocab_size=500, max_tokens=24)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer(GLOSSES, 500), path)
    return path


def rows(records: Records) -> list[tuple[str, ...]]:
    assert isinstance(records.source, Texts)
    return list(records.source.rows)


def reader(path: Path, tokenizer: Path, model: TextConfig = MODEL) -> SentenceReader:
    return SentenceReader(open_sentences(path).train, model, tokenizer, seed=0)


TABLE = {"text": ['a, "b"\nc', "größe", "", "d"], "label": ["x", "y", "x", ""]}
QUOTED = 'text,label\n"a, ""b""\nc",x\ngröße,y\n,x\nd,\n'


def written(path: Path) -> Path:
    """The same table in the format that the name says."""
    if path.suffix == ".csv":
        path.write_text("\ufeff" + QUOTED, "utf-8")
    elif path.suffix == ".tsv":
        path.write_text('label\ttext\nx\ta, "b" c\ny\tgröße\nx\t\n\td\n', "utf-8")
    elif path.suffix == ".jsonl":
        lines = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    else:
        pq.write_table(pa.table(TABLE), path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    parts = open_sentences(written(tmp_path / name))
    records = parts.train
    first = 'a, "b" c' if name == "a.tsv" else 'a, "b"\nc'
    assert rows(records) == [(first,), ("größe",), ("",), ("d",)]
    assert records.labels.tolist() == [0, 1, 0, -1]
    assert records.classes == ("x", "y")
    assert list(records.names) == [f"{name}[{place}]" for place in range(4)]
    assert parts.description == "table of texts: 4 train, 2 classes; texts from text, labels from label"
    odd = ["1 of 4 train samples have no label", "classes with one training sample: y"]
    assert parts.account.remarks == odd


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_compressed_table_says_the_same(tmp_path: Path, name: str) -> None:
    plain = open_sentences(written(tmp_path / name)).train
    content = (tmp_path / name).read_bytes()
    path = tmp_path / f"{name}.GZ"
    path.write_bytes(gzip.compress(content))
    packed = open_sentences(path).train
    assert (rows(packed), packed.labels.tolist()) == (rows(plain), plain.labels.tolist())
    assert wording(path, None) == wording(tmp_path / name, None)
    (tmp_path / name).unlink()
    assert rows(open_sentences(tmp_path).train) == rows(plain)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"can't unpack .*{name}.GZ"):
        open_sentences(tmp_path)


def test_json_files_of_a_folder_are_tables_if_they_are_lists_of_objects(tmp_path: Path) -> None:
    rows_of = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    names = {"train.json": json.dumps(rows_of), "test.json": json.dumps({"rows": rows_of}), "about.json": '{"a": [1]}'}
    parts = open_sentences(write_texts(tmp_path, dict(names)))
    assert parts.test is not None and parts.test.classes == ("x", "y")
    assert rows(parts.train) == rows(parts.test) == [("a",), ("b",)]
    assert parts.account.beside == {"about.json": ".json"}
    write_texts(tmp_path, {"test.json": '{"rows": [{"text": "a"}, {"te'})
    with pytest.raises(UserError, match=r"test\.json is not valid JSON"):
        open_sentences(tmp_path)


def test_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,score\na,1.5\nb,\nc,-3\nd,2e1\n")
    parts = open_sentences(tmp_path / "a.csv", labels="numbers")
    assert parts.train.numbers is not None
    assert np.array_equal(parts.train.numbers, [1.5, np.nan, -3, 20], equal_nan=True)
    assert (parts.train.classes, parts.train.labels.tolist()) == ((), [-1] * 4)
    assert "3 numbers to learn from; texts from text, labels from score" in parts.description
    assert parts.train.select([2, 0]).numbers.tolist() == [-3, 1.5]  # type: ignore[union-attr]
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0.25, None]}), tmp_path / "b.parquet")
    found = open_sentences(tmp_path / "b.parquet", labels="numbers").train.numbers
    assert found is not None and np.array_equal(found, [0.25, np.nan], equal_nan=True)
    (tmp_path / "a.csv").write_text("text,category,score\na,news,\nb,forum,2\n")
    assert "labels from score" in open_sentences(tmp_path / "a.csv", labels="numbers").description
    for value in ("good", "inf"):
        (tmp_path / "a.csv").write_text(f"text,label\na,1\nb,{value}\n")
        with pytest.raises(UserError, match=rf"a.csv\[1\]: label is '{value}'"):
            open_sentences(tmp_path / "a.csv", labels="numbers")


def test_labels_that_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 0.5}\n{"text": "b", "label": {"x": 1}}\n')
    records = open_sentences(tmp_path / "a.jsonl", labels="none").train
    assert (records.labels.tolist(), records.classes, records.numbers) == ([-1, -1], (), None)
    with pytest.raises(UserError, match=r"a label is 0\.5"):
        open_sentences(tmp_path / "a.jsonl")


def test_parts_by_the_names_of_files(tmp_path: Path) -> None:
    for name, count in (("train-0.csv", 3), ("sub/train-1.csv", 2), ("valid.csv", 1), ("test.csv", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("sentence,class\n" + "".join(f"{name} {i},{i % 2}\n" for i in range(count)))
    (tmp_path / "README.md").write_text("no table")
    parts = open_sentences(tmp_path)
    assert parts.val is not None and parts.test is not None
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [5, 1, 4]
    assert parts.train.classes == parts.test.classes == ("0", "1")
    assert rows(parts.val) == [("valid.csv 0",)]
    assert [len(open_sentences(tmp_path / "test.csv").train)] == [4], "one file is one part"


def test_lists_of_labels_in_csv_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,labels\na,"[\'x\', \'y\']"\nb,"[""y""]"\nc,[]\nd,\n')
    records = open_sentences(tmp_path / "a.csv").train
    assert records.classes == ("x", "y") and records.tags is not None
    assert records.tags.tolist() == [[True, True], [False, True], [False, False], [False, False]]
    (tmp_path / "a.csv").write_text("text,label\na,[]\nb,[UNK]\n")
    assert open_sentences(tmp_path / "a.csv").train.classes == ("[UNK]", "[]")


def test_texts_of_other_parts_that_are_learned_too(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("text,label\na,x\nb,y\nc,x\n,y\n")
    for name, texts in {"train": "ab", "test": "cde"}.items():
        (tmp_path / f"{name}.csv").write_text("text,label\n,x\n" + "".join(f"{text},y\n" for text in texts))
    assert "1 of 4 test texts are in the train part too" in open_sentences(tmp_path).account.remarks


def test_columns_that_are_named_and_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("premise,hypothesis,note,label,score\na,b,n,yes,1\nc,d,m,no,2\n")
    assert rows(open_sentences(path).train) == [("a", "b"), ("c", "d")], "known pairs are found"
    assert rows(open_sentences(path, ["note"]).train) == [("n",), ("m",)]
    assert rows(open_sentences(path, ["note", "premise"]).train) == [("n", "a"), ("m", "c")]
    assert open_sentences(path, label="score").train.classes == ("1", "2")


def test_columns_that_a_model_learned_from_come_before_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("premise,hypothesis,text,Note\na,b,c,n\n")
    parts = open_sentences(path, learned=["note"])
    assert rows(parts.train) == [("n",)] and "texts from Note as the model learned" in parts.description
    assert rows(open_sentences(path, ["premise"], learned=["note"]).train) == [("a",)], "a named one wins"
    assert rows(open_sentences(path, learned=["text", "note"]).train) == [("c", "n")]
    parts = open_sentences(path, learned=["body"])
    assert rows(parts.train) == [("c",)], "as many as were learned from"
    assert "texts from text (the model learned from body)" in parts.description
    path.write_text("text,label\na,b\n")
    with pytest.raises(UserError, match="has neither question and context, which the model learned from, nor a usual"):
        open_sentences(path, learned=["question", "context"])


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\r\n\ntwo\x00\nthree\n" + b"good\n" * 20 + b"\xff")
    parts = open_sentences(path)
    assert rows(parts.train)[:4] == [("one",), ("",), ("two",), ("three",)]
    assert (len(parts.train), parts.train.classes) == (24, ())
    assert parts.account.remarks == []
    account = parts.account.part("train")
    assert account.bad == {"lines.txt[24] (line 25: '\ufffd')": "not UTF-8"}
    assert account.mended == {"lines.txt[2]": "NUL characters removed"}
    assert (account.found, account.used) == (25, 24)
    kept = open_sentences(path, labels="none").train
    assert kept.names[24] == "lines.txt[24]" and kept.source.fault(24) == "not UTF-8"  # type: ignore[attr-defined]


def write_texts(root: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_a_folder_of_texts_by_class(tmp_path: Path) -> None:
    """As IMDB's reviews are laid out."""
    classes = {"train/pos": "good", "train/neg": "bad", "train/unsup": "so", "test/pos": "fine", "test/neg": "poor"}
    texts = {
        f"{folder}/{place}_7.txt": f"{text} {place}\n\nreally\n" for folder, text in classes.items() for place in (0, 1)
    }
    lists = {"README": "x", "imdb.vocab": "the\n", "imdbEr.txt": "0.1\n", "train/urls_pos.txt": "http://a\n"}
    parts = open_sentences(write_texts(tmp_path, {**texts, **lists}))
    assert parts.test is not None and parts.train.classes == parts.test.classes == ("neg", "pos")
    assert rows(parts.train)[:3] == [("bad 0\n\nreally",), ("bad 1\n\nreally",), ("good 0\n\nreally",)]
    assert list(parts.train.names)[3:5] == ["train/pos/1_7.txt", "train/unsup/0_7.txt"]
    assert (parts.train.labels.tolist(), parts.test.labels.tolist()) == ([0, 0, 1, 1, -1, -1], [0, 0, 1, 1])
    unused = {"README": "no extension", "imdb.vocab": ".vocab", "imdbEr.txt": "in no part"}
    assert parts.account.beside == {**unused, "train/urls_pos.txt": "in no folder of a class"}
    said = ["folders taken as texts without a label: train/unsup", "2 of 6 train samples have no label"]
    assert parts.account.remarks == said
    assert "each file is a text, its folder the label" in parts.description
    assert open_sentences(tmp_path, labels="none").train.classes == ()
    with pytest.raises(ValueError, match="has no columns, for it holds a text a file"):
        open_sentences(tmp_path, ["text"])
    with pytest.raises(UserError, match="no tables of texts"):
        open_sentences(tmp_path, labels="numbers")


def test_folders_of_texts_that_are_no_classes(tmp_path: Path) -> None:
    """Of one folder only, beside a table, and of flat files nothing is a label."""
    texts = write_texts(tmp_path / "a", {"spam/1.txt": "buy", "spam/2.txt": "buy", "README.txt": "x"})
    with pytest.raises(UserError, match=r"no tables of texts.*names of folders"):
        open_sentences(texts)
    assert open_sentences(write_texts(texts, {"ham/1.txt": "hello"})).train.labels.tolist() == [0, 1, 1]
    table = write_texts(texts, {"train.csv": "text,label\na,x\nb,y\n"})
    assert open_sentences(table).train.classes == ("x", "y")


def test_files_by_class_that_can_not_be_used(tmp_path: Path) -> None:
    texts = {f"{name}/{place}.txt": f"{name} {place}" for name in ("ham", "spam") for place in range(20)}
    write_texts(tmp_path, {**texts, "ham/0.txt": "größe".encode("cp1252"), "spam/0.txt": " \n"})
    train = open_sentences(tmp_path).train
    faults = {name: train.source.fault(place) for place, name in enumerate(train.names)}  # type: ignore[attr-defined]
    assert {name: fault for name, fault in faults.items() if fault} == {
        "ham/0.txt": "not UTF-8",
        "spam/0.txt": "empty file",
    }
    assert rows(open_sentences(tmp_path, encoding="cp1252").train)[0] == ("größe",)
    write_texts(tmp_path, {f"ham/{place}.txt": b"\xe4" for place in range(5)})
    with pytest.raises(UserError, match=r"5 of 40 train files in .* are not UTF-8; .*--data.encoding cp1252"):
        open_sentences(tmp_path)


def test_labels_of_fasttext(tmp_path: Path) -> None:
    lines = "__label__food a  good dish\n__label__drink tea, hot\nplain __label__x\n\nnone of __label__ it\n"
    path = write_texts(tmp_path, {"train.txt": lines, "test.txt": "just a text\n", "notes.txt": "x\n"}) / "train.txt"
    train = open_sentences(path).train
    texts = ["a  good dish", "tea, hot", "plain", "", "none of __label__ it"]
    assert rows(train) == [(text,) for text in texts]
    assert (train.classes, train.labels.tolist()) == (("drink", "food", "x"), [1, 0, 2, -1, -1])
    assert rows(open_sentences(path, labels="none").train) == rows(train)
    of_folder = open_sentences(tmp_path)
    assert (len(of_folder.train), of_folder.test) == (5, None), "a file without labels is none of these"
    assert of_folder.account.beside == {"notes.txt": ".txt", "test.txt": ".txt"}
    write_texts(tmp_path, {"a/some.txt": lines, "b/some.txt": lines})
    assert len(open_sentences(tmp_path).train) == 15, "these folders are no classes"
    path.write_text("__label__a __label__b one\n__label__b two\nthree\n")
    records = open_sentences(path).train
    assert records.tags is not None and records.classes == ("a", "b")
    assert records.tags.tolist() == [[True, True], [False, True], [False, False]]


def test_hugging_face_data_sets_have_names_of_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows_of = {"sentence": ["a", "b", "c"], "label": [1, 0, -1]}
    made = datasets.DatasetDict(
        {part: datasets.Dataset.from_dict(rows_of, features=features) for part in ("train", "validation")}
    )
    made.save_to_disk(tmp_path / "saved")
    parts = open_sentences(f"hf:{tmp_path / 'saved'}")
    assert parts.val is not None
    assert (parts.train.classes, parts.train.labels.tolist()) == (("bad", "good"), [1, 0, -1])
    pq.write_table(made["train"].data.table, tmp_path / "a.parquet")
    assert open_sentences(tmp_path / "a.parquet").train.classes == ("bad", "good")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "the first line must have names of columns"),
        (
            "a.csv",
            "text,a,text\n1,2,3\n",
            "a.csv has more than one column 'text'; rename .*column 1.* or text .column 3",
        ),
        ("a.csv", "body,kind\n1,2\n", "no column of texts under a usual name .*it has body, kind"),
        ("a.parquet", "PAR1", "can't read"),
        ("a.jsonl", "[1]\n{", "2 of 2 rows of .*a.jsonl can't be read .*write one object per line"),
        ("a.jsonl", "", "has no rows in a.jsonl"),
        ("a.csv", "text,label\n", "has no rows in a.csv"),
        ("a.md", "x", r"no tables of texts in .*: it holds files of type .md \(1\)"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_sentences(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_sentences(tmp_path / "nowhere")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    (tmp_path / "test.csv").write_text("text,klass\na,b\n")
    with pytest.raises(UserError, match=r"train.csv has no column 'body'; it has text, label"):
        open_sentences(tmp_path / "train.csv", ["body"])
    with pytest.raises(UserError, match="has no column 'kind'"):
        open_sentences(tmp_path / "train.csv", label="kind")
    parts = open_sentences(tmp_path)
    assert parts.test is not None and parts.test.labels.tolist() == [-1], "a test part may have no labels"
    assert "test.csv has no column 'label'; it has text, klass" in parts.account.remarks
    assert "none of the 1 test samples has a label; they can't be scored on" in parts.account.remarks
    (tmp_path / "test.csv").rename(tmp_path / "dev.csv")
    with pytest.raises(UserError, match=r"dev.csv has no column 'label'"):
        open_sentences(tmp_path)
    with pytest.raises(ValueError, match="3 columns of texts"):
        open_sentences(tmp_path, ["a", "b", "c"])


def test_odd_rows_are_left_out_by_name(tmp_path: Path) -> None:
    good = "".join(f"row {place},{'xy'[place % 2]}\n" for place in range(40))
    (tmp_path / "train.csv").write_text(f'text,label\n{good}"open,x\nb,x,more\n')
    (tmp_path / "test.csv").write_text(f"Text,Label\n{good}c\n")
    (tmp_path / "sample_submission.csv").write_text("id,answer\n1,x\n")
    parts = open_sentences(tmp_path)
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (40, 40)
    assert parts.account.parts["train"].bad == {
        "train.csv[40] (line 42: '\"open,x')": "unclosed quotes, or text beside quotes",
        "train.csv[41] (line 43: 'b,x,more')": "more fields than columns",
    }
    assert parts.account.parts["test"].bad == {"test.csv[40] (line 42: 'c')": "fewer fields than columns"}
    assert parts.account.beside == {"sample_submission.csv": "in no part"}
    assert parts.account.choices[0] == "parts by name: train is train.csv; test is test.csv"


def test_columns_and_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    rows = "".join(f"{place},row {place},{'xy'[place % 2]},{'train' if place else 'test'}\n" for place in range(9))
    (tmp_path / "a.csv").write_text(f"id,review,Sentiment,split\n{rows}")
    (tmp_path / "README.txt").write_text("x")
    parts = open_sentences(tmp_path)
    assert (parts.train.classes, parts.account.beside) == (("x", "y"), {"README.txt": ".txt"})
    chosen = ["texts from review, labels from Sentiment", "unused columns: id, split"]
    assert parts.account.choices == chosen
    unread = "column 'split' of a.csv (test, train) is not read: names of files and folders set the parts"
    assert parts.account.remarks == [unread]


def test_values_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": ["a"]}\n{"text": 5}\n{"text": null}\n')
    texts = open_sentences(tmp_path / "b.jsonl").train.source
    assert [texts.fault(place) for place in range(3)] == ["no text but a list", "", "no text"]  # type: ignore[attr-defined]
    (tmp_path / "c.jsonl").write_text('{"data": {"text": "a", "label": "x"}}\n')
    with pytest.raises(UserError, match=r"it has data.text, data.label"):
        open_sentences(tmp_path / "c.jsonl")
    assert rows(open_sentences(tmp_path / "c.jsonl", ["data.text"]).train) == [("a",)]


def test_the_fingerprint_is_of_the_texts(tmp_path: Path) -> None:
    prints = []
    for text in ("text\nab\nc\n", "text\na\nbc\n", "text\nab\nc\n"):
        (tmp_path / "a.csv").write_text(text)
        prints.append(open_sentences(tmp_path / "a.csv").train.fingerprint)
    assert prints[0] == prints[2] != prints[1]


def test_ids_are_those_of_auto_tokenizer(tmp_path: Path, tokenizer: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tokenizer)
    long = " ".join(GLOSSES[:3])
    firsts = [GLOSSES[0], long, long, GLOSSES[1], "a"]
    seconds = [GLOSSES[2], GLOSSES[3], long, long, "b"]
    single, pairs = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": firsts}), single)
    pq.write_table(pa.table({"text1": firsts, "text2": seconds}), pairs)
    for path, texts in ((single, (firsts,)), (pairs, (firsts, seconds))):
        own = reader(path, tokenizer)
        expected = [
            theirs(*row, truncation="longest_first", max_length=24).input_ids for row in zip(*texts, strict=True)
        ]
        assert [own.whole(place).tolist() for place in range(5)] == expected
        assert own.lengths_N.tolist() == [len(ids) for ids in expected]
        assert max(own.lengths_N) == 24
    encoding = reader(single, tokenizer).encoding(1)
    start, end = encoding.offsets[5]
    assert long[start:end].strip() and encoding.offsets[0] == encoding.offsets[-1] == (0, 0)


def test_special_tokens_in_a_text_are_ordinary_characters(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("a <pad> of </s>\n")
    ids = reader(tmp_path / "a.txt", tokenizer).whole(0)
    assert (ids[0], ids[-1]) == (0, 2) and (ids[1:-1] > 3).all()
    again = pickle.loads(pickle.dumps(reader(tmp_path / "a.txt", tokenizer)))
    assert again.whole(0).tolist() == ids.tolist()


def test_a_tokenizer_without_a_format_gets_one(tmp_path: Path, tokenizer: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    pq.write_table(pa.table({"text1": ["a b", "c"], "text2": ["d", "e " * 40]}), tmp_path / "a.parquet")
    ours, plain = (reader(tmp_path / "a.parquet", path) for path in (tokenizer, bare))
    assert [plain.whole(place).tolist() for place in (0, 1)] == [ours.whole(place).tolist() for place in (0, 1)]


def test_batches_are_filled_up_and_what_has_no_text_is_replaced(tmp_path: Path, tokenizer: Path) -> None:
    pq.write_table(pa.table({"text": ["", *GLOSSES[:9]], "label": [0, 1] * 5}), tmp_path / "a.parquet")
    own = reader(tmp_path / "a.parquet", tokenizer)
    batch = own.eval_batch(np.array([3, 0, 1]))
    assert batch.bad == (Bad("a.parquet[0]", NO_TEXT),)
    stand_in = batch.indices_B.tolist()[1]
    assert batch.indices_B.tolist()[::2] == [3, 1] and stand_in > 0
    assert batch.labels_B.tolist() == [1, stand_in % 2, 1]
    assert batch.lengths_B is not None
    for row, sample, length in zip(batch.inputs, batch.indices_B, batch.lengths_B, strict=True):
        assert row[:length].tolist() == own.whole(int(sample)).tolist()
        assert (row[length:] == MODEL.pad_id).all()
    again = own.train_batch(Plan(np.array([4, 4, 4]), np.array([3, 0, 1]), 24))
    assert again.indices_B.tolist() == batch.indices_B.tolist(), "whatever the epoch"
    (tmp_path / "b.csv").write_text("text,label\n" + ",x\n" * 3)
    with pytest.raises(UserError, match=r"b.csv\[0\] can't be used \(no text\), nor can any of 100 replacements"):
        reader(tmp_path / "b.csv", tokenizer).eval_batch(np.array([0]))


def test_groups_hold_every_sample_once_and_little_padding(tokenizer: Path) -> None:
    records = open_sentences(wordnet_glosses() / "test.parquet").train
    own = SentenceReader(records, TextConfig(vocab_size=500, max_tokens=128), tokenizer, 0)
    samples = np.arange(0, 6_000, 5)
    groups = own.eval_groups(samples)
    assert sorted(np.concatenate(groups).tolist()) == samples.tolist()
    rooms = [len(group) * int(own.lengths_N[group].max()) for group in groups]
    assert max(rooms) <= EVAL_TOKENS
    assert own.lengths_N[samples].sum() / sum(rooms) > 0.8
    order = own.order(2_000)
    plans = [order(step) for step in range(20)]
    assert all(len(plan.samples_B) * plan.length <= 2_000 for plan in plans)
    assert all((own.lengths_N[plan.samples_B] <= plan.length).all() for plan in plans)
    batch = own.train_batch(plans[0])
    longest = int(own.lengths_N[plans[0].samples_B].max())
    assert own.grid(batch.inputs) == (longest,) and own.size(batch) == longest <= plans[0].length
