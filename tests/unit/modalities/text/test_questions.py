"""Questions with contexts: their files, what is mended and left out, and windows whose tokens say exact characters."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Sequence, Value

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.data.records import Parts, Records, held_out
from data2vec2.data.source import BadSample
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.data import Columns, ModelInfo
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.answers import AnswersJob
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.questions import BOTH, DROPPED, FOUND, NO_ANSWERS, NO_PLACE, Asked, open_questions
from data2vec2.modalities.text.reader import NO_TEXT, Texts
from data2vec2.modalities.text.tokenizer import load_tokenizer
from data2vec2.modalities.text.tools import TextTools
from data2vec2.modalities.text.windows import QuestionReader, Told

GLOSSES = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][::50]
CONTEXT = "Größe 🙂🙂 heißt size; «naïve» 日本 is Japan. Ada wrote it, says Ada."
ROWS: list[dict[str, Any]] = [
    {"id": "one", "question": "What is 日本?", "answers": [("Japan", CONTEXT.index("Japan"))]},
    {"id": "two", "question": "Which signs?", "answers": [("🙂🙂", 6), ("🙂", 7)]},
    {"id": "three", "question": "Who built it?", "answers": []},
]


def listed(answers: list[tuple[str, int]]) -> dict[str, list[Any]]:
    return {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}


def squad(path: Path, rows: list[dict[str, Any]], context: str = CONTEXT) -> Path:
    """One of SQuAD's files, with the questions of one context."""
    qas = [
        {
            **{key: value for key, value in row.items() if key != "answers"},
            "answers": [{"text": text, "answer_start": start} for text, start in row["answers"]],
        }
        for row in rows
    ]
    paragraphs = [{"context": context, "qas": qas}]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "", "paragraphs": paragraphs}]}), "utf-8")
    return path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def written(folder: Path, kind: str) -> Path:
    """The same questions in another format."""
    rows = [{**row, "context": CONTEXT, "answers": listed(row["answers"])} for row in ROWS]
    objects = [[{"text": text, "answer_start": start} for text, start in row["answers"]] for row in ROWS]
    if kind == "json":
        return squad(folder / "train.json", [{**row, "is_impossible": not row["answers"]} for row in ROWS])
    if kind == "jsonl":
        return jsonl(folder / "train.jsonl", rows)
    if kind == "objects":
        return jsonl(folder / "train.jsonl", [{**row, "answers": one} for row, one in zip(rows, objects, strict=True)])
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
        return folder / "train.parquet"
    answers = Sequence({"text": Value("string"), "answer_start": Value("int32")})
    features = Features({**dict.fromkeys(("id", "question", "context"), Value("string")), "answers": answers})
    Dataset.from_list(rows, features).save_to_disk(folder / "saved")
    return folder / "saved"


def opened(path: Path, **columns: object) -> Records:
    return open_questions(path, Columns(**columns)).train  # type: ignore[arg-type]


def reader(records: Records, tokenizer: Path, max_tokens: int = 64) -> QuestionReader:
    return QuestionReader(records, TextConfig(vocab_size=400, max_tokens=max_tokens), tokenizer, seed=0)


def answers_of(records: Records) -> list[list[str]]:
    assert isinstance(records.source, Texts)
    rows = zip(records.source.rows, records.marks or (), strict=True)
    return [[context[slice(*place)] for place in one.answers] for (_, context), one in rows]


