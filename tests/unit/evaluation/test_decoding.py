"""Decoders against all alignments and sentences there are, and the times of words."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data2vec2.data.letters import Letters
from data2vec2.errors import UserError
from data2vec2.evaluation.decoding import align, beam_search, greedy, transcribe

LETTERS = Letters.of(["ab"])  # <pad> | <unk> a b
UNIGRAMS = {"<s>": (-99, -0.3), "</s>": (-0.7, 0), "A": (-0.9, -0.2), "B": (-0.6, -0.4), "BA": (-1.1, -0.1)}
BIGRAMS = {"<s> A": -0.5, "A B": -0.2, "B </s>": -0.3, "BA A": -0.4}


def random_log_probs(frames: int, symbols: int, seed: int, sharpness: float = 1.0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=(frames, symbols)) * sharpness
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


def all_texts(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """The log-probability of every text, from all alignments."""
    totals: dict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    frames, symbols = log_probs.shape
    for path in itertools.product(range(symbols), repeat=frames):
        score = log_probs[np.arange(frames), list(path)].sum()
        totals[collapse(path)] = np.logaddexp(totals[collapse(path)], score)
    return totals


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(("frames", "symbols", "sharpness"), [(6, 3, 1.0), (5, 4, 2.0), (7, 2, 0.3), (1, 3, 1.0)])
def test_beam_search_finds_the_most_probable_text(frames: int, symbols: int, sharpness: float, seed: int) -> None:
    log_probs = random_log_probs(frames, symbols, seed, sharpness)
    totals = all_texts(log_probs)
    assert np.logaddexp.reduce(list(totals.values())) == pytest.approx(0, abs=1e-9)
    ids, score = beam_search(log_probs, beam=10_000)
    best = max(totals, key=totals.__getitem__)
    assert tuple(ids) == best
    assert score == pytest.approx(totals[best], abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_a_beam_counts_alignments_as_the_loss_does(seed: int) -> None:
    """A narrow one some of the text's alignments, one that keeps everything all of them."""

    def log_probability(log_probs: np.ndarray, ids: np.ndarray) -> float:
        frames, targets = torch.from_numpy(log_probs)[:, None], torch.from_numpy(ids)[None]
        return -F.ctc_loss(frames, targets, [len(log_probs)], [len(ids)], reduction="sum").item()

    log_probs = random_log_probs(40, 8, seed)
    for beam in (1, 4, 25):
        ids, score = beam_search(log_probs, beam)
        assert score <= log_probability(log_probs, ids) + 1e-9
    ids, score = beam_search(log_probs[:8, :4], 10_000)
    assert score == pytest.approx(log_probability(log_probs[:8, :4], ids))


def test_impossible_symbols_are_no_trouble() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[0.0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5]]))
    ids, score = beam_search(log_probs)
    assert tuple(ids) in ((3, 3), (3, 4))
    assert score == pytest.approx(np.log(0.5))


def test_beam_search_sums_where_greedy_does_not() -> None:
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # "" has .36, "a" .64
    assert greedy(log_probs)[0].tolist() == []
    assert beam_search(log_probs)[0].tolist() == [1]


@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_the_best_alignment_collapsed(seed: int) -> None:
    log_probs = random_log_probs(6, 3, seed)
    ids, score = greedy(log_probs)
    best = max(itertools.product(range(3), repeat=6), key=lambda path: log_probs[np.arange(6), list(path)].sum())
    assert tuple(ids) == collapse(best)
    assert score == pytest.approx(log_probs.max(axis=1).sum())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("text", [(), (1,), (1, 2), (1, 1), (2, 2, 1), (1, 2, 1)])
def test_alignments_against_all_there_are(text: tuple[int, ...], seed: int) -> None:
    log_probs = random_log_probs(6, 3, seed)
    paths = [path for path in itertools.product(range(3), repeat=6) if collapse(path) == text]
    best = max(paths, key=lambda path: log_probs[np.arange(6), list(path)].sum())
    places = align(log_probs, np.array(text, dtype=np.int64))
    assert tuple(text[place] if place >= 0 else 0 for place in places) == best
    letters = places[places >= 0]
    assert sorted(set(letters.tolist())) == list(range(len(text)))  # every letter has its frames, in order
    assert (np.diff(letters) >= 0).all()


def test_too_few_frames_for_a_text() -> None:
    for frames in (1, 2):
        with pytest.raises(ValueError, match=f"{frames} frames are too few for 2 letters"):
            align(random_log_probs(frames, 3, 0), np.array([1, 1]))
    assert align(random_log_probs(3, 3, 0), np.array([1, 1])).tolist() == [0, -1, 1]


def test_words_with_their_times() -> None:
    #        0123456789
    frames = "__aab__|_b_b_"
    ids = [LETTERS.ids.get({"_": "<pad>"}.get(symbol, symbol), 0) for symbol in frames]
    log_probs = np.full((len(ids), len(LETTERS)), np.log(0.025))
    log_probs[np.arange(len(ids)), ids] = np.log(0.9)
    for decode in (None, beam_search):
        transcript = transcribe(log_probs, LETTERS, 0.02, decode)
        assert transcript.text == "ab bb"
        assert [word.text for word in transcript.words] == ["ab", "bb"]
        times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
        assert times == pytest.approx([0.04, 0.10, 0.18, 0.24])
    assert transcript.score > 13 * np.log(0.9)


def test_a_clip_in_which_nothing_is_said() -> None:
    silent = np.log(np.full((5, 5), 0.05) + 0.75 * (np.arange(5) == 0))
    for decode in (None, beam_search):
        assert transcribe(silent, LETTERS, 0.02, decode).words == ()
    assert transcribe(silent[:0], LETTERS, 0.02).text == ""
    assert beam_search(silent[:0])[1] == 0


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
    from data2vec2.evaluation.decoding import NgramDecoder

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
    with pytest.raises(UserError, match="is not an ARPA file"):
        decoders(tmp_path / "binary", LETTERS)
    (tmp_path / "cut.arpa").write_text("\\1-grams:\n-1\ta\n")
    with pytest.raises(UserError, match="KenLM can read"):
        decoders(tmp_path / "cut.arpa", LETTERS)
    with pytest.raises(UserError, match="no words"):
        decoders(write_arpa(tmp_path / "lm.arpa"), Letters.of(["zq"]))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['flashlight'] = None\n"
        "from pathlib import Path\n"
        "from data2vec2.data.letters import Letters\n"
        "from data2vec2.evaluation.decoding import NgramDecoder\n"
        "NgramDecoder(Path('lm.arpa'), Letters.of(['a']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "UserError" in done.stderr
    assert "pip install 'data2vec2[lm]'" in done.stderr
