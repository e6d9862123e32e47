"""Beam search with a language model, against every sentence that the frames have room for."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data.letters import Letters
from data2vec2.errors import UserError
from tests.unit.evaluation.test_decoding import all_texts, random_log_probs

LETTERS = Letters.of(["ab"])  # <pad> | <unk> a b
UNIGRAMS = {"<s>": (-99, -0.3), "</s>": (-0.7, 0), "A": (-0.9, -0.2), "B": (-0.6, -0.4), "BA": (-1.1, -0.1)}
BIGRAMS = {"<s> A": -0.5, "A B": -0.2, "B </s>": -0.3, "BA A": -0.4}


def write_arpa(path: Path) -> Path:
    lines = ["\\data\\", f"ngram 1={len(UNIGRAMS) + 2}", f"ngram 2={len(BIGRAMS)}", "", "\\1-grams:", "-2\t<unk>"]
    lines += [f"{score}\t{word}\t{backoff}" for word, (score, backoff) in UNIGRAMS.items()]
    lines += ["-0.8\tX-RAY", "", "\\2-grams:", *(f"{score}\t{pair}" for pair, score in BIGRAMS.items())]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return path


def sentence_score(words: tuple[str, ...]) -> float:
    """The bigram model's log10 probability, by hand."""
    total = 0.0
    for before, word in itertools.pairwise(("<s>", *words, "</s>")):
        pair = f"{before} {word}"
        total += BIGRAMS[pair] if pair in BIGRAMS else UNIGRAMS[before][1] + UNIGRAMS[word][0]
    return total


@pytest.fixture
def decoders() -> type:
    pytest.importorskip("flashlight.lib.text", reason="needs flashlight-text: pip install 'data2vec2[lm]'")
    from data2vec2.evaluation.ngram import NgramDecoder

    return NgramDecoder


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize("word_score", [0.0, -0.7])
def test_the_best_of_all_sentences(tmp_path: Path, decoders: type, weight: float, word_score: float) -> None:
    decoder = decoders(
        write_arpa(tmp_path / "lm.arpa"), LETTERS, weight=weight, word_score=word_score, beam=5_000, threshold=1e6
    )
    assert decoder.num_words == 3  # X-RAY has letters that the vocabulary has not
    sentences = [words for n in range(4) for words in itertools.product(("A", "B", "BA"), repeat=n)]
    for seed in range(12):
        log_probs = random_log_probs(5, len(LETTERS), seed, sharpness=2.0)
        texts = all_texts(log_probs)
        scores = {}
        for words in sentences:
            ids = tuple(LETTERS.encode(" ".join(words)).tolist())
            # Word boundaries at either end say nothing, nor does one after the other.
            same = [score for text, score in texts.items() if LETTERS.decode(text) == LETTERS.decode(ids)]
            if same:
                scores[words] = np.logaddexp.reduce(same) + weight * sentence_score(words) + word_score * len(words)
        ids, score = decoder(log_probs)
        best = max(scores, key=scores.__getitem__)
        assert LETTERS.decode(ids) == " ".join(best).lower(), seed
        assert score == pytest.approx(scores[best], abs=1e-3)


def test_a_language_model_mends_what_was_misheard(tmp_path: Path, decoders: type) -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[0, 0, 0, 0.45, 0.55], [0, 1, 0, 0, 0], [0, 0, 0, 0.4, 0.6], [1, 0, 0, 0, 0]]))
    for name in ("lm.arpa", "lm.arpa.gz"):
        path = write_arpa(tmp_path / "lm.arpa")
        if name.endswith("gz"):
            path.with_suffix(".arpa.gz").write_bytes(gzip.compress(path.read_bytes()))
        ids, _ = decoders(tmp_path / name, LETTERS)(log_probs)
        assert LETTERS.decode(ids) == "a b"  # greedy hears "b b"


def test_files_that_are_no_models(tmp_path: Path, decoders: type) -> None:
    with pytest.raises(UserError, match=r"nothere.arpa can't be read"):
        decoders(tmp_path / "nothere.arpa", LETTERS)
    (tmp_path / "text.arpa").write_text("hello")
    with pytest.raises(UserError, match="no words"):
        decoders(tmp_path / "text.arpa", LETTERS)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="list of its words"):
        decoders(tmp_path / "binary", LETTERS)
    (tmp_path / "words.txt").write_text("a a |\nb b |\n")
    with pytest.raises(UserError, match="KenLM can read"):
        decoders(tmp_path / "binary", LETTERS, words=tmp_path / "words.txt")
    with pytest.raises(UserError, match="no words"):
        decoders(write_arpa(tmp_path / "lm.arpa"), Letters.of(["zq"]))


def test_a_list_of_words_limits_what_is_found(tmp_path: Path, decoders: type) -> None:
    (tmp_path / "words.txt").write_text("BA b a |\n\n")
    decoder = decoders(write_arpa(tmp_path / "lm.arpa"), LETTERS, words=tmp_path / "words.txt")
    assert LETTERS.decode(decoder(random_log_probs(5, len(LETTERS), 0))[0]) in ("", "ba", "ba ba")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['flashlight'] = None\n"
        "from pathlib import Path\n"
        "from data2vec2.data.letters import Letters\n"
        "from data2vec2.evaluation.ngram import NgramDecoder\n"
        "NgramDecoder(Path('lm.arpa'), Letters.of(['a']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "UserError" in done.stderr
    assert "pip install 'data2vec2[lm]'" in done.stderr
