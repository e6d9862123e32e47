"""Processes that stall, go silent or end are named to those that wait for them; over real connections."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from data2vec2.training import watch
from data2vec2.training.watch import DATA, Watch

Heard = list[str]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BEAT_S", 0.05)
    monkeypatch.setattr(watch, "REPORT_S", 0.5)
    monkeypatch.setattr(watch, "GRACE_S", 0.3)


@pytest.fixture
def pair() -> Iterator[tuple[Watch, Heard, Watch, Heard]]:
    """Process 0 and a helper, and what each says; one that gives up says so."""
    said: tuple[Heard, Heard] = [], []
    first, second = (
        Watch(rank, said[rank].append, lambda why, to=said[rank]: to.append(f"ends: {why}"), 2) for rank in (0, 1)
    )
    port = first.listen("127.0.0.1")
    second.connect("127.0.0.1", port)
    first.start()
    second.start()
    yield first, said[0], second, said[1]
    second.end()
    first.end()


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_nobody_is_named_while_all_work(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    first, said, second, other = pair
    for update in range(10):
        first.at(f"at update {update}")
        second.at(DATA if update % 2 else f"at update {update}")
        time.sleep(0.1)
    assert said == other == []


def test_a_process_that_waits_for_data_says_so_and_process_0_too(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    _, said, second, other = pair
    second.at(DATA)
    soon(lambda: said and other)
    assert said[0].startswith("process 1 (") and f"is {DATA}, for " in said[0]
    assert other[0].startswith(DATA)
    second.at("at update 3")
    soon(lambda: len(said) == len(other) == 2)
    assert said[1].endswith("goes on") and other[1] == "reading goes on"


def test_a_run_that_waits_too_long_ends(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    first, said, *_ = pair
    first.at(DATA)
    soon(lambda: any(line.startswith(f"ends: {DATA}") for line in said))


def test_a_process_that_is_silent_is_named(
    pair: tuple[Watch, Heard, Watch, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, said, second, other = pair
    second.at("at update 7")
    soon(lambda: first._peers and first._peers[0].doing == "at update 7")
    second._ended.set()  # its thread stops, as if the process had been stopped
    soon(lambda: said)
    assert "has not been heard of; before, it was at update 7" in said[0]
    assert other == []


def test_one_that_ends_without_a_word_is_the_reason(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    first, said, second, _ = pair
    soon(lambda: first._peers and first._peers[0].where != "?")
    second._ended.set()
    second._peers[0].connection.close()
    assert "has ended without a word" in first.wait_for_reason()
    soon(lambda: said)  # it had its time to leave by itself
    assert said[0].startswith("ends: process 1 (")


def test_one_that_is_done_is_not(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    first, said, second, _ = pair
    second.end()
    time.sleep(1)
    assert said == [] and not first.reason


def test_the_end_of_process_0_is_told_in_its_words(pair: tuple[Watch, Heard, Watch, Heard]) -> None:
    first, _, second, other = pair
    first.end("no space left")
    assert second.wait_for_reason() == "no space left"
    soon(lambda: other)
    assert other == ["ends: no space left"]


def test_a_helper_without_a_run_ends() -> None:
    """Its run was killed before they were connected; it would wait for that for a day."""
    waiting = "watch.GRACE_S = 0.1; watch.end_with(1); time.sleep(60)"
    program = f"import time; from data2vec2.training import watch; {waiting}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (1, "data2vec2: the process that has started this one is gone\n")


@pytest.mark.parametrize("starts", [True, False])
def test_a_helper_that_never_comes_does_not_hold_the_run_up(starts: bool) -> None:
    """One that dies before it is connected is told by its end; one elsewhere that is not started, by the time."""
    said: Heard = []
    alone = Watch(0, said.append, lambda why: said.append(f"ends: {why}"), 2)
    alone.listen("127.0.0.1")
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with subprocess.Popen([sys.executable, "-c", program]) if starts else nullcontext() as child:
        alone.expect(1, [child] if child else [])
        alone.start()
        soon(lambda: any(line.startswith("ends: ") for line in said))
    alone.end()
    if starts:
        assert said[-1] == "ends: process 1 has ended (killed by SIGKILL)"
    else:
        assert said[0].startswith("the run waits for 1 of its processes to start, for ")
        assert said[1].startswith("ends: the run waits for 1 of its processes to start for ")