@pytest.mark.parametrize("kind", ["json", "jsonl", "objects", "parquet", "hf"])
def test_every_format_holds_the_same(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    parts = open_questions(f"hf:{path}" if kind == "hf" else path, Columns())
    records = parts.train
    assert [one.id for one in records.marks or ()] == ["one", "two", "three"]
    assert answers_of(records) == [["Japan"], ["🙂🙂", "🙂"], []]
    assert isinstance(records.source, Texts)
    assert records.source.rows == tuple((row["question"], CONTEXT) for row in ROWS)
    assert "3 train; 1 to train on have no answer" in parts.description
    assert not parts.account.part("train").bad | parts.account.part("train").mended


def test_parts_and_columns_by_name(tmp_path: Path) -> None:
    for part, rows in (("train", ROWS[:2]), ("dev", ROWS[:1]), ("test", ROWS[2:])):
        squad(tmp_path / f"{part}-v2.0.json", rows)
    parts = open_questions(tmp_path, Columns())
    assert [len(part) for part in (parts.train, parts.val or (), parts.test or ())] == [2, 1, 1]
    rows = [{"Frage": row["question"], "Text": CONTEXT, "Antwort": listed(row["answers"])} for row in ROWS]
    path = jsonl(tmp_path / "named.jsonl", rows)
    records = opened(path, text=("frage", "text"), label="antwort")
    assert answers_of(records) == [["Japan"], ["🙂🙂", "🙂"], []]
    assert [one.id for one in records.marks or ()] == ["", "", ""]
    with pytest.raises(UserError, match="has not the columns question, context, answers, but Frage, Text, Antwort"):
        opened(path)
    with pytest.raises(UsageError, match="one column of texts"):
        opened(path, text=("Frage",))


def test_what_is_mended_and_what_is_left_out(tmp_path: Path) -> None:
    rows = [
        {"question": "moved", "answers": [("Japan", 3)]},
        {"question": "twice", "answers": [("Ada", 0)]},
        {"question": "nowhere", "answers": [("Nippon", 0)]},
        {"question": "one of two", "answers": [("Nippon", 0), (" is ", CONTEXT.index(" is "))]},
        {"question": "both", "answers": [("Ada", CONTEXT.index("Ada"))], "is_impossible": True},
        {"question": " ", "answers": []},
        {"question": "empty", "answers": [("", 0)]},
        {"question": "behind", "answers": [("Japan", -22)]},
    ]
    parts = open_questions(squad(tmp_path / "train.json", rows), Columns())
    account = parts.account.part("train")
    assert answers_of(parts.train) == [["Japan"], ["is"], ["Japan"]]
    assert {name: account.mended[f"train.json[{name}]"] for name in (0, 3, 7)} == {0: FOUND, 3: DROPPED, 7: FOUND}
    reasons = {1: NO_PLACE, 2: NO_PLACE, 4: BOTH, 5: NO_TEXT, 6: NO_PLACE}
    assert account.bad == {f"train.json[{place}]": why for place, why in reasons.items()}
    assert account.found == len(rows)
    texts = [{"text": ["Japan"], "answer_start": []}, None, "Japan", ["Japan"], [None]]
    path = jsonl(tmp_path / "t.jsonl", [{"question": "?", "context": CONTEXT, "answers": one} for one in texts])
    parts = open_questions(path, Columns())
    assert [*parts.account.part("train").bad.values()] == [NO_ANSWERS, NO_ANSWERS, NO_ANSWERS, NO_PLACE]
    assert answers_of(parts.train) == [["Japan"]]


def test_what_is_none_of_these_files(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    for text, why in (
        ('{"a": 1}', "is no list of objects, and no object with one as data"),
        ("[1]", "is no list of objects"),
        ("{", "is not valid JSON"),
        ('{"data": [{"paragraphs": 1}]}', "is not one of SQuAD's files, .*int"),
        ('[{"a": 1}]', "has not the columns question, context, answers, but a"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"train.json {why}"):
            opened(path)
    with pytest.raises(UserError, match=r"no questions that can be used \(train.json\[0\]: no answer stands"):
        opened(squad(path, [{"question": "?", "answers": [("no", 0)]}]))
    path.unlink()
    (tmp_path / "notes.md").write_text("none")
    with pytest.raises(UserError, match="no questions with contexts in"):
        opened(tmp_path)


def long_ones(path: Path) -> tuple[Path, str, list[str]]:
    """A context of many windows, of real text and of signs that the vocabulary spells in bytes, with all its words."""
    context = "  ".join(f"{gloss} größer 🙂🙂{n} 日本" for n, gloss in enumerate(GLOSSES[:12]))
    words = context.split()
    rows, start = list[dict[str, Any]](), 0
    for word in words:
        start = context.index(word, start)
        rows.append({"question": "Which word?", "answers": [(word, start)]})
        start += len(word)
    return squad(path, rows, context), context, words


def test_windows_hold_the_exact_characters(tmp_path: Path, tokenizer: Path) -> None:
    """Of every word of a long context: marks say it, and logits that are highest at the marks give it back."""
    path, context, words = long_ones(tmp_path / "train.json")
    own = reader(opened(path), tokenizer, max_tokens=64)
    windows = own.windows
    assert not windows.unseen
    seen = dict.fromkeys(range(len(words)), 0)
    for window, question in enumerate(windows.questions_W.tolist()):
        if question % 5:
            continue
        encoding, marks_T2 = own.encoding(window), own.marked(window)
        assert len(encoding.ids) == len(marks_T2) == windows.lengths_W[window] <= 64
        assert (marks_T2.sum(0) == 1).all()
        first, last = marks_T2.argmax(0).tolist()
        if (first, last) == (0, 0):
            continue
        seen[question] += 1
        told = own.told(question, encoding, np.pad(10.0 * marks_T2, ((0, 3), (0, 0))).astype(np.float32))
        assert (context[told.start : told.stop], told.score) == (words[question], 20.0)
        start, stop = own.asked(question).answers[0]
        assert (told.start, told.stop) == (start, stop)
        assert 0.9 < told.probability < 1
    assert all(seen[question] for question in seen if not question % 5)
    assert max(seen.values()) > 1, "windows overlap"
    assert int(windows.places_W.max()) > 5
    again = pickle.loads(pickle.dumps(own))
    assert np.array_equal(again.marked(7), own.marked(7))
    assert own.name(int(np.flatnonzero(windows.questions_W == 3)[1])) == "train.json[3]"


def test_windows_go_through_all_of_a_context(tmp_path: Path, tokenizer: Path) -> None:
    """They overlap by a quarter of the model's length; the tokens are those that pairs have elsewhere."""
    path, context, _ = long_ones(tmp_path / "train.json")
    own = reader(opened(path), tokenizer, max_tokens=64)
    (encodings,) = own.encodings([0])
    whole = load_tokenizer(tokenizer).backend.encode("Which word?", context)
    inside = [[place for place, part in enumerate(one.sequence_ids) if part == 1] for one in (whole, *encodings)]
    ids = [[one.ids[place] for place in some] for one, some in zip((whole, *encodings), inside, strict=True)]
    joined = ids[1] + [token for some in ids[2:] for token in some[16:]]
    assert joined == ids[0]
    assert encodings[0].ids[: inside[1][0]] == whole.ids[: inside[0][0]]
    rows = own.entire(0)
    assert [row.tolist() for row, kept in rows] == [one.ids for one in encodings]  # type: ignore[union-attr]
    short = reader(opened(squad(path, ROWS, CONTEXT)), tokenizer, max_tokens=256)
    assert isinstance(short.entire(0), np.ndarray)


def test_long_questions_are_cut_and_long_answers_seen_nowhere(tmp_path: Path, tokenizer: Path) -> None:
    question = "Was heißt größer als 🙂🙂 und 日本? " * 9
    rows = [
        {"question": question, "answers": [("Japan", CONTEXT.index("Japan"))]},
        {"question": "All?", "answers": [(CONTEXT, 0)]},
        {"question": "None?", "answers": []},
    ]
    own = reader(opened(squad(tmp_path / "train.json", rows)), tokenizer, max_tokens=32)
    assert question.startswith(own.questions[0])
    assert 10 < len(load_tokenizer(tokenizer).backend.encode(own.questions[0], add_special_tokens=False).ids) <= 16
    assert own.questions[1:] == ("All?", "None?")
    assert own.windows.unseen == {1}
    for window, place in enumerate(own.windows.questions_W.tolist()):
        marks_T2 = own.marked(window)
        assert (marks_T2.sum(0) == (0 if place == 1 else 1)).all()
        if place == 2:
            assert marks_T2[0].tolist() == [1, 1]
    with pytest.raises(UserError, match="a model of 8 tokens has no room"):
        _ = reader(own.records, tokenizer, max_tokens=8).backend


def test_the_best_window_decides() -> None:
    windows = [Told(3, 5, 0.5, 4.0, 6.0, 0.9), Told(9, 12, 0.2, 5.0, 4.5, 0.3), Told(0, 0, 0.0, -np.inf, 8.0, 0.9)]
    assert Told.best(windows, False)[:3] == Told.best(windows, True)[:3] == (9, 12, 0.2)
    surer = [one._replace(none_score=one.none_score + 1) for one in windows]
    assert Told.best(surer, False)[:3] == (9, 12, 0.2)
    assert Told.best(surer, True)[:3] == (0, 0, 0.3)


def test_contexts_stay_together_where_a_part_is_split_off(tmp_path: Path) -> None:
    texts = [f"{n} {gloss}" for n, gloss in enumerate(GLOSSES[:40])]
    rows = [
        {"question": f"{m}?", "context": text, "answers": listed([(text, 0)])} for text in texts for m in range(1, 4)
    ]
    parts = open_questions(jsonl(tmp_path / "all.jsonl", rows), Columns())
    train, held = held_out(parts, None, 0.2, 1)
    assert held is not None
    assert (len(train), len(held)) == (96, 24)
    ours, theirs = ({row[1] for row in one.source.rows} for one in (train, held))  # type: ignore[attr-defined]
    assert (len(ours), len(theirs), ours & theirs) == (32, 8, set())
    named = Parts(parts.train, train, None, "")
    assert held_out(named, None, 0.2, 1)[1] is train


def test_what_predict_reads(tmp_path: Path, tokenizer: Path) -> None:
    """Questions whose answers nobody knows, and pairs of texts."""
    job = AnswersJob(TextTools())
    rows = [{"question": row["question"], "context": CONTEXT} for row in ROWS]
    (records,) = job.listed([jsonl(tmp_path / "asked.jsonl", rows)], Columns())
    assert records.names[0] == str(tmp_path / "asked.jsonl[0]")
    shape = ArchitectureConfig(modality=TextConfig(vocab_size=400), encoder=EncoderConfig())
    info = ModelInfo(model=shape, data=TextDataConfig(tokenizer=str(tokenizer)))
    for given in (records, job.asked(TextTools().given([("What is 日本?", CONTEXT)]))):
        assert set(given.marks or ()) == {Asked("", ())}
        own = job.reader(given, info, 0)
        assert isinstance(own, QuestionReader)
        assert own.encoding(0).ids[0] == 0
    path = jsonl(tmp_path / "bad.jsonl", [*rows, {"question": "", "context": CONTEXT}] * 10)
    path.write_text(path.read_text("utf-8") + "[1]\n", "utf-8")
    (records,) = job.listed([path], Columns())
    own = job.reader(records, info, 0)
    for place, why in ((3, NO_TEXT), (40, "not a JSON object")):
        with pytest.raises(BadSample, match=why):
            own.entire(place)
    assert len(records) == 41
    with pytest.raises(UsageError, match="give a tuple of a question and its context"):
        job.asked(TextTools().given(["What is 日本?"]))
