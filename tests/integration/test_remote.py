"""Data on a web server: a process that dies, comes back, answers half, or not at all."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.data import kept, remote
from data2vec2.data.records import Parts, open_data
from data2vec2.errors import UsageError, UserError
from data2vec2.files import cache_folder
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.reader import RECORDINGS
from data2vec2.modalities.text import wordnet_glosses
from tests.integration.helpers import SMALL, Child, assert_same_run, metrics, run_here, words
from tests.integration.ranges import Server
from tests.integration.test_readme import make_pictures
from tests.pages import blocks
from tests.unit.data.pictures import encoded, open_pictures, photo
from tests.unit.data.tars import as_tar

FLAGS = (
    *SMALL,
    *words("--train.updates 6 --train.log-every 1 --train.eval-every 6 --train.save-every 3 --train.batch-size 16"),
    *words("--data.val-fraction 0.2 --data.workers 0 --data.max-bad 0.1"),
)
COUNT = 40


def samples(shard: int) -> list[tuple[bytes, int]]:
    """Cuts of a photograph as PNG files of about 25 kB, one of which is damaged, and a class each."""
    found = []
    for place in range(COUNT):
        box = (place, shard * 8, place + 140, shard * 8 + 90)
        found.append((encoded(photo(200, 150).crop(box), "PNG"), place % 4))
    found[7] = (found[7][0][:500], 3)
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three shards of each kind, of more than a megabyte."""
    root = tmp_path_factory.mktemp("served")
    (root / "parquet").mkdir()
    for shard in range(3):
        found = samples(shard)
        members = [(f"{place:03}.png", content) for place, (content, _) in enumerate(found)]
        labels = [(f"{place:03}.cls", str(label).encode()) for place, (_, label) in enumerate(found)]
        ordered = [one for pair in zip(members, labels, strict=True) for one in pair]
        as_tar(root / "tar" / f"{shard:03}.tar", ordered)
        contents, classes = zip(*found, strict=True)
        table = pa.table({"image": list(contents), "label": list(classes)})
        pq.write_table(table, root / "parquet" / f"{shard:03}.parquet", row_group_size=8, compression="none")
    return root


