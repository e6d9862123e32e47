"""phones.csv as users write it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data2vec2.errors import UserError
from data2vec2.modalities.audio.phones import read_phones


def test_what_a_table_says(tmp_path: Path) -> None:
    path = tmp_path / "phones.csv"
    path.write_text("\ufeffspeaker,file_name,phones\nx,a/one.wav,SIL:2 W:8  AH:1\n", "utf-8")
    ((name, alignment),) = read_phones(path).items()
    assert name == "a/one.wav"
    assert [phone for _, _, phone in alignment] == ["SIL", "W", "AH"]
    assert [end - start for start, end, _ in alignment] == pytest.approx([0.02, 0.08, 0.01])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"file_name,phones\na.wav,SIL:2\nb.wav,\n", "row 2 has no phones; columns are"),
        (b"file_name,phones\na.wav\n", "line 2: 'a.wav': fewer fields than columns"),
        (b"file_name,phones\na.wav, \n", "row 1 has no phones"),
        (b"name,text\na.wav,hello\n", "row 1 has no file_name and no phones"),
        (b"file_name,phones\na.wav,SIL:2 W8\n", r"row 1 \(a.wav\): W8 is not understood; phones are PHONE:FRAMES"),
        (b"file_name,phones\na.wav,SIL:2 W:\n", "W: is not understood"),
        (b"file_name,phones\na.wav,SIL:2 W:x\n", "W:x is not understood"),
        (b"file_name,phones\na.wav,SIL:2 W:8:1\n", "W:8:1 is not understood"),
        (b"file_name,phones\na.wav,SIL:2 W:-8\n", "W:-8 is not understood"),
        (b"file_name,phones\na.wav,SIL:2 W:0\n", "W:0 is not understood"),
        (b"file_name,phones\na.wav,SIL:2 AH0:8\n", "AH0:8 is not understood.* PHONE is SIL or one of AA, AE"),
        (b"file_name,phones\na.wav,SIL:" + b"9" * 5_000 + b"\n", "row 1"),
        (b"file_name,phones\na.wav,SIL:\xff\n", "line 2 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_no_table_of_phones(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "phones.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=match) as caught:
        read_phones(path)
    assert re.search(re.escape(str(path)), str(caught.value))
