"""Write questions about WordNet's explanations of words, which come with the package, as SQuAD has them.

    python docs/examples/asked_data.py asked

Each explanation is asked what the word means, and how it is used: for that it has an example in quotes, or no answer.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq

from data2vec2.modalities.text import wordnet_glosses


def paragraph(name: str, context: str) -> dict[str, object]:
    """An explanation with both questions."""
    found = re.fullmatch(r'([^";]+)(?:; "([^"]+)")?', context)
    questions = []
    for place, question in enumerate(("What does it mean?", "How is it used?"), start=1):
        text = found[place] if found else None
        answers = [{"text": text, "answer_start": found.start(place)}] if found and text else []
        asked = {"id": f"{name}-{place}", "question": question, "answers": answers, "is_impossible": not answers}
        questions.append(asked)
    return {"context": context, "qas": questions}


def write(folder: Path, counts: dict[str, int]) -> None:
    """So many explanations of each part, half of them with an example."""
    folder.mkdir(parents=True)
    for part, count in counts.items():
        rows = pq.read_table(wordnet_glosses() / f"{part}.parquet").to_pylist()
        some = [row for row in rows if re.fullmatch(r'[^";]{9,60}', row["text"])][: count // 2]
        some += [row for row in rows if re.fullmatch(r'[^";]{9,60}; "[^"]{9,60}"', row["text"])][: count // 2]
        data = [{"title": part, "paragraphs": [paragraph(row["synset"], row["text"]) for row in some]}]
        (folder / f"{part}.json").write_text(json.dumps({"version": "v2.0", "data": data}), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), {"train": 2_000, "test": 400})
