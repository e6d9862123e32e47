"""Tagged words: their files, and which token each word begins with."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from data2vec2.data.labels import IGNORED
from data2vec2.data.records import Records
from data2vec2.errors import UserError
from data2vec2.modalities.data import Columns
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.tools import TextTools
from data2vec2.modalities.text.words import NO_TAGS, NO_WORDS, OBJECTS, UNEQUAL, TokensJob, WordsReader, open_words

GLOSSES = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][::50]
SENTENCES = [
    (["EU", "rejects", "German", "call", "."], ["B-ORG", "O", "B-MISC", "O", "O"]),
    (["Größe", "über", "alles"], ["O", "O", "O"]),
    (["Peter", "Blackburn"], ["B-PER", "I-PER"]),
]
NAMES = ("B-MISC", "B-ORG", "B-PER", "I-PER", "O")


def opened(path: Path, **columns: object) -> Records:
    return open_words(path, Columns(**columns)).train  # type: ignore[arg-type]


def reader(records: Records, tokenizer: Path, max_tokens: int = 64) -> WordsReader:
    return WordsReader(records, TextConfig(vocab_size=400, max_tokens=max_tokens), tokenizer, seed=0)


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def written(folder: Path, kind: str) -> Path:
    """The same sentences in another format."""
    path = folder / f"words.{kind}"
    if kind == "jsonl":
        return jsonl(path, [{"tokens": words, "ner_tags": tags} for words, tags in SENTENCES])
    if kind == "csv":
        rows = [f"{' '.join(words)},{' '.join(tags)}" for words, tags in SENTENCES]
        path.write_text("\n".join(["words,tags", *rows]) + "\n", "utf-8")
    elif kind == "parquet":  # as `datasets` writes them: numbers, and names in the schema
        features = {"tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}}
        features["ner_tags"] = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "List"}  # type: ignore[dict-item]
        table = pa.table(
            {
                "tokens": [words for words, _ in SENTENCES],
                "ner_tags": [[NAMES.index(tag) for tag in tags] for _, tags in SENTENCES],
            }
        )
        described = json.dumps({"info": {"features": features}})
        pq.write_table(table.replace_schema_metadata({"huggingface": described}), path)
    elif kind == "conllu":
        lines = []
        for words, tags in SENTENCES:
            lines += ["# text = of a comment", "1-2\tzum\t_\t_\t_\t_\t_\t_\t_\t_"]
            pairs = enumerate(zip(words, tags, strict=True), 1)
            lines += [f"{n}\t{word}\t_\t{tag}\t_\t_\t_\t_\t_\t_" for n, (word, tag) in pairs]
            lines += ["2.1\tunsaid\t_\tX\t_\t_\t_\t_\t_\t_", ""]
        path.write_text("\n".join(lines), "utf-8")
    else:
        separator = "\t" if kind == "txt" else " "
        blocks = [
            "\n".join(separator.join((word, "NN", tag)) for word, tag in zip(*sentence, strict=True))
            for sentence in SENTENCES
        ]
        path.write_text("-DOCSTART- -X- O\n\n" * (kind == "conll") + "\n\n".join(blocks) + "\n\n\n", "utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "conll", "txt", "conllu"])
def test_every_format_gives_the_same_sentences(kind: str, tmp_path: Path) -> None:
    records = opened(written(tmp_path, kind))
    assert records.classes == NAMES
    assert [list(zip(*row, strict=True)) for row in records.marks or ()] == [
        [tuple(words), tuple(tags)] for words, tags in SENTENCES
    ]
    assert len({opened(written(tmp_path, kind)).fingerprint for _ in range(2)}) == 1


def test_a_data_set_of_datasets(tmp_path: Path) -> None:
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=list(NAMES)))})
    words, tags = (list(column) for column in zip(*SENTENCES, strict=True))
    Dataset.from_dict({"tokens": words, "ner_tags": tags}, features).save_to_disk(tmp_path / "saved")
    records = open_words(f"hf:{tmp_path / 'saved'}", Columns()).train
    assert records.classes == NAMES
    assert [[tag for _, tag in row] for row in records.marks or ()] == tags


def test_columns_and_parts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for part, (words, tags) in zip(("train", "dev", "test"), SENTENCES, strict=True):
        jsonl(data / f"{part}.jsonl", [{"token": words, "pos": ["N"] * len(words), "tags": tags}])
    parts = open_words(data, Columns(text=("token",), label="pos"))
    assert parts.val is not None
    assert parts.test is not None
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [1, 1, 1]
    assert {tag for row in parts.train.marks or () for _, tag in row} == {"N"}
    with pytest.raises(UserError, match=r"no column of lists of words .*--data.text-columns"):
        open_words(data, Columns())
    conll = written(tmp_path, "conll")
    assert {tag for row in opened(conll, label="2").marks or () for _, tag in row} == {"NN"}


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    good = [{"tokens": words, "tags": tags} for words, tags in SENTENCES]
    bad = [{"tokens": ["a", "b"], "tags": ["O"]}, {"tokens": [], "tags": []}, {"tokens": ["a"], "tags": None}]
    parts = open_words(jsonl(tmp_path / "words.jsonl", good + bad), Columns())
    account = parts.account.part("train")
    assert list(account.bad.values()) == [UNEQUAL, NO_WORDS, NO_TAGS]
    assert (account.found, len(parts.train)) == (6, 3)
    with pytest.raises(UserError, match=f"no sentences of words with tags .*{UNEQUAL}"):
        open_words(jsonl(tmp_path / "none.jsonl", bad[:1]), Columns())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# id 1\tdomain=en\na _ _ O\n\n# id 2\tdomain=en\nb _ _ X\n", [[("a", "O")], [("b", "X")]]),
        ("#\thttp://a.b\t[2009]\n1\ta\tX\tO\n2\tb\tO\tX\n\n1\tc\tO\tO\n", [[("a", "O"), ("b", "X")], [("c", "O")]]),
        ("#\tO\na\tX\n\n1\tO\n", [[("#", "O"), ("a", "X")], [("1", "O")]]),
        (
            "New York\tX\nis\tO\n15\u00a0000\tO\nbig O\n",
            [[("New York", "X"), ("is", "O"), ("15\u00a0000", "O"), ("big", "O")]],
        ),
        ("a\tX\n\u00a0\tO\nb\tO\n", [[("a", "X"), ("", "O"), ("b", "O")]]),
        ("-DOCSTART- O\na X\n-DOCSTART- O\nb O\n", [[("a", "X")], [("b", "O")]]),
    ],
)
def test_lines_of_conll_files(tmp_path: Path, text: str, expected: list[list[tuple[str, str]]]) -> None:
    path = tmp_path / "words.conll"
    path.write_text(text, "utf-8")
    assert [list(row) for row in opened(path).marks or ()] == expected


def test_lists_in_csv_files_and_words_that_are_objects(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text('tokens,tags\n"[\'it\', ""isn\'t""]","[\'O\', \'X\']"\nan ox,[0 1]\n')
    assert [list(row) for row in opened(path).marks or ()] == [
        [("it", "O"), ("isn't", "X")],
        [("an", "0"), ("ox", "1")],
    ]
    rows = [{"tokens": [{"text": "a", "id": 0}], "tags": ["O"]}]
    with pytest.raises(UserError, match=f"no sentences of words with tags .*{OBJECTS}"):
        opened(jsonl(tmp_path / "words.jsonl", rows))


def test_what_is_no_tag_and_what_can_be_none(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b", "c", "d"], "tags": [3, -100, None, 0]}]
    records = opened(jsonl(tmp_path / "words.jsonl", rows))
    assert records.classes == ("0", "3")
    assert [tag for _, tag in (records.marks or ())[0]] == ["3", None, None, "0"]
    with pytest.raises(UserError, match=r"words.jsonl\[0\]: a tag is 1.5; tags are names or whole numbers"):
        opened(jsonl(tmp_path / "words.jsonl", [{"tokens": ["a"], "tags": [1.5]}]))
    broken = tmp_path / "broken.conll"
    broken.write_text("EU NN B-ORG\nrejects O\n")
    with pytest.raises(UserError, match="line 2 has 2 columns, 'rejects O'"):
        opened(broken)
    path = written(tmp_path, "parquet")
    table = pq.read_table(path)
    numbers = pa.array([[0, 1, 2, 3, 9], [0] * 3, [0] * 2])
    pq.write_table(table.set_column(1, "ner_tags", numbers).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(UserError, match="a tag is 9, and there are 5 classes"):
        opened(path)


def test_a_words_class_stands_at_its_first_token(tmp_path: Path, tokenizer: Path) -> None:
    """Of real texts, and of words that the vocabulary spells in bytes."""
    sentences = [*(gloss.split() for gloss in GLOSSES), ["größer", "als", "ℵ", "🙂🙂", "a b", "x"]]
    rows = [{"tokens": words, "tags": [f"T{n % 7}" for n in range(len(words))]} for words in sentences]
    own = reader(opened(jsonl(tmp_path / "words.jsonl", rows)), tokenizer, max_tokens=512)
    for sample, words in enumerate(sentences):
        encoding, classes = own.encoding(sample), own.marked(sample)
        firsts = own.firsts(sample, encoding)
        assert None not in firsts
        assert (classes != IGNORED).sum() == len(words)
        text = " ".join(words)
        for first, after, word, n in zip(firsts, [*firsts[1:], len(classes) - 1], words, range(10_000), strict=False):
            assert first is not None
            assert after is not None
            assert own.records.classes[classes[first]] == f"T{n % 7}"
            start, end = encoding.offsets[first][0], encoding.offsets[after - 1][1]
            assert text[start:end].strip() == word, "the tokens up to the next word's first are the word"
            assert (classes[first + 1 : after] == IGNORED).all()
    joined = " ".join(sentences[0])
    assert own.whole(0).tolist() == own.backend.encode(joined).ids, "tokens are those of running text"


def test_words_that_are_cut_away_are_counted(tmp_path: Path, tokenizer: Path) -> None:
    words = GLOSSES[0].split() * 5
    rows = [{"tokens": words, "tags": ["N"] * len(words)}, {"tokens": ["a", ""], "tags": ["N", "O"]}]
    own = reader(opened(jsonl(tmp_path / "words.jsonl", rows)), tokenizer, max_tokens=16)
    classes = own.marked(0)
    assert len(classes) == 16
    count, cut = own.lost()
    assert [one.reason for one in cut] == ["cut to 16 tokens"]
    assert count == len(words) - (classes != IGNORED).sum() + 1, "an empty word has no token"
    assert (own.marked(1) != IGNORED).sum() == 1
    again = pickle.loads(pickle.dumps(own))
    assert np.array_equal(again.marked(0), classes)


def test_what_predict_reads(tmp_path: Path) -> None:
    """Sentences of words without their tags, or texts, whose words stand between spaces."""
    job = TokensJob(TextTools())
    for kind in ("jsonl", "parquet", "conll", "conllu", "csv"):
        (records,) = job.listed([written(tmp_path, kind)], Columns())
        assert [[word for word, _ in row] for row in records.marks or ()] == [words for words, _ in SENTENCES], kind
        assert records.names[0] == str(tmp_path / f"words.{kind}[0]")
    named = jsonl(tmp_path / "named.jsonl", [{"token": words, "text": "not this"} for words, _ in SENTENCES])
    (records,) = job.listed([named], Columns(text=("token",)))
    assert [[word for word, _ in row] for row in records.marks or ()] == [words for words, _ in SENTENCES]
    (tmp_path / "texts.txt").write_text("EU rejects  German call .\nPeter Blackburn\n", "utf-8")
    jsonl(tmp_path / "texts.jsonl", [{"text": "EU rejects  German call ."}, {"text": "Peter Blackburn"}])
    for name in ("texts.txt", "texts.jsonl"):
        (records,) = map(job.asked, job.listed([tmp_path / name], Columns()))
        split = [["EU", "rejects", "German", "call", "."], ["Peter", "Blackburn"]]
        assert [[word for word, _ in row] for row in records.marks or ()] == split