@pytest.fixture
def server(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Of these, not started; with a cache folder that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Server(shards, tmp_path / "server.log")
    yield found
    found.kill()


def pattern(server: Server, kind: str) -> str:
    return f"{server.url}/{kind}/{{000..002}}.{kind}"


def pretrain(data: object, run: Path, *more: object) -> list[object]:
    return ["pretrain", "image_tiny", data, "--out", run, *FLAGS, *more]


def accounts(run: Path) -> object:
    return json.loads((run / "data.json").read_text())["parts"]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_run_is_the_same_as_from_a_disk(
    kind: str, server: Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss by loss, with the same account, though the cache is too small and the server often fails."""
    assert run_here(pretrain(shards / kind, tmp_path / "local")) == 0
    monkeypatch.setenv("DATA2VEC2_CACHE_GIB", "0.002")
    server.start("--short", "5", "--fail", "7")
    assert run_here(pretrain(pattern(server, kind), tmp_path / "remote")) == 0
    assert_same_run(tmp_path / "remote", tmp_path / "local", 6)
    assert accounts(tmp_path / "remote") == accounts(tmp_path / "local")
    assert len(json.loads((tmp_path / "remote" / "data.json").read_text())["parts"]["train"]["bad"]) >= 2
    size = sum(path.stat().st_size for path in (cache_folder() / "remote").rglob("*") if path.is_file())
    assert 0 < size <= 0.002 * 2**30


def test_a_run_goes_on_from_elsewhere(server: Server, shards: Path, tmp_path: Path) -> None:
    """The same shards on a disk and on a server are the same data: order, fingerprint, everything."""
    assert run_here(pretrain(shards / "tar", tmp_path / "whole")) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "step-6")
    server.start()
    again = pretrain(pattern(server, "tar"), tmp_path / "half", "--resume")
    assert run_here(again) == 0
    assert_same_run(tmp_path / "half", tmp_path / "whole", 6)


def test_a_password_is_written_nowhere(server: Server, tmp_path: Path) -> None:
    server.start()
    data = pattern(server, "tar").replace("://", "://me:sesame@") + "?signature=sesame"
    more = pattern(server, "parquet").replace("://", "://me:sesame@")
    assert run_here(["pretrain", "image_tiny", data, more, "--out", tmp_path / "run", *FLAGS]) == 0
    assert "***@" in (tmp_path / "run" / "environment.json").read_text()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in files if b"sesame" in path.read_bytes()]


def test_a_server_that_is_killed_and_comes_back(
    server: Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it answers a reader process of the run: training waits, says so, and loses nothing."""
    more = words("--data.workers 1")
    assert run_here(pretrain(shards / "tar", tmp_path / "local", *more)) == 0
    monkeypatch.setenv("DATA2VEC2_CACHE_GIB", "0.0005")  # so that nearly every sample is asked for
    server.start("--stall", "150")
    child = Child(pretrain(pattern(server, "tar"), tmp_path / "remote", *more), tmp_path / "child.log")
    child.until(lambda: "stalled" in server.log.read_text())
    assert (tmp_path / "remote" / "config.yaml").exists(), "it must be training"
    server.kill()
    child.until(lambda: "asked again" in child.output)
    time.sleep(1)
    server.start()
    assert child.wait() == 0, child.output
    assert "answered at try" in child.output
    assert "Traceback" not in child.output
    assert_same_run(tmp_path / "remote", tmp_path / "local", 6)


def test_a_server_that_stays_away(
    server: Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ends the run with what, where and what to do; samples are not taken for bad ones; --resume goes on."""
    monkeypatch.setenv("DATA2VEC2_CACHE_GIB", "0.0005")
    monkeypatch.setenv("DATA2VEC2_WAIT_S", "2")
    assert run_here(pretrain(shards / "tar", tmp_path / "local")) == 0
    server.start("--stall", "150")
    run = tmp_path / "run"
    child = Child(pretrain(pattern(server, "tar"), run), tmp_path / "child.log")
    child.until(lambda: "stalled" in server.log.read_text())
    server.kill()
    assert child.wait() == 1, child.output
    said = " ".join(child.output.split())
    assert f"{server.url}/tar/00" in said
    assert "can't write" not in said
    assert "tries in" in said
    last = metrics(run)[-1]["step"]
    assert last > 0 and (run / "checkpoints" / f"step-{last}").exists(), "nothing is lost"
    assert "check server and network, then go on (a run with --resume)" in said
    assert "Traceback" not in said
    assert accounts(run)["train"]["bad"].keys() <= accounts(tmp_path / "local")["train"]["bad"].keys()  # type: ignore
    server.start()
    assert run_here(pretrain(pattern(server, "tar"), run, "--resume")) == 0
    assert_same_run(run, tmp_path / "local", 6)
    server.kill()
    assert run_here(pretrain(pattern(server, "tar"), tmp_path / "other")) == 1
    assert "can't be read" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()


def same_samples(one: Parts, other: Parts) -> None:
    assert one.train.fingerprint == other.train.fingerprint
    assert list(one.train.names) == list(other.train.names)
    assert all(one.train.read(place) == other.train.read(place) for place in range(len(one.train)))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_patterns_folders_and_what_is_asked_for(kind: str, server: Server, shards: Path) -> None:
    local = open_pictures(shards / kind)
    server.start()
    same_samples(open_pictures(pattern(server, kind)), local)
    asked = len(server.asked)
    for url in (f"{server.url}/{kind}/*.{kind}", f"{server.url}/{kind}", f"{server.url}/{kind}/00{{2,0,1}}.{kind}"):
        found = open_pictures(url)
        same_samples(found, local)
        assert found.account.to_dict() == local.account.to_dict()
    if kind == "tar":
        assert len(server.asked) == asked, "all that was read must be in the cache"
    one = open_pictures(f"{server.url}/{kind}/001.{kind}")
    same_samples(one, open_pictures(shards / kind / f"001.{kind}"))


def test_what_is_half_written_or_damaged_is_read_again(server: Server, shards: Path) -> None:
    server.start()
    local, url = open_pictures(shards / "tar"), pattern(server, "tar")
    same_samples(open_pictures(url), local)
    pieces = sorted(path for path in (cache_folder() / "remote").rglob("*") if path.is_file())
    indices = sorted(cache_folder().glob("index-*.json"))
    assert len(pieces) > 6
    assert len(indices) == 3
    os.truncate(pieces[0], 1000)
    pieces[1].write_bytes(b"")
    pieces[2].unlink()
    os.truncate(indices[0], 100)
    indices[1].write_text("{}")
    asked = len(server.asked)
    same_samples(open_pictures(url), local)
    assert 0 < len(server.asked) - asked <= 3
    asked = len(server.asked)
    same_samples(open_pictures(url), local)
    assert len(server.asked) == asked, "what was damaged must be mended"


def test_a_shard_that_changes_is_read_again(server: Server, shards: Path, tmp_path: Path) -> None:
    server.folder = tmp_path / "changing"
    shutil.copytree(shards / "tar", server.folder / "tar")
    server.start()
    before = open_pictures(pattern(server, "tar")).train
    contents = [(f"{place:03}.png", content) for place, (content, _) in enumerate(samples(2))]
    as_tar(server.folder / "tar" / "001.tar", contents)
    after = open_pictures(pattern(server, "tar")).train
    assert after.fingerprint != before.fingerprint
    same_samples(open_pictures(pattern(server, "tar")), open_pictures(server.folder / "tar"))


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("tar/{000..003}.tar", "tar/003.tar can't be read: the server answers 404"),
        ("tar/none-*.tar", "there are no files at"),
        ("elsewhere", "the server answers 404|there are no files"),
        ("tar/000.zip", "no .tar or .parquet files of pictures at .*: it holds files of type .zip"),
        ("tar/{3..1}.tar", "there are no files at"),
    ],
)
def test_what_is_not_there(path: str, match: str, server: Server) -> None:
    server.start()
    with pytest.raises(UserError, match=match):
        open_pictures(f"{server.url}/{path}")


def test_a_server_without_ranges(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA2VEC2_WAIT_S", "0.5")
    server.start("--whole")
    file = remote.opened(server.url, {"a": f"{server.url}/tar/000.tar"}) / "a"
    with pytest.raises(UserError, match="it must support ranges"):
        file.read(1000, 2000)


@pytest.mark.parametrize(
    ("url", "match"), [("s3://bucket/a.tar", "s3fs"), ("nope://a/b.tar", "Protocol not known: nope")]
)
def test_other_protocols(url: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        open_pictures(url)


def test_settings_must_be_numbers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA2VEC2_WAIT_S", "long")
    with pytest.raises(UsageError, match="DATA2VEC2_WAIT_S is 'long'; it must be a number above 0"):
        open_pictures(f"{server.url}/tar/000.tar")


def test_the_oldest_pieces_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("DATA2VEC2_CACHE_GIB", str(10_000 / 2**30))
    for number in range(9):
        kept.keep(f"a/{number}", bytes(1000))
        os.utime(cache_folder() / "remote" / "a" / str(number), (number, number))
    assert kept.kept("a/0", 1000) == bytes(1000)  # which makes it new
    kept.keep("b/0", bytes(1000))
    kept.keep("b/1", bytes(1000))
    assert [number for number in range(9) if kept.kept(f"a/{number}", 1000) is None] == [1, 2]
    assert kept.kept("b/1", 1000, 10, 20) == bytes(10)
    assert kept.kept("b/1", 999) is None


def test_recordings(server: Server, tmp_path: Path) -> None:
    """Of a tar with transcripts: the same samples, lengths and texts."""
    files = sorted((english_prompts() / "train").rglob("*.ogg"))[:12]
    members = [
        (f"{place:02}.{kind}", content)
        for place, path in enumerate(files)
        for kind, content in (("ogg", path.read_bytes()), ("txt", path.stem.encode()))
    ]
    as_tar(tmp_path / "speech" / "a.tar", members)
    server.folder = tmp_path / "speech"
    server.start("--short", "3")
    local, found = (open_data(data, RECORDINGS) for data in (tmp_path / "speech", f"{server.url}/a.tar"))
    same_samples(found, local)
    assert found.train.texts == local.train.texts
    for place in range(len(files)):
        with found.train.open(place) as one, local.train.open(place) as other:
            assert np.array_equal(np.frombuffer(one.read(), np.uint8), np.frombuffer(other.read(), np.uint8))


@pytest.mark.parametrize("kind", ["parquet", "txt", "txt.gz"])
def test_texts(kind: str, server: Server, tmp_path: Path) -> None:
    """Bundled glosses: the same tokenizer, blocks and losses."""
    server.folder = tmp_path / "served"
    (server.folder / "texts").mkdir(parents=True)
    glosses = pq.read_table(wordnet_glosses() / "test.parquet", columns=["text"]).slice(0, 1500)
    for place in range(2):
        own = glosses.slice(place * 750, 750)
        if kind == "parquet":
            pq.write_table(own, server.folder / "texts" / f"{place}.parquet")
        else:
            lines = "".join(f"{text}\n" for text in own.column("text").to_pylist())
            content = gzip.compress(lines.encode()) if kind == "txt.gz" else lines.encode()
            (server.folder / "texts" / f"{place}.{kind}").write_bytes(content)
    server.start("--short", "2")
    flags = words("--train.updates 3 --train.log-every 1 --train.save-every 3 --train.eval-every 0")
    flags = (*SMALL, *flags, *words("--train.batch-size 8 --model.modality.vocab-size 400"))
    for data, run in ((server.folder / "texts", "local"), (f"{server.url}/texts/{{0,1}}.{kind}", "remote")):
        assert run_here(["pretrain", "text_tiny", data, "--out", tmp_path / run, *flags]) == 0
    assert_same_run(tmp_path / "remote", tmp_path / "local", 3)
    assert accounts(tmp_path / "remote") == accounts(tmp_path / "local")


def test_the_commands_of_the_page(server: Server, tmp_path: Path) -> None:
    """docs/remote.md, with the server of the test for the one that it names."""
    make_pictures(tmp_path / "pictures")
    paths = sorted((tmp_path / "pictures").rglob("*.jpg"))
    server.folder = tmp_path / "served"
    for shard in range(3):
        members = [(f"{path.parent.name}-{path.name}", path.read_bytes()) for path in paths[shard::3]]
        as_tar(server.folder / "shards" / f"{shard:03}.tar", members)
    server.start()
    for language, text in blocks("docs/remote.md"):
        lines = text.replace("https://example.org", server.url)
        if language == "bash":
            lines = "\n".join(f"{line} --train.updates 6 --train.processes 1" for line in lines.splitlines())
            command = ["bash", "-euo", "pipefail", "-c", lines]
        else:
            command = [sys.executable, "-c", lines]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert {run.name for run in (tmp_path / "runs").iterdir()} == {"remote", "mixed", "joined"}
    said = json.loads((tmp_path / "runs" / "mixed" / "data.json").read_text())["choices"]
    assert any("pictures: 70.0% of a pass" in one for one in said)


def test_other_verbs(server: Server, untrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.start()
    url = pattern(server, "tar")
    assert run_here(["embed", untrained, url, "--out", tmp_path / "features.parquet", "--device", "cpu"]) == 0
    assert pq.read_table(tmp_path / "features.parquet").num_rows == 3 * (COUNT - 1)
    assert run_here(["inspect", url, "--as", "image"]) == 0
    assert "WebDataset tars: 120 train, 4 classes" in capfd.readouterr().out
    assert run_here(["evaluate", untrained, url, "--device", "cpu"]) == 0
    assert "random initialisation" in capfd.readouterr().out
    more = words("--train.updates 2 --train.batch-size 8 --train.device cpu --train.processes 1 --data.max-bad 0.2")
    assert run_here(["finetune", "classify", untrained, url, "--out", tmp_path / "tuned", *more, "--val", url]) == 0
    about = json.loads((tmp_path / "tuned" / "environment.json").read_text())
    assert about["data_path"] == url
