"""The one reader of tables: every format says the same, what is odd is counted or refused, memory does not grow."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.data.tables import BAD_BYTES, NO_OBJECT, NULS, OTHER_FIELDS, Reading, listed, open_rows, read_table
from data2vec2.errors import UserError

ROWS = [
    {"text": "plain", "label": "x"},
    {"text": 'with "quotes"', "label": "y"},
    {"text": " größe 漢字 \U0001f600", "label": ""},
    {"text": "", "label": "x"},
    {"text": "a\0b", "label": "last"},
]
READ = [*ROWS[:4], {"text": "ab", "label": "last"}]
Write = Callable[[Path, list[dict[str, Any]]], object]


def as_csv(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)


def as_tsv(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> None:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_bytes("".join(line + end for line in lines).encode())


def as_jsonl(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> None:
    path.write_bytes("".join(json.dumps(row) + end for row in rows).encode())


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


FORMATS: dict[str, Write] = {"a.csv": as_csv, "a.tsv": as_tsv, "a.jsonl": as_jsonl, "a.parquet": as_parquet}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FORMATS[name](path, ROWS)
    table = read_table(path, "said")
    assert (table.name, len(table), list(table.rows())) == ("said", 5, READ)
    assert listed(table.remarks) == "1 NUL characters removed"
    heard: list[int] = []
    counts: Counter[str] = Counter()
    with open_rows(path, Reading(name, counts, read=heard.append), "label") as opened:
        assert opened.names in (("text", "label"), None)
        assert [row["label"] for row in opened.rows] == [row["label"] for row in ROWS]
    assert 0.9 * path.stat().st_size < sum(heard) <= path.stat().st_size
    assert list(read_table(path, "strict", strict=True).rows()) == ROWS, "nothing is mended"


ENDS = [(write, end) for write in (as_csv, as_tsv, as_jsonl) for end in ("\r\n", "\r", "\n\n", "\r\n\r\n")]
ENDS.append((as_jsonl, "\n \n"))  # in the others a blank is a row of one field


@pytest.mark.parametrize(("write", "end"), ENDS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_empty_lines_and_marks(tmp_path: Path, write: Any, end: str, mark: bytes) -> None:
    path = tmp_path / f"a.{write.__name__.removeprefix('as_')}"
    write(path, ROWS[:4], end)
    path.write_bytes(mark + path.read_bytes())
    table = read_table(path, path.name)
    assert list(table.rows()) == ROWS[:4]
    assert not listed(table.remarks)


def test_a_data_set_of_hugging_face_says_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b\0", "c"], "label": [1, 0, -1]}, features=features)
    table = read_table(made, "train")
    assert table.columns == {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    assert (table.classes, listed(table.remarks)) == ({"label": ("x", "y")}, "1 NUL characters removed")
    assert read_table(made.select([2, 0]), "some").columns == {"text": ["c", "a"], "label": [-1, 1]}
    heard: list[int] = []
    with open_rows(made, Reading("train", Counter(), read=heard.append), "text") as opened:
        assert list(opened.rows) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert heard == [3]


def test_lines_of_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two \nthr\xffee\xc3")
    table = read_table(tmp_path / "a.txt", "a.txt")
    assert table.columns == {"text": ["one", "", " two ", "thr\ufffdee\ufffd"]}
    assert listed(table.remarks) == "2 undecodable bytes replaced"


def test_fields_in_quotes_hold_line_ends_in_csv_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"a\r\nb\rc\n\nd",1\r\n"e ""f""",2')
    assert read_table(tmp_path / "a.csv", "").columns == {"text": ["a\r\nb\rc\n\nd", 'e "f"'], "label": ["1", "2"]}
    (tmp_path / "a.tsv").write_bytes(b'text\tlabel\n"a\t1\n"b"\t2\n')
    assert read_table(tmp_path / "a.tsv", "").columns == {"text": ['"a', '"b"'], "label": ["1", "2"]}


