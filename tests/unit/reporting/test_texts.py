"""Texts of a report: real ones, with the masks and the neighbours that a run leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data2vec2.evaluation.features import LabelledFeatures
from data2vec2.evaluation.similarity import CAPTIONED, NEIGHBOURS, write_captions
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.recipes import text_tiny
from data2vec2.modalities.text.show import CHARACTERS, TOKENS_SHOWN, TextShow, shortened, tfidf
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from data2vec2.modalities.text.tools import TextTools
from data2vec2.reporting.build import write_report
from tests.unit.reporting.pages import HOSTILE, Page, arrays_of, changed, read_page

TABLE = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()
CLASSES = tuple(sorted(set(TABLE["label"])))
TEXT = TABLE["text"][::40]
LABELS = np.array([CLASSES.index(label) for label in TABLE["label"][::40]])


def fill(run: Path) -> Path:
    """What a text run leaves of masks and gallery, with counted words in place of features."""
    known, _ = tfidf(TEXT, LABELS, TEXT[:1], LABELS[:1])
    write_captions(run, "text", LabelledFeatures(known.x.toarray(), LABELS), CLASSES, texts=shortened(TEXT))
    (run / "words.txt").write_text("\n".join(TEXT))
    save_tokenizer(train_tokenizer(TEXT, 500), run / "tokenizer")
    tokenizer = load_tokenizer(run / "tokenizer")
    recipe = text_tiny()
    modality = TextConfig(vocab_size=tokenizer.size, max_tokens=128)
    config = replace(
        recipe,
        model=replace(recipe.model, modality=modality),
        data=TextDataConfig(tokenizer=str(run / "tokenizer")),
    )
    tools = TextTools()
    reader = tools.reader(tools.open(run / "words.txt", config, print).train, config.model, config.data, 0)
    np.savez_compressed(run / "masks.npz", **tools.preview(reader, np.arange(2), config))
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return fill(tmp_path_factory.mktemp("run"))


def test_masks_are_those_of_the_run_on_its_tokens(full: Path) -> None:
    arrays = arrays_of(full / "masks.npz")
    shown, tokens, keep_ids = TextShow().masks(arrays), arrays["tokens"], arrays["keep_ids"]
    assert (shown["masks"], shown["kept"], shown["tokens"], shown["shown"]) == (4, 51, 128, TOKENS_SHOWN)
    for place, masked in enumerate(shown["blocks"]):
        assert len(masked) == TextShow.masks_shown
        for row, ids in zip(masked, keep_ids[place], strict=False):
            assert [token for token, _ in row] == tokens[place, :TOKENS_SHOWN].tolist()
            assert [number for number, (_, seen) in enumerate(row) if seen] == sorted(ids[ids < TOKENS_SHOWN])
    text = "".join(token for token, _ in shown["blocks"][0][0])
    assert text.startswith(f"<s>{TEXT[0][:40]}"), "tokens put together are the text"


def test_neighbours_are_the_most_similar_texts(full: Path) -> None:
    shown = TextShow().gallery(arrays_of(full / "gallery.npz"))
    assert len(shown["samples"]) == CAPTIONED
    assert len({item["label"] for item in shown["samples"]}) == CAPTIONED, "of as many classes as there is room for"
    for item in shown["samples"]:
        cosines = [other["cosine"] for other in item["neighbours"]]
        assert len(cosines) == NEIGHBOURS and cosines == sorted(cosines, reverse=True)
        for other in item["neighbours"]:
            assert TABLE["label"][TABLE["text"].index(other["name"])] == other["label"]
            assert other["same"] == (other["label"] == item["label"])
    assert len(shown["map"]) == len(TEXT) and shown["labelled"]


def test_long_texts_are_cut_and_one_text_has_no_neighbours(tmp_path: Path) -> None:
    features = np.eye(3, 4, dtype=np.float32)
    texts = shortened(["a" * 5_000, "b", "c"])
    write_captions(tmp_path, "text", LabelledFeatures(features, np.array([-1, -1, -1])), (), texts=texts)
    shown = TextShow().gallery(arrays_of(tmp_path / "gallery.npz"))
    assert {len(item["name"]) for item in shown["samples"]} == {1, CHARACTERS}
    assert not shown["labelled"]
    write_captions(tmp_path, "text", LabelledFeatures(features[:1], np.array([-1])), (), texts=["a"])
    assert not (tmp_path / "gallery.npz").exists()


def test_the_page_of_a_text_run(full: Path) -> None:
    page = Page(write_report(full, full / "page.html").read_text("utf-8"))
    assert page.errors == page.unnamed == []
    for heading in ("Masks", "Nearest neighbours", "Map of samples"):
        assert heading in page.headings
    assert "can't be shown" not in page.text
    assert "picture" not in page.text and "recording" not in page.text
    assert TEXT[0] in page.text


def test_tokens_and_texts_are_shown_as_text(full: Path, tmp_path: Path) -> None:
    def hostile(arrays: dict[str, np.ndarray]) -> None:
        for key in ("tokens", "texts", "neighbour_texts", "classes"):
            if key in arrays:
                arrays[key] = np.full(arrays[key].shape, f'"{HOSTILE}\udce9')

    for name in ("masks.npz", "gallery.npz"):
        changed(full / name, tmp_path / name, hostile)
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    assert "can't be shown" not in page.text
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 100


@pytest.mark.parametrize("name", ["masks.npz", "gallery.npz"])
def test_what_is_missing_or_broken_is_said(full: Path, tmp_path: Path, name: str) -> None:
    show = TextShow().masks if name == "masks.npz" else TextShow().gallery
    for key in arrays_of(full / name).keys() - {"kind"}:
        with pytest.raises(KeyError):
            show(changed(full / name, tmp_path / name, lambda arrays, key=key: arrays.pop(key)))
        page = read_page(write_report(tmp_path))
        assert page.errors == []
        assert f"{name} can't be shown" in page.text
