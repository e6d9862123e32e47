"""The documentation does what it says: its commands run, its links lead somewhere, its generated pages are up to date.

Every ```bash and ```python block of README.md and docs/*.md is run in one temporary folder, in this order, with a
folder `pictures` of real pictures, `recordings` and `sounds` of real speech, `texts` of real texts, `checkpoints`
of files as the original saves them and one `weights` of other families, of small models. So that this
takes minutes, lines get the flags `QUICK` of their verb where they have none of the name (but the first run of all
starts helpers and readers, as a user's does), `updates=N` in a Python block becomes `updates=UPDATES, processes=1`,
examples make UPDATES steps, and programs are forked from one that has imported everything (preloaded.py). `make`
commands are not run but must name targets of the Makefile; installing is checked, not done.
"""

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.text import wordnet_glosses
from tests.foreign import saved
from tests.integration.preloaded import preloaded
from tests.pages import PAGES, ROOT, blocks
from tests.parity.cases import GoldenCase
from tests.parity.originals import LETTERS, finetuned, pretrained, save_with_dictionary, write_bpe

UPDATES = 6
TRAINING = {"--train.updates": UPDATES, "--train.processes": 1, "--data.workers": 0}
QUICK = {"pretrain": TRAINING, "finetune": TRAINING, "evaluate": {"--seeds": 1}}
BRIEF = {"--train.batch-size": 4, "--train.updates": 2}
NARROW = {"--model.encoder.embed-dim": 96, "--model.encoder.num-heads": 2, "--model.decoder.dim": 96}
SMALL = {**BRIEF, **NARROW, "--model.encoder.depth": 1, "--model.targets.average-layers": 1}
LARGE = {"estimate": SMALL, "pretrain": {**QUICK["pretrain"], **SMALL}, "finetune": {**QUICK["finetune"], **BRIEF}}
"""The same of recipes for a GPU."""
IN_UNITS = {"recordings": {"--data.max-seconds": BRIEF["--train.batch-size"]}, "glue": {"--train.batch-size": 64}}
"""The same where a batch counts seconds or tokens."""
LARGE_RECIPES = {"image_small", "image_base", "image_finetune_base", "audio_base", "ctc_base_10h", "text_base", "glue"}
FIRST = "data2vec2 pretrain image_tiny pictures --out runs/first"
RUNS = {"first", "heard", "labelled", "letters", "read", "small", "small-classes"}
"""What README.md leaves."""
RUN_BY_OTHERS = ("docs/own-modality.md", "docs/remote.md")
"""By test_sensors.py and test_remote.py."""


def make_pictures(folder: Path) -> None:
    """Three classes of 40 bundled pictures each, in colour, as JPEG."""
    with np.load(fashion_mnist()) as arrays:
        images, labels, classes = arrays["x_train"], arrays["y_train"], arrays["classes"].tolist()
    for name, colour in (("Bag", "gold"), ("Dress", "orchid"), ("Sneaker", "skyblue")):
        (folder / name).mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(labels == classes.index(name))[:40], start=1):
            picture = ImageOps.colorize(Image.fromarray(images[index]), "black", colour)
            picture.resize((56, 56)).save(folder / name / f"{number:03}.jpg")


def make_recordings(folder: Path) -> None:
    """48 bundled prompts of 1 to 6 seconds in two classes, 8 of them in a test part, with their transcripts."""
    with (english_prompts() / "metadata.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["file_name"]: row["transcription"] for row in csv.DictReader(file)}
    chosen = []
    for part, count in (("train", 20), ("test", 4)):
        for category in ("letters", "prompts"):
            paths = sorted((english_prompts() / part / category).glob("*.ogg"))
            chosen += [path for path in paths if 3_000 < path.stat().st_size < 18_000][:count]
    names = [path.relative_to(english_prompts()).as_posix() for path in chosen]
    for name, path in zip(names, chosen, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "transcription"), *((name, texts[name]) for name in names)])


def make_texts(folder: Path) -> None:
    """1,000 bundled glosses, a sixth of them to test on; beside them pairs, and how many words they share."""
    folder.mkdir()
    rows = pq.read_table(wordnet_glosses() / "test.parquet", columns=["text", "label"]).to_pylist()[::6]
    for part in ("train", "test"):
        own = [row for place, row in enumerate(rows) if (place % 6 == 0) == (part == "test")]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    texts = [row["text"] for row in rows]
    with (folder.parent / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        pairs = [(a, b, len({*a.split()} & {*b.split()})) for a, b in zip(texts[:200], texts[200:400], strict=True)]
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *pairs])


def make_checkpoints(folder: Path) -> None:
    """Pre-trained and fine-tuned files of the original, with what lies beside them."""
    folder.mkdir()
    image, audio, text = (GoldenCase(f"{kind}_tiny") for kind in ("image", "audio", "text"))
    for name, case in (("base_imagenet", image), ("base_libri", audio), ("nlp_base", text)):
        torch.save(pretrained(case), folder / f"{name}.pt")
    torch.save(finetuned(image, 3), folder / "base_imagenet_ft.pt")
    (folder / "classes.txt").write_text("Bag\nDress\nSneaker\n")
    save_with_dictionary(finetuned(audio, len(LETTERS)), folder / "base_vox_960h.pt")
    torch.save(finetuned(text, 2), folder / "rte.pt")
    write_bpe(folder, 128)


