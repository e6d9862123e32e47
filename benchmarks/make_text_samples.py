"""Make the bundled WordNet glosses: `python benchmarks/make_text_samples.py UNPACKED`.

UNPACKED is the folder into which `dpkg -x` unpacked the Debian package `wordnet-base`. Everything but README.md is made
anew, the same bytes each time with one version of pyarrow: train.parquet, test.parquet and LICENSE.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.modalities.text import wordnet_glosses

FILES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
CLASSES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    9: "cognition",
    10: "communication",
    15: "location",
    18: "person",
    20: "plant",
    26: "state",
}
"""The largest lexicographer files of nouns, by number (lexnames(5WN)); all other synsets have no label."""
TEST_SHARE = 0.1


@dataclass(frozen=True)
class Gloss:
    """What WordNet says of one synset: "a definition; another; "an example""."""

    synset: str
    text: str
    label: str | None

    @property
    def words(self) -> str:
        """Words alone: texts that differ in case and punctuation are one text."""
        return " ".join(re.findall(r"\w+", self.text.lower()))

    @property
    def is_test(self) -> bool:
        """By chance, which depends on the words alone."""
        digest = hashlib.sha256(self.words.encode()).digest()
        return self.label is not None and int.from_bytes(digest[:8]) / 2**64 < TEST_SHARE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unpacked", type=Path, help="the folder of the unpacked package")
    share = parser.parse_args().unpacked / "usr" / "share"
    folder = wordnet_glosses()
    folder.mkdir(parents=True, exist_ok=True)
    found = list(read_glosses(share / "wordnet"))
    first = {gloss.words: gloss for gloss in reversed(found)}  # of the same words the first in WordNet's order
    kept = [gloss for gloss in found if first[gloss.words] is gloss]
    for part in ("train", "test"):
        rows = [gloss for gloss in kept if gloss.is_test == (part == "test")]
        write(folder / f"{part}.parquet", rows)
        counts = Counter(gloss.label for gloss in rows).most_common()
        print(f"{part}: {len(rows):,} glosses, {', '.join(f'{name} {count:,}' for name, count in counts)}")
    (folder / "LICENSE").write_text(licence(share / "doc" / "wordnet-base" / "copyright"), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: {size:.1f} MB; {len(found) - len(kept):,} glosses were there before in the same words")


def read_glosses(folder: Path) -> Iterator[Gloss]:
    """Every synset's gloss, in the order of the files data.noun, data.verb, data.adj and data.adv (wndb(5WN))."""
    for name, letter in FILES.items():
        for line in (folder / f"data.{name}").read_text("utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            fields, text = line.split(" | ", 1)
            offset, number = fields.split()[:2]
            label = CLASSES.get(int(number)) if name == "noun" else None
            yield Gloss(f"{letter}{offset}", " ".join(text.split()), label)


def write(path: Path, rows: list[Gloss]) -> None:
    """Columns text, label (null: none) and synset."""
    columns = {name: [getattr(gloss, name) for gloss in rows] for name in ("text", "label", "synset")}
    table = pa.table(columns, pa.schema([(name, pa.string()) for name in columns]))
    encodings = {"synset": "DELTA_BYTE_ARRAY"}
    pq.write_table(
        table, path, compression="zstd", compression_level=22, use_dictionary=["label"], column_encoding=encodings
    )


def licence(copyright_file: Path) -> str:
    """WordNet's licence, from the package's copyright file."""
    text = copyright_file.read_text("utf-8").split("\nFiles: debian/*", 1)[0]
    text = text[text.index("Copyright:") :]
    return re.sub(r"^ \.$", "", re.sub(r"\nLicense: WordNet3\.0\n", "\n\n", text), flags=re.MULTILINE).rstrip() + "\n"


if __name__ == "__main__":
    main()
