"""The one reader of tables: every format says the same, what is odd is counted or refused, memory does not grow."""

from __future__ import annotations

import csv
import gzip
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

from data2vec2.data.account import PartAccount
from data2vec2.data.reading import (
    AGAIN,
    DOUBLED,
    EMPTY_END,
    ENCLOSED,
    FEWER,
    HALVES,
    MORE,
    NO_OBJECT,
    NO_TEXT,
    NULS,
    PLAIN_QUOTES,
    QUOTES,
    REST,
    SWALLOWED,
    Reading,
    column_of,
    note,
    wording,
)
from data2vec2.data.tables import open_rows, read_table
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


def as_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1), "utf-8")


def as_packed(path: Path, rows: list[dict[str, Any]]) -> None:
    as_csv(path.with_suffix(""), rows)
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


FORMATS: dict[str, Write] = {"a.csv": as_csv, "a.tsv": as_tsv, "a.jsonl": as_jsonl, "a.parquet": as_parquet}
FORMATS |= {"a.json": as_json, "a.csv.gz": as_packed}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FORMATS[name](path, ROWS)
    table = read_table(path, "said")
    assert (table.name, len(table), list(table.rows())) == ("said", 5, READ)
    assert table.mended == {4: NULS}
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
    assert not table.mended


def test_a_data_set_of_hugging_face_says_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b\0", "c"], "label": [1, 0, -1]}, features=features)
    table = read_table(made, "train")
    assert table.columns == {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    assert (table.classes, table.mended) == ({"label": ("x", "y")}, {1: NULS})
    assert read_table(made.select([2, 0]), "some").columns == {"text": ["c", "a"], "label": [-1, 1]}
    heard: list[int] = []
    with open_rows(made, Reading("train", Counter(), read=heard.append), "text") as opened:
        assert list(opened.rows) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert heard == [3]


def test_lines_of_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two \rmore\nthree")
    table = read_table(tmp_path / "a.txt", "a.txt")
    assert table.columns == {"text": ["one", "", " two \rmore", "three"]}


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
    path.write_text(separator.join(("text", "label", "", "")) + "\n" + separator.join(("a", "x", "", "")) + "\n")
    assert read_table(path, "").columns == {"text": ["a"], "label": ["x"]}, "Excel's empty columns are none"
    for header in ("", "\n", separator.join(("", "", "a")) + "\n"):
        path.write_text(header)
        with pytest.raises(UserError, match=rf"{path}: the first line must have names of columns; it is"):
            read_table(path, "")


@pytest.mark.parametrize(("name", "header"), [("a.csv", b'"text",label'), ("a.tsv", b"text\tlabel")])
def test_headers_where_files_were_joined_are_left_out_however_many(tmp_path: Path, name: str, header: bytes) -> None:
    (tmp_path / name).write_bytes(around(name, header, 6))
    table = read_table(tmp_path / name, name)
    assert table.columns["text"] == [f"row {place}" for place in range(6)]
    assert [(row.place, row.reason) for row in table.bad] == [(3, AGAIN)]
    account = PartAccount()
    note(table.bad, name, account)
    assert (account.bad, [*account.left_out.values()]) == ({}, [AGAIN])


def test_columns_of_the_same_name_are_an_error_where_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,Note,label \na,x,1,y\ntext,label,Note,label\n")
    table = read_table(tmp_path / "a.csv", "a.csv")
    assert [*table.rows()] == [{"text": "a", "label (column 2)": "x", "Note": "1", "label (column 4)": "y"}]
    assert (table.column(["text", "label"]), table.column(["label (column 4)"])) == ("text", "label (column 4)")
    both = r"label \(column 2\) or label \(column 4\)"
    with pytest.raises(UserError, match=rf"a.csv has more than one column 'Label'; rename all but one, or name {both}"):
        table.column(["Label", "note"])


def test_rows_of_json_lines_have_their_own_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": [1], "a": null}\n{"c": {"d": "x\\u0000"}}\n{}\n')
    table = read_table(tmp_path / "a.jsonl", "")
    assert table.columns == {
        "a": [1, None, None, None],
        "b": [None, [1], None, None],
        "c.d": [None, None, "x", None],
    }
    assert table.mended == {2: NULS}


OPEN = '"never closed,x'
LEFT_OUT: list[tuple[str, bytes, str, int]] = [
    ("a.csv", b"one, two,x", MORE, 1),
    ("a.csv", b'"a ""b""", two,x', MORE, 1),
    ("a.csv", b"short", FEWER, 1),
    ("a.csv", OPEN.encode(), QUOTES, 1),
    ("a.csv", b'"quoted, then" more,x', QUOTES, 1),
    ("a.csv", b'"open,x\na,y\nb,z\nof 12",x', SWALLOWED, 4),
    ("a.csv", b'"open,good\nof 12",x', SWALLOWED, 2),
    ("a.csv", b'"he said \\"so\\"",x', QUOTES, 1),
    ("a.csv", b'"one, two", "x"', QUOTES, 1),
    ("a.csv", b"caf\xe9,x", NO_TEXT, 1),
    ("a.tsv", b"one\ttwo\tx", MORE, 1),
    ("a.tsv", b"short", FEWER, 1),
    ("a.tsv", b"caf\xe9\tx", NO_TEXT, 1),
    ("a.jsonl", b"[1]", NO_OBJECT, 1),
    ("a.jsonl", b"{", NO_OBJECT, 1),
    ("a.jsonl", b"[" * 100_000, NO_OBJECT, 1),
    ("a.jsonl", b'{"text": "\xff"}', NO_TEXT, 1),
    ("a.txt", b"\xff", NO_TEXT, 1),
]


def around(name: str, content: bytes, count: int) -> bytes:
    """A table with as many good rows, and the content in their middle."""
    form = {"csv": "row {},good", "tsv": "row {}\tgood", "jsonl": '{{"text": "row {}"}}', "txt": "row {}"}[name[2:]]
    rows = [form.format(place).encode() for place in range(count)]
    header = {"csv": [b"text,label"], "tsv": [b"text\tlabel"]}.get(name[2:], [])
    return b"\n".join([*header, *rows[: count // 2], content, *rows[count // 2 :], b""])


@pytest.mark.parametrize(("name", "content", "reason", "count"), LEFT_OUT)
def test_rows_that_can_not_be_read_as_they_are_meant_are_left_out_by_line_or_refused(
    tmp_path: Path, name: str, content: bytes, reason: str, count: int
) -> None:
    path = tmp_path / name
    path.write_bytes(around(name, content, 100))
    table = read_table(path, name)
    assert table.columns["text"] == [f"row {place}" for place in range(100)], "all others are read"
    assert list(table.places) == [*range(50), *range(50 + count, 100 + count)]
    assert [(row.place, row.reason) for row in table.bad] == [(50 + place, reason) for place in range(count)]
    line = 50 + (2 if name[2:] in ("csv", "tsv") else 1)
    assert table.bad[0].where.startswith(f"line {line}: ")
    path.write_bytes(around(name, content, 10))
    with pytest.raises(
        UserError, match=rf"{count} of {10 + count} rows of {path} can't be .*\n  line {line - 45}: .*{reason}"
    ):
        read_table(path, name)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_strict_pass_refuses_the_first_that_is_no_text_or_no_object(tmp_path: Path, name: str) -> None:
    content = b"[1]" if name == "a.jsonl" else b"caf\xe9,x"
    (tmp_path / name).write_bytes(around(name, content, 100))
    with pytest.raises(UserError, match=rf"{name}: line 5[12] is no.*; .* \(it begins '"):
        read_table(tmp_path / name, name, strict=True)


MENDED: list[tuple[bytes, list[str], str]] = [
    (b"1.wav,good morning, everyone, is here", ["1.wav", "good morning, everyone, is here"], REST),
    (b"1.wav,hello,", ["1.wav", "hello"], EMPTY_END),
    (b'1.wav,"Great" movie', ["1.wav", '"Great" movie'], PLAIN_QUOTES),
    (b'1.wav,a "b", c', ["1.wav", 'a "b", c'], REST),
    (b"1.wav,first\rsecond", ["1.wav", "first\rsecond"], ""),
    (b'1.wav,"two\nlines, with ""a"" comma"', ["1.wav", 'two\nlines, with "a" comma'], ""),
    (b'1.wav,"Roses\nare, red\nviolets, blue"', ["1.wav", "Roses\nare, red\nviolets, blue"], ""),
    (b"1.wav,a\0b", ["1.wav", "ab"], NULS),
]


@pytest.mark.parametrize(("content", "fields", "what"), MENDED)
def test_what_is_certain_is_mended(tmp_path: Path, content: bytes, fields: list[str], what: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"file_name,Transcription\n0.wav,first\n" + content + b"\n2.wav,last\n")
    table = read_table(path, "a.csv", free=("transcription",))
    assert [list(row.values()) for row in table.rows()] == [["0.wav", "first"], fields, ["2.wav", "last"]]
    assert (table.mended, table.bad) == ({1: what} if what else {}, [])
    if what == REST:
        with pytest.raises(UserError, match=f"line 3: .*{MORE}"):
            read_table(path, "a.csv")


TABBED: list[tuple[str, str]] = [
    ('"two\nlines"\tx', "two\nlines"),
    ('"a ""b""\n\nc\r\nd"\tx', 'a "b"\n\nc\r\nd'),
    ('"one\ttwo"\tx', "one\ttwo"),
    ('"lone\rreturn\n"\tx', "lone\rreturn\n"),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("content", "text"), TABBED)
def test_quoted_tabs_and_line_ends_of_tabbed_files(tmp_path: Path, content: str, text: str, last: bool) -> None:
    header = "label\ttext" if last else "text\tlabel"
    content = "x\t" + content.removesuffix("\tx") if last else content
    rows = [header, *(["good\tgood"] * 30), content, 'good\t"so', '"so\tgood', 'good\tgood "', ""]
    (tmp_path / "a.tsv").write_bytes("\n".join(rows).encode())
    table = read_table(tmp_path / "a.tsv", "")
    others = ['"so', "good", 'good "'] if last else ["good", '"so', "good"]
    assert table.columns["text"][30:] == [text, *others]
    assert (table.columns["label"][30], table.mended, table.bad) == ("x", {30: ENCLOSED}, [])


def test_quotes_of_excel_in_tabbed_files(tmp_path: Path) -> None:
    fields = ['"He said ""great"""', '"Great" movie', '"I am"', '"', '""', '"so "" on"', 'a ""b""']
    (tmp_path / "a.tsv").write_text("text\n" + "\n".join(fields) + "\n")
    table = read_table(tmp_path / "a.tsv", "")
    assert table.columns["text"] == ['He said "great"', *fields[1:5], 'so " on', fields[6]]
    assert table.mended == {0: DOUBLED, 5: DOUBLED}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_encodings_that_a_file_shows(tmp_path: Path, name: str, encoding: str) -> None:
    FORMATS[name](tmp_path / name, ROWS[:3])
    text = (tmp_path / name).read_bytes().decode()
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert list(read_table(tmp_path / name, name).rows()) == ROWS[:3]


def test_an_encoding_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\ncafé €,x\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"save the file as UTF-8, or name its encoding: --data\.encoding cp1252"):
        read_table(tmp_path / "a.csv", "a.csv")
    assert read_table(tmp_path / "a.csv", "a.csv", encoding="cp1252").columns["text"] == ["café €"]


def test_a_row_that_swallows_one_is_told_by_the_shapes_of_values(tmp_path: Path) -> None:
    """Numbers and names of other rows, in any column, tell it from a text of two lines."""
    rows = [f"id{place},text {place},c{place % 2},{3 * place}" for place in range(40)]
    good = 'id90,"Dear Sir, or Madam,\nyours, c0",c0,7'
    for spoiled in (['x,"text 10,zz,30', 'y,text 11",c1,33'], ['id10,"text 10,zz,zz', 'id11,text 11",zz,33']):
        lines = ["id,text,label,number", *rows[:10], *spoiled, good, *rows[12:]]
        (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
        table = read_table(tmp_path / "a.csv", "")
        assert [(row.place, row.reason) for row in table.bad] == [(10, SWALLOWED), (11, SWALLOWED)]
        assert (len(table), table.columns["text"][10]) == (39, "Dear Sir, or Madam,\nyours, c0")


def test_marks_where_files_were_joined_and_of_another_encoding_than_said(tmp_path: Path) -> None:
    for content, named in (("\ufeff", None), ("\ufeff", "cp1252")):
        (tmp_path / "a.csv").write_bytes(f"{content}text,label\r\nä,x\r\n{content}b,x\r\n".encode())
        assert read_table(tmp_path / "a.csv", "", encoding=named).columns["text"] == ["ä", "b"]
        assert wording(tmp_path / "a.csv", named) == "UTF-8 with a mark, CRLF"
    (tmp_path / "a.csv").write_bytes("sep=,\ntext,label\nä,x\n".encode("utf-32"))
    assert read_table(tmp_path / "a.csv", "").columns == {"text": ["ä"], "label": ["x"]}
    for content, named, said in (
        ("a\rb\r".encode("cp1252"), "cp1252", "CP1252 as said, CR"),
        ("a\nb\r\n".encode("utf-16"), None, "UTF-16, LF and CRLF"),
        (b"a", None, "UTF-8, one line"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        assert wording(tmp_path / "a.csv", named) == said
    (tmp_path / "a.csv").write_bytes(b"tex\xff,label\na,x\n")
    with pytest.raises(UserError, match=r"the first line is not UTF-8; save the file as UTF-8, or name its encod"):
        read_table(tmp_path / "a.csv", "")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        *(("a.csv", f"text{mark}label") for mark in (";", "|", "\t")),
        *(("a.csv", header) for header in ("text, all\tlabel", "a;text, b;label")),
        ("a.tsv", "text,label"),
        ("a.csv", "LJ001-0001|Printing, in one sense, differs|Printing, in one sense, differs"),
    ],
)
def test_other_separators(tmp_path: Path, name: str, header: str) -> None:
    (tmp_path / name).write_text(f"{header}\n{header}\n")
    with pytest.raises(UserError, match=r"the first line is '.*'; save the file with (commas|tabs) between"):
        read_table(tmp_path / name, name)


def test_characters_that_utf_8_has_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\nreal \ufffd,x\n".encode())
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\\ud800 and \\u0000"}\n')
    assert read_table(tmp_path / "a.csv", "").columns["text"] == ["real \ufffd"]
    table = read_table(tmp_path / "a.jsonl", "")
    assert (table.columns["text"], table.mended) == (["? and "], {0: f"{NULS}; {HALVES}"})


def test_columns_in_another_case() -> None:
    assert column_of(["Text", "text", "LABEL"], ["label"]) == "LABEL"
    assert column_of(["Text", "text"], ["nothing", "text"]) == "text"
    assert column_of(["File Name", "x"], ["file_name"]) == "File Name"
    assert column_of(["x"], ["file_name"]) is None


def json_of(path: Path, content: str | bytes) -> list[dict[str, Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(path, path.name).rows())


LIST = [{"text": f'größe {place}, ["{{}}"]' * 50, "n": place, "of": {"who": [1]}} for place in range(2_000)]
FLAT = [{"text": row["text"], "n": row["n"], "of.who": [1]} for row in LIST]


@pytest.mark.parametrize("indent", [None, 1])
def test_lists_of_json_objects(tmp_path: Path, indent: int | None) -> None:
    """Alone, in an object, and one a line."""
    path, text = tmp_path / "a.json", json.dumps(LIST, indent=indent, ensure_ascii=False)
    assert json_of(path, text) == json_of(path, b"\xef\xbb\xbf \n" + text.encode() + b"\n") == FLAT
    for key in ("data", "rows", "examples"):
        assert json_of(path, f'{{"version": {{"a": [1]}}, "{key}": {text}, "size": 12}}') == FLAT
    assert json_of(path, "\n".join(map(json.dumps, LIST))) == FLAT
    assert json_of(path, " [ ]") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no list of objects, and no object with one as data, rows, examples"),
        ('"text"', "is no list of objects"),
        ('["a", "b"]', "is no list of objects"),
        ('{"text": "a", "label": {"0": 1}}', "is no list of objects"),
        ('{"text": ', r"a\.json is not valid JSON \(Expecting value.*\); mend it, or move it elsewhere"),
        ('{"data": [{}], "rows": [{}]}', "several lists, data and rows; keep one"),
        ('[{"a": 1}, {"a": 2}', "is not valid JSON"),
        ('[{"a": 1}] [{"a": 2}]', "is not valid JSON"),
        ('{"a": 1}\n{"a": 2}\n{"a"', r"1 of 3 rows .*\n  line 3: .*not a JSON object"),
        ("[{}, " + "[" * 200_000, "nested too deeply|Expecting"),
        ('[{"a": 1}, 2]', "object 2: '2': not a JSON object"),
        (b'[{"a": "\xff"}]', r"1 of 1 rows .*encoding.*\n  object 1: .*not UTF-8"),
    ],
)
def test_json_that_is_no_list_of_objects(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        json_of(tmp_path / "a.json", content)


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


def test_text_that_parquet_keeps_as_bytes(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["größe".encode(), b"\xff", None], pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", "").columns["text"] == ["größe", b"\xff", None]


def test_text_in_parquet_that_is_no_utf_8_is_left_out_or_refused(tmp_path: Path) -> None:
    for count in (1, 30):
        raw = b"a" * (count - 1) + b"\xff"
        ends = pa.py_buffer(np.arange(count + 1, dtype=np.int32))
        pq.write_table(
            pa.table({"text": pa.StringArray.from_buffers(count, ends, pa.py_buffer(raw))}), tmp_path / "a.parquet"
        )
        if count == 1:
            with pytest.raises(UserError, match=r"1 of 1 rows of .*a.parquet can't be read .*\n  row 1: .*not UTF-8"):
                read_table(tmp_path / "a.parquet", "")
        else:
            table = read_table(tmp_path / "a.parquet", "")
            assert (len(table), [row.place for row in table.bad]) == (29, [29])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.json"])  # a list, which is parsed whole
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