def make_weights(folder: Path) -> None:
    """Small models of other families, as their own classes save them."""
    for place, name in (("dinov2", "DINOv2"), ("wav2vec2", "wav2vec 2.0"), ("bert", "BERT")):
        saved(name, folder / place)


def run_page(page: str, place: Path) -> str:
    """Run all blocks of a page in a folder; returns what they printed."""
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(place / "cache")}
    printed = ""
    for language, text in blocks(page):
        if language == "bash":
            lines = "\n".join(quick(line) for line in text.splitlines() if not is_checked_only(line))
            command = ["bash", "-euo", "pipefail", "-c", lines]
        elif language == "python":
            known = {"data2vec2", "trust_remote_code=True"}
            assert any(word in text for word in known) or "transformers" not in text, f"{page}: who knows?\n{text}"
            words = re.sub(r"\bupdates=\d+", f"updates={UPDATES}, processes=1", text)
            command = [str(place / "bin" / "python"), "-c", words]
        else:
            continue
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        printed += done.stdout
    return printed


def quick(line: str) -> str:
    """A line of a shell with what makes it short."""
    program, *words = line.split()
    if program == "python":
        return re.sub(r" \d+$", f" {UPDATES}", line)
    flags = QUICK.get(words[0], {}) if program == "data2vec2" else {}
    if words[:1] == ["evaluate"] and "--labels" not in words:
        flags = {}
    if LARGE_RECIPES & set(words):
        flags = LARGE[words[0]]
        for word in words:
            flags = flags | IN_UNITS.get(word, {})
    said = {*words, *(["--train.updates"] if "--train.epochs" in words else [])}
    wanted = ["--train.updates"] if line == FIRST else [flag for flag in flags if flag not in said]
    return " ".join([line, *(f"{flag} {flags[flag]}" for flag in wanted)])


def is_checked_only(line: str) -> bool:
    """True for lines that are not run; they are checked here."""
    if line.startswith("make "):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
        assert line.split()[1] in targets, f"{line}: the Makefile has {targets}"
        return True
    if line.startswith("pip install"):
        assert re.fullmatch(r"pip install '?\.(\[(track|dev|data|vision|lm|onnx|remote|trainer)\])?'?", line), line
        return True
    return False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with pictures and a `data2vec2` command, in which README.md has been worked through."""
    folder = tmp_path_factory.mktemp("readme")
    make_pictures(folder / "pictures")
    make_recordings(folder / "recordings")
    shutil.copytree(folder / "recordings", folder / "sounds", ignore=shutil.ignore_patterns("metadata.csv"))
    make_texts(folder / "texts")
    make_checkpoints(folder / "checkpoints")
    make_weights(folder / "weights")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    with preloaded(folder / "bin"):
        (folder / "printed.txt").write_text(run_page("README.md", folder))
        yield folder


def test_readme_commands(place: Path) -> None:
    assert {path.name for path in (place / "runs").iterdir()} == RUNS, "the dry run must write nothing"
    run = place / "runs" / "first"
    for name in re.findall(r"^\| `([a-z.]+)`", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE):
        assert (run / name).exists(), f"the README's table of the run folder names {name}"
    printed = (place / "printed.txt").read_text()
    assert "random initialisation" in printed
    assert "torch.Size([1, 96])" in printed


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page not in RUN_BY_OTHERS])
def test_commands_of_other_pages(page: str, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place")
    run_page(page, tmp_path / "place")


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("https://"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize(("page", "render"), [("configuration.md", "render"), ("commands.md", "render_commands")])
def test_every_option_and_every_field_is_documented(page: str, render: str) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))
    assert (ROOT / "docs" / page).read_text("utf-8") == generator[render](), "run: python docs/make_configuration.py"


def test_the_tests_that_reliability_names_are_there() -> None:
    faults = "".join(path.name + path.read_text("utf-8") for path in (ROOT / "tests" / "fault").glob("test_*.py"))
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"\| `(?:-k )?(test_\w+)` \|", page) + re.findall(r'-k (test_\w+)"', page)
    assert len(named) > 10
    assert not [name for name in named if f"def {name}" not in faults and f"{name}.py" not in faults]
    assert all((ROOT / path).is_file() for path in re.findall(r"ARGS=(tests/\S+)`", page))


def test_no_machine_paths_in_the_documentation() -> None:
    for page in [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "benchmarks/RESULTS.md"]:
        assert not re.search(r"/(work|home|root|tmp|Users)/", (ROOT / page).read_text("utf-8")), page


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_no_block_is_overlooked(page: str) -> None:
    """Every fence begins or ends a block that is run, or one that says it is no code."""
    found = blocks(page)
    assert {language for language, _ in found} <= {"bash", "python", "text"}
    fences = re.findall(r"^\s*(?:```|~~~)", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE)
    assert len(fences) == 2 * len(found), "a block is indented, has no language or is never closed"


def test_the_blocks_are_found() -> None:
    assert {language for language, _ in blocks("README.md")} == {"bash", "python", "text"}
    assert sum("data2vec2" in text for page in PAGES for _, text in blocks(page)) >= 8
