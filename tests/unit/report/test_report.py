"""The report of a run folder: what is there is shown, what isn't is said, and nothing stops it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from data2vec2.errors import UserError
from data2vec2.report import write_report
from data2vec2.report.figures import MASKED_GREY, read_curves, read_masks

HOSTILE = "<script>alert(1)</script>.jpg"
FILES = ["config.yaml", "environment.json", "status.json", "scores.json", "masks.npz", "metrics.jsonl", "skipped.jsonl"]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; `errors` names tags that don't close where they should."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.bold: list[str] = []
        self.errors: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text += data
        inside = self.open[-1] if self.open else ""
        if inside in ("h1", "h2", "h3"):
            self.headings.append(data)
        if inside == "strong":
            self.bold.append(data)


def fill(run: Path) -> Path:
    """Write every file that a run leaves."""
    (run / "config.yaml").write_text("recipe: image_tiny\noptim:\n  lr: 0.005\n")
    environment = {
        "data": "bundled pictures",
        "device": "cpu",
        "cores": 2,
        "precision": "float32",
        "command": ["a", "b"],
    }
    (run / "environment.json").write_text(json.dumps(environment))
    status = {"state": "interrupted", "step": 60, "updates": 3000, "message": "run again with --resume"}
    (run / "status.json").write_text(json.dumps(status))
    rows = [
        {"features": "data2vec2 (this run)", "knn": 0.8, "linear": 0.71},
        {"features": "raw pixels", "knn": 0.7, "linear": 0.75},
        {"features": "majority class", "knn": 0.1, "linear": None},
    ]
    scores = {"part": "test", "train_samples": 10000, "test_samples": 2000, "classes": ["cat", "dog"], "rows": rows}
    (run / "scores.json").write_text(json.dumps(scores | {"note": "k = 20"}))
    image = np.random.default_rng(0).integers(0, 100, (8, 12, 3), dtype=np.uint8)
    np.savez(run / "masks.npz", image=image, keep_ids=np.array([[0, 1], [4, 5]]), patch_size=4)
    lines = [
        {"step": 20, "elapsed_s": 1.9, "samples": 640, "loss": 1.5, "lr": 0.001, "grad_norm": 2, "ema_decay": 0.99},
        {"step": 40, "elapsed_s": 3.9, "samples": 1280, "loss": 1.25, "regression": 1, "cls": 0.5, "rank_encoder": 7},
        {"step": 40, "elapsed_s": 4.2, "val_knn": 0.6},
        {"step": 60, "elapsed_s": 5.9, "samples": 1920, "loss": 1.0, "target_std": 0.4, "temperature": 36.6},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    skipped = [{"name": HOSTILE, "reason": "truncated"}] + [{"name": f"{i}.png", "reason": "empty"} for i in range(60)]
    (run / "skipped.jsonl").write_text("".join(json.dumps(line) + "\n" for line in skipped))
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a folder that has everything."""
    run = fill(tmp_path_factory.mktemp("run"))
    path = write_report(run)
    assert path == run / "report.html"
    assert {child.name for child in run.iterdir()} == {*FILES, "report.html"}
    return path.read_text("utf-8")


def test_every_part_is_there(full: str) -> None:
    page = Page(full)
    assert page.errors == []
    assert page.headings == [
        "image_tiny on bundled pictures",
        "Scores",
        "Masks of one picture",
        "Curves",
        *("Loss", "Validation accuracy", "Learning rate", "EMA decay", "Standard deviations", "Effective ranks"),
        *("Gradient norm", "temperature"),
        *("Skipped files", "Configuration", "Environment"),
    ]
    for text in ("run again with --resume", "60 of 3,000", "1,920", "k = 20", "lr: 0.005", "cpu", "a b", "cat, dog"):
        assert text in page.text
    assert 'class="missing"' not in full
    assert page.tags.count("svg") == 2 * 8, "every chart over steps and over time"
    assert page.text.count("step (updates)") == page.text.count("wall-clock time (s)") == 8


def test_the_best_of_each_column_is_bold(full: str) -> None:
    assert Page(full).bold == ["80.0 %", "75.0 %"]


