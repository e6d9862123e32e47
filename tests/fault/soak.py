"""Hours of trouble: `make soak MINUTES=30`.

Runs of all modalities in turn, of one and of two processes, on data with unreadable files and on a disk of their own.
Each is killed, interrupted, stopped for a while or robbed of its disk at random moments and resumed, until it is done;
then it has to be the same, bit for bit, as one that was left alone. Meanwhile one process trains from beginning to end;
its memory, open files and disk must not grow. Prints Markdown; exits with 1 where anything was otherwise.
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil
import torch

from tests.fault.conftest import fill, mounted
from tests.integration.helpers import SMALL, assert_same_run, jpeg_folder, last_step, words

UPDATES = 400
BUNDLED = Path(__file__).parents[2] / "src" / "data2vec2" / "data" / "bundled"
COMMON = (*SMALL, *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 40 --train.eval-every 100"))
FLAGS = {
    "image": ("image_tiny", "--train.batch-size", "16"),
    "audio": ("audio_mel_tiny", "--train.batch-size", "24"),
    "text": ("text_tiny", "--train.batch-size", "8", "--model.modality.vocab-size", "400"),
}
DISK = "400m"
GOES_ON = {os.EX_TEMPFAIL, 130, 143}
"""Exit codes of a run that was asked to stop; the last two before there is anything to resume."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    chance, until = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    machine = f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}"
    print(f"{given.minutes:g} minutes, seed {given.seed}, {machine}")
    print(
        "\n| run | processes | starts | what happened | updates repeated | result |\n|---|---|---|---|---|---|",
        flush=True,
    )
    data, steady, wrong, number = make_data(root / "data"), Steady(root / "steady", root / "data" / "image"), 0, 0
    steady.start()
    atexit.register(steady.kill)
    expected: dict[tuple[str, int], Path] = {}
    while time.monotonic() < until:
        kind, processes = list(data)[number % 3], 1 + number // 3 % 2
        words_of = command(kind, data[kind], processes)
        if (kind, processes) not in expected:
            expected[kind, processes] = left_alone(root / f"{kind}-{processes}", words_of)
        with mounted(root / f"disk-{number}", DISK) as disk:
            run = Disturbed(disk, words_of, chance)
            try:
                run.to_the_end()
                assert_same_run(run.folder, expected[kind, processes], UPDATES)
                result = "same bits"
            except AssertionError as error:
                wrong, result = wrong + 1, "**" + str(error).strip().replace("\n", "; ")[:500].replace("|", "/") + "**"
                shutil.copytree(run.folder, root / f"wrong-{number}", symlinks=True)
                (root / f"wrong-{number}.out").write_text(run.output)
            happened = ", ".join(f"{count} x {what}" for what, count in sorted(run.happened.items()))
            print(f"| {kind} | {processes} | {run.starts} | {happened} | {run.repeated} | {result} |", flush=True)
        number += 1
    wrong += steady.stop()
    print(
        f"\n{number} runs, {wrong} of them (or of the growths) wrong"
        + (f"; what is left is in {root}" if wrong else "")
    )
    if not wrong:
        shutil.rmtree(root)
    return min(wrong, 1)


