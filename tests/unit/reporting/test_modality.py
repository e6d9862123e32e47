"""Whose page it is: modalities by their name, of other packages too, and words of what a run counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from data2vec2 import modalities
from data2vec2.config.tree import to_dict
from data2vec2.method.encoder import Encoder
from data2vec2.modalities import finetune_recipes, recipes
from data2vec2.modalities.audio import SPEC as AUDIO
from data2vec2.modalities.audio.tools import AudioTools
from data2vec2.modalities.data import Columns, ModelInfo
from data2vec2.modalities.show import Show
from data2vec2.modalities.spec import Spec, Words
from data2vec2.modalities.tools import Tools
from data2vec2.reporting.build import write_report
from data2vec2.reporting.comparison import write_comparison
from tests.unit.data.sounds import sound
from tests.unit.reporting.pages import Page, changed, fill, read_page, write_lines
from tests.unit.reporting.test_pictures import decoded
from tests.unit.reporting.test_sounds import fill as fill_sounds
from tests.unit.reporting.test_texts import fill as fill_texts

WORDS = Words(
    one="series", many="series", unit="hours", finetune_unit="series", token="beat", largest="a series", raw="spectra"
)
PAGE = """{% from "macros.html.j2" import section %}
{% macro masks(content, words) %}masks of {{ words.many }}: {{ content.samples[0].name }}{% endmacro %}
{% macro gallery(content, words) %}{% call section("Waves") %}{{ content.samples | length }}{% endcall %}{% endmacro %}
"""


class Plain(AudioTools):
    """Recordings of which a report knows nothing but what it knows of any modality."""

    show = Show()
    preview = Tools.preview
    write_gallery = Tools.write_gallery

    @property
    def spec(self) -> Spec:
        return modalities.spec_of("sensors")


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch) -> type[Plain]:
    """An installed modality of that name."""
    known = {**modalities.specs(), "sensors": replace(AUDIO, name="sensors", words=WORDS, tools=f"{__name__}:Plain")}
    monkeypatch.setattr(modalities, "specs", lambda: known)
    return Plain


@pytest.fixture
def run(sensors: type[Plain], tmp_path: Path) -> Path:
    """What a run on eight series of two classes leaves, one of which can't be read."""
    for number in range(8):
        folder = tmp_path / "data" / ("high" if number % 2 else "low")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number}.wav", sound(0.5, seed=number), 16_000)
    (tmp_path / "data" / "low" / "2.wav").write_bytes(b"no sound")
    run = tmp_path / "run"
    run.mkdir()
    write(run, sensors(), tmp_path / "data", np.arange(0))
    return run


def write(run: Path, tools: Tools, data: Path, samples: np.ndarray) -> None:
    """What a run leaves of the chosen samples (none: of all)."""
    config = recipes()["audio_mel_tiny"]()
    torch.manual_seed(0)
    records = tools.open_labelled(data, Columns(), "classes").train
    reader = tools.reader(records, config.model, config.data, 0)
    encoder = Encoder(config.model.encoder, tools.build(config.model)).eval()
    info = ModelInfo(model=config.model, data=config.data)
    tools.write_gallery(run, encoder, (reader, samples), info, torch.device("cpu"), data)
    np.savez(run / "masks.npz", **tools.preview(reader, np.arange(3), config))


def test_any_modality_has_a_page(run: Path) -> None:
    with np.load(run / "gallery.npz") as gallery, np.load(run / "masks.npz") as masks:
        assert str(gallery["kind"]) == str(masks["kind"]) == "sensors"
        names, near = gallery["names"].tolist(), gallery["neighbour_names"].tolist()
        keep_ids, shown = masks["keep_ids"], masks["names"].tolist()
        num_tokens = int(masks["num_tokens"])
    assert len(names) == 7 and not any("2.wav" in name for row in (names, *near) for name in row)
    assert all(name not in row for name, row in zip(names, near, strict=True))
    page = read_page(write_report(run))
    assert page.errors == page.unnamed == []
    assert {"Masks", "Nearest neighbours", "Map of samples"} <= set(page.headings)
    assert "can't be shown" not in page.text
    for said in ("the whole series", f"{keep_ids.shape[2]} of {num_tokens}", "the first series's", *names, *shown):
        assert said in page.text
    strips = [value for name, value in page.attributes if name == "src"]
    assert len(strips) == 3 * Show.masks_shown
    seen = np.zeros(num_tokens, dtype=bool)
    seen[keep_ids[1, 0]] = True
    np.testing.assert_array_equal(decoded(strips[Show.masks_shown])[0, :, 3] == 255, seen)


