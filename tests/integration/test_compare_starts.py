"""Fine-tuned models beside training from scratch: the comparison runs. What it measures is not tested."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data2vec2.errors import UserError
from data2vec2.modalities.text import longer_glosses, wordnet_glosses

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compare_starts

    texts = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()
    # every twelfth, since they stand by class
    rows = [row for row in zip(texts["text"], texts["label"], strict=True) if row[1]][::12]
    (data := tmp_path / "texts").mkdir()
    for name, part in (("train", rows[:400]), ("test", rows[400:500])):
        with (data / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *part])

    def compared(updates: int) -> str:
        flags = ["--recipe", "text_finetune_tiny", "--labels", "5", "--seeds", "1", "--updates", str(updates)]
        line = ["compare_starts.py", "classify", str(longer_glosses()), str(data), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [*line, *flags])
        compare_starts.main()
        return capsys.readouterr().out

    table = compared(2)
    assert table.startswith("| accuracy, % |") and table.count("texts, 5 |") == 1
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/scores.json")}
    assert len(made) == 2
    assert compared(2) == table and made == {path: path.stat().st_mtime_ns for path in made}, "nothing is done again"
    with pytest.raises(UserError, match="other settings; give another --out"):
        compared(3)