def make_data(root: Path) -> dict[str, Path]:
    """A folder of each modality, with files among the others that can't be read."""
    pictures = jpeg_folder(root / "image", 200)
    whole = next(pictures.rglob("*.jpg")).read_bytes()
    (pictures / "class0" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (pictures / "class1" / "no.jpg").write_text("this is no picture")
    recordings = Path(shutil.copytree(BUNDLED / "english_prompts" / "train" / "prompts", root / "audio"))
    (recordings / "cut.ogg").write_bytes(next(recordings.glob("*.ogg")).read_bytes()[:200])
    (recordings / "empty.wav").touch()
    texts = root / "text"
    texts.mkdir()
    for page in sorted((Path(__file__).parents[2] / "docs").glob("*.md")):
        shutil.copy(page, texts / f"{page.stem}.txt")
    with (texts / "images.txt").open("ab") as file:
        file.write(b"a line of caf\xe9 in latin-1\n")
    return {"image": pictures, "audio": recordings, "text": texts}


def command(kind: str, data: Path, processes: int) -> list[str]:
    recipe, *flags = FLAGS[kind]
    flags += ["--train.processes", str(processes), "--data.max-bad", ".2", "--data.workers", "1"]
    return [sys.executable, "-m", "data2vec2", "pretrain", recipe, str(data), *COMMON, *flags]


def left_alone(folder: Path, words_of: Sequence[str]) -> Path:
    """A run that nothing happens to."""
    done = subprocess.run([*words_of, "--out", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@dataclass
class Disturbed:
    """A run that something happens to, again and again."""

    disk: Path
    words_of: Sequence[str]
    chance: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    repeated: int = 0
    output: str = ""

    @property
    def folder(self) -> Path:
        return self.disk / "run"

    def to_the_end(self) -> None:
        """Start it until it has ended by itself; `AssertionError` where it did not end as it should."""
        for _ in range(60):
            before = last_step(self.folder)
            resume = ["--resume"] if (self.folder / "config.yaml").exists() else []
            with tempfile.TemporaryFile("w+") as log:
                words_of = [*self.words_of, "--out", str(self.folder), *resume]
                process = psutil.Popen(words_of, stdout=log, stderr=log, start_new_session=True)
                self.starts += 1
                fine = {0} | (self.disturb(process) if self.starts % 12 else set())
                try:
                    code = process.wait(timeout=300)
                except psutil.TimeoutExpired:
                    code = "no end within five minutes"
                    os.killpg(process.pid, signal.SIGKILL)
                log.seek(0)
                said = log.read()
                self.output += f"--- start {self.starts}, exit {code}\n{said}"
            assert code in fine, f"exit {code}: {said[-800:]}"
            # PyTorch reports a dead reader from a signal handler; in a destructor Python prints that, and goes on.
            said = re.sub(r"Exception ignored in: .*\nTraceback", "", said)
            assert "Traceback" not in said, said[said.index("Traceback") - 200 :]
            if code == 0:
                return
            first = re.search(r"resuming from update ([\d,]+)", said)
            self.repeated += max(0, before - int(first.group(1).replace(",", ""))) if first else 0
        raise AssertionError("it came to no end in 60 starts")

    def disturb(self, process: psutil.Popen) -> set[int]:
        """Let it run for a while, then do something to it; the exit codes that it may have for that.

        A third of the moments are in the first seconds, the others at some update.
        """
        early = time.monotonic() + (self.chance.uniform(0, 10) if self.chance.random() < 1 / 3 else math.inf)
        update = self.chance.randint(last_step(self.folder), UPDATES)
        while process.poll() is None and time.monotonic() < early and last_step(self.folder) < update:
            time.sleep(0.02)
        if process.poll() is not None:
            return set()
        what = self.chance.choice(("kill -9", "kill -9 of a child", "SIGTERM", "SIGINT", "full disk", "SIGSTOP"))
        self.happened[what] += 1
        with suppress(psutil.NoSuchProcess):  # it has ended just now
            children = [
                one for one in process.children(recursive=True) if "resource_tracker" not in " ".join(one.cmdline())
            ]
            one = self.chance.choice([process, *children])
            if what == "kill -9":
                process.kill()
                return {-signal.SIGKILL}
            if what == "kill -9 of a child":
                self.chance.choice(children or [process]).kill()
                return {1, -signal.SIGKILL}
            if what in ("SIGTERM", "SIGINT"):
                time.sleep(max(0.0, 1 - (time.time() - process.create_time())))  # Python itself has to be there first
                process.send_signal(getattr(signal, what))
                return GOES_ON
            if what == "full disk":
                filler = fill(self.disk)
                time.sleep(self.chance.uniform(0.5, 6))
                filler.unlink()
                return {1}
            one.suspend()
            time.sleep(self.chance.uniform(0.5, 6))
            one.resume()
        return set()


class Steady(Thread):
    """One process that trains for as long as all this takes, and what it holds, every two seconds."""

    def __init__(self, folder: Path, data: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.ended, self.held = folder, Event(), list[tuple[float, int, float]]()
        flags = words("--train.log-every 10 --train.save-every 100 --train.eval-every 300 --train.updates 100000000")
        words_of = command("image", data, 1)
        with folder.with_suffix(".out").open("wb") as out:
            self.process = psutil.Popen([*words_of, *flags, "--out", str(folder)], stdout=out, stderr=out)

    def run(self) -> None:
        while not self.ended.wait(2) and self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                family = [self.process, *self.process.children(recursive=True)]
                memory = sum(one.memory_info().rss for one in family) / 2**20
                handles = sum(one.num_fds() for one in family)
                self.held.append((memory, handles, self.disk_mb()))

    def disk_mb(self) -> float:
        """Of all but the logs, which grow as they should."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder) / name for name in names):
                with suppress(OSError):  # checkpoints come and go
                    grows = path.suffix in (".log", ".jsonl") or "tfevents" in path.name
                    total += 0 if grows else path.stat().st_size
        return total / 2**20

    def kill(self) -> None:
        """End it at once."""
        with suppress(psutil.NoSuchProcess):
            self.process.kill()

    def stop(self) -> int:
        """End it, print what it held early and late; how many of these have grown."""
        self.ended.set()
        self.join()
        self.process.terminate()
        code, step = self.process.wait(), last_step(self.folder)
        settled = self.held[len(self.held) // 5 :]
        quarter = max(1, len(settled) // 4)
        print(f"\nThe steady run made {step:,} updates and {step // 100:,} checkpoints; SIGTERM ended it with {code}.")
        print("\n| it held (medians) | in the first quarter | in the last | at most |\n|---|---|---|---|")
        wrong = int(code != os.EX_TEMPFAIL)
        for name, column, spare in (("memory, MiB", 0, 30), ("open files", 1, 3), ("disk without logs, MiB", 2, 1)):
            values = [one[column] for one in settled]
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            print(f"| {name} | {first:,.1f} | {last:,.1f} | {max(values):,.1f} |")
            wrong += last > 1.05 * first + spare
        return wrong


if __name__ == "__main__":
    sys.exit(main())