def test_one_sample_has_no_neighbours(run: Path, sensors: type[Plain], tmp_path: Path) -> None:
    write(run, sensors(), tmp_path / "data", np.arange(1))
    assert not (run / "gallery.npz").exists()


def test_a_package_brings_its_own_template(
    run: Path, sensors: type[Plain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Show):
        template = ("sensors_of_mine", "run.html.j2")  # which is the name of a template of ours, too

    (tmp_path / "sensors_of_mine" / "templates").mkdir(parents=True)
    (tmp_path / "sensors_of_mine" / "__init__.py").touch()
    (tmp_path / "sensors_of_mine" / "templates" / "run.html.j2").write_text(PAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sensors, "show", Own())
    page = read_page(write_report(run))
    assert page.errors == []
    assert "masks of series: " in page.text and "Waves" in page.headings
    (tmp_path / "sensors_of_mine" / "templates" / "run.html.j2").write_text("{% macro masks(content) %}")
    page = read_page(write_report(run))
    assert "masks.npz can't be shown" in page.text and "gallery.npz can't be shown" in page.text


def test_a_modality_that_is_not_installed_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    write_lines(run / "metrics.jsonl", [{"step": 1, "samples": 3, "samples_per_s": 2}])
    page = read_page(write_report(run))
    assert page.errors == []
    for name in ("masks.npz", "gallery.npz"):
        assert f"{name} can't be shown (UsageError: no modality 'sensors' is installed" in page.text
    assert "Samples seen" in page.text and "samples per second" in page.text


@pytest.mark.parametrize(
    ("recipe", "fill_run", "heading"),
    [
        ("image_tiny", fill, "Patch features"),
        ("audio_mel_tiny", fill_sounds, "Token features"),
        ("text_tiny", fill_texts, "Nearest neighbours"),
    ],
)
def test_files_that_name_no_modality_are_shown_by_the_configuration(
    recipe: str, fill_run: Callable[[Path], object], heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As version 0.1 wrote them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fill_run(tmp_path)
    for name in ("masks.npz", "gallery.npz"):
        changed(tmp_path / name, tmp_path / name, lambda arrays: arrays.pop("kind"))
    (tmp_path / "config.yaml").unlink(missing_ok=True)
    assert "masks.npz can't be shown (ValueError: neither it nor config.yaml" in read_page(write_report(tmp_path)).text
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(recipes()[recipe]())))
    page = read_page(write_report(tmp_path))
    assert "can't be shown" not in page.text
    assert {"Masks", heading, "Map of samples"} <= set(page.headings)


@pytest.mark.parametrize(
    ("recipe", "unit"),
    [
        ("image_tiny", "pictures"),
        ("audio_mel_tiny", "seconds of audio"),
        ("text_tiny", "blocks"),
        ("image_finetune_tiny", "pictures"),
        ("ctc_tiny", "seconds of audio"),
        ("text_finetune_tiny", "tokens"),
    ],
)
def test_what_was_counted_is_said(recipe: str, unit: str, tmp_path: Path) -> None:
    config = to_dict((recipes() | finetune_recipes())[recipe]())
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "elapsed_s": 1, "samples": 3, "samples_per_s": 2}])
    former = {key: value for key, value in config.items() if key != "task"} | {"augment": {}}  # before `task`
    for values in (config, former) if "task" in config else (config,):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        text = read_page(write_report(tmp_path)).text
        assert f"{unit[0].upper()}{unit[1:]} seen" in text
        assert f"{unit} per second" in text


def test_runs_that_count_the_same_are_compared_in_it(tmp_path: Path) -> None:
    def compared(*names: str) -> Page:
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
            write_lines(tmp_path / name / "metrics.jsonl", [{"step": 1, "samples_per_s": 2}])
            (tmp_path / name / "config.yaml").write_text(json.dumps(to_dict(recipes()[name]())))
        return read_page(write_comparison([tmp_path / name for name in names], tmp_path / "page.html"))

    assert "pictures per second" in compared("image_tiny", "image_base").text
    assert "samples per second" in compared("image_tiny", "text_tiny").text