@pytest.mark.parametrize("separator", [",", "\t"])
def test_headers(tmp_path: Path, separator: str) -> None:
    path = tmp_path / ("a.csv" if separator == "," else "a.tsv")
    path.write_text(separator.join((" text ", "label")) + "\n")
    assert (read_table(path, "").columns, len(read_table(path, ""))) == ({"text": [], "label": []}, 0)
    for header in ("", "\n", separator.join(("a", "b", "a ")) + "\n1\n", separator.join(("a", "", "")) + "\n"):
        path.write_text(header)
        with pytest.raises(UserError, match=rf"{path}: the first line must name the columns, each once; it is"):
            read_table(path, "")


def test_rows_of_json_lines_have_their_own_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": [1], "a": null}\n{"c": {"d": "x\\u0000"}}\n{}\n')
    table = read_table(tmp_path / "a.jsonl", "")
    assert table.columns == {
        "a": [1, None, None, None],
        "b": [None, [1], None, None],
        "c": [None, None, {"d": "x\0"}, None],
    }
    assert not listed(table.remarks)


ODD: list[tuple[str, bytes, str, list[Any], bool]] = [
    ("a.csv", b"text,label\na,x\nb\nc,y,z\n\nd,\n", f"2 {OTHER_FIELDS}", ["a", "b", "c", "d"], False),
    ("a.tsv", b"text\tlabel\na\tx\nb\nc\ty\tz\n\nd\t\n", f"2 {OTHER_FIELDS}", ["a", "b", "c", "d"], False),
    ("a.csv", b"text,label\nok,x\nb\xff\xfe,y\n", f"2 {BAD_BYTES}", ["ok", "b\ufffd\ufffd"], True),
    ("a.tsv", b"text\tlabel\nok\tx\nb\xe4\ty\n", f"1 {BAD_BYTES}", ["ok", "b\ufffd"], True),
    ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', f"1 {BAD_BYTES}", ["ok", "\ufffd"], True),
    ("a.jsonl", b'{"text": "ok"}\n[1]\n{\n{"text": 5}\n7', f"3 {NO_OBJECT}", ["ok", 5], True),
    ("a.jsonl", b'{"text": "ok"}\n' + b"[" * 100_000 + b"\n", f"1 {NO_OBJECT}", ["ok"], True),
    ("a.jsonl", b'{"text": "\\ud800 and \\u0000"}\n', f"1 {NULS}", ["? and "], False),
    ("a.csv", b"text,label\na\0\0b,x\n", f"2 {NULS}", ["ab"], False),
    ("a.csv", "text,label\nreal \ufffd,x\n".encode(), "", ["real \ufffd"], False),
]


@pytest.mark.parametrize(("name", "content", "remark", "texts", "refused"), ODD)
def test_what_is_odd_is_counted_or_in_a_strict_pass_refused(
    tmp_path: Path, name: str, content: bytes, remark: str, texts: list[Any], refused: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    table = read_table(path, name)
    assert (table.columns["text"], listed(table.remarks)) == (texts, remark)
    if refused:
        line = 2 if name == "a.jsonl" else 3
        with pytest.raises(UserError, match=rf"{path}: line {line} is no.*; .* \(it begins '"):
            read_table(path, name, strict=True)
    else:
        assert len(read_table(path, name, strict=True)) == len(texts)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b""), ("a.parquet", b"PAR1 cut"), ("gone.csv", None), ("folder.jsonl", None)],
)
def test_what_can_not_be_read(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif name == "folder.jsonl":
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"can't read .*{name}"):
        read_table(tmp_path / name, name)


def test_text_in_parquet_that_is_no_utf_8_is_the_users_to_mend(tmp_path: Path) -> None:
    column = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"can't read .*a.parquet"):
        read_table(tmp_path / "a.parquet", "")


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_a_table(tmp_path: Path, name: str) -> None:
    draws = np.random.default_rng(0)
    rows = [{"text": draws.bytes(2_000).hex(), "label": "x"} for _ in range(10_000)]
    FORMATS[name](tmp_path / name, rows)
    expected = sum(len(row["text"]) for row in rows)
    del rows
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    with open_rows(tmp_path / name, Reading(name, Counter()), "text") as opened:
        total, arrow = 0, 0
        for row in opened.rows:
            total += len(row["text"])
            arrow = max(arrow, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == expected > 39e6
    assert peak < 6e6
    assert arrow < 6e6