def test_nothing_is_fetched(full: str) -> None:
    page = Page(full)
    assert not {"script", "link", "iframe"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "@import" not in full
    assert all(link.startswith("#") for link in re.findall(r"url\((.*?)\)", full))


def test_ids_are_unique_and_references_resolve(full: str) -> None:
    ids = [value for name, value in Page(full).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#(.*?)\)", full)) <= set(ids)


def test_names_are_shown_as_text(full: str, tmp_path: Path) -> None:
    assert HOSTILE in Page(full).text
    (tmp_path / "config.yaml").write_text(json.dumps({"recipe": HOSTILE}))
    (tmp_path / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "data": HOSTILE}))
    (tmp_path / "status.json").write_text(json.dumps({"state": f'"{HOSTILE}', "message": HOSTILE}))
    (tmp_path / "scores.json").write_text(json.dumps({"rows": [{"features": HOSTILE, HOSTILE: 1}], "note": HOSTILE}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "elapsed_s": 1, HOSTILE: 2, "$x^{": 3}))
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert page.errors == []
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 10


def test_skipped_files_are_counted_by_reason_and_the_first_are_listed(full: str) -> None:
    text = Page(full).text
    assert "Files that could not be used: 61." in text
    assert re.search(r"empty\s*60\s*truncated\s*1\b", text)
    assert "48.png" in text
    assert "49.png" not in text


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert page.errors == []
    for name in FILES:
        assert f"{name} is missing" in page.text


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[1, 2", b"[[]]", b'"text"', b"null", b'{"rows": 3}', b"{}\n"]
)
def test_broken_files_are_said_and_stop_nothing(tmp_path: Path, content: bytes) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(content)
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert page.errors == []
    for text in ("scores.json can't be shown", "masks.npz can't be shown", "metrics.jsonl holds no figures"):
        assert text in page.text


def test_a_file_name_that_is_not_text_is_shown(tmp_path: Path) -> None:
    (tmp_path / "skipped.jsonl").write_text(json.dumps({"name": "caf\udce9.jpg", "reason": "empty"}))
    assert r"caf\udce9.jpg" in write_report(tmp_path).read_text("utf-8")


def test_a_cut_last_line_is_ignored(tmp_path: Path) -> None:
    fill(tmp_path)
    whole = read_curves(tmp_path / "metrics.jsonl")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "elapsed_s": 7.9, "loss": 0.')
    assert read_curves(tmp_path / "metrics.jsonl") == whole
    assert whole.step == 60
    assert whole.samples == 1920


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def drawn(*steps: tuple[int, float]) -> str:
        path.write_text("".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in steps))
        return read_curves(path).charts[0].by_step

    assert drawn((1, 9), (2, 8), (3, 1), (2, 7), (3, 6)) == drawn((1, 9), (2, 8), (2, 7), (3, 6))


def test_values_that_cannot_be_drawn_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    losses = [1.0, float("nan"), float("inf"), -1e308, 10**400, None, True, "text"]
    path.write_text("".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses)))
    (chart,) = read_curves(path).charts
    assert chart.note.endswith("left out because they are not finite or beyond 1e30: 4.")
    assert chart.by_time is None


def test_a_long_run_keeps_its_peaks_and_a_small_page(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    losses = np.random.default_rng(0).normal(size=20_000)

    def drawn() -> str:
        path.write_text("".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses)))
        return read_curves(path).charts[0].by_step

    calm = drawn()
    assert len(calm) < 50_000
    losses[12_345] = 1000
    assert re.search(r">1,?000<", drawn())


def test_masked_patches_are_grey_and_the_others_unchanged(tmp_path: Path) -> None:
    fill(tmp_path)
    image = np.load(tmp_path / "masks.npz")["image"]
    captions, pictures = zip(*read_masks(tmp_path / "masks.npz"), strict=True)
    assert captions[1] == "mask 1: sees 2 of 6 patches"
    whole, first, second = (np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))) for uri in pictures)
    np.testing.assert_array_equal(whole, image)
    np.testing.assert_array_equal(first[:4, :8], image[:4, :8])
    assert (first[4:] == MASKED_GREY).all()
    assert (first[:4, 8:] == MASKED_GREY).all()
    np.testing.assert_array_equal(second[4:, 4:], image[4:, 4:])
    assert (second[:4] == MASKED_GREY).all()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (9, 11)])
def test_pictures_of_every_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "masks.npz", image=np.zeros(shape, np.uint8), keep_ids=np.array([[0]]), patch_size=4)
    assert len(read_masks(tmp_path / "masks.npz")) == 2


def test_the_callers_plots_are_left_alone_and_have_no_say(tmp_path: Path) -> None:
    path = fill(tmp_path) / "metrics.jsonl"
    plain = read_curves(path)
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert read_curves(path) == plain
        assert dict(matplotlib.rcParams) == before


def test_an_old_report_is_replaced_and_a_failed_write_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert "old" not in Page(write_report(tmp_path).read_text("utf-8")).text.split()
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"can't write .*report\.html"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "nowhere")
