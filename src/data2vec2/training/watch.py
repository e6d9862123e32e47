"""Processes of a run tell each other what they do, so that one that stalls or dies is named, and nobody waits for it.

A thread in each has a connection of its own to process 0: computing, waiting and reading do not hold it up.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from data2vec2.files import parse_json

BEAT_S = 2.0
"""Seconds between two words."""
REPORT_S = 60.0
"""Seconds of silence, or of waiting for data, after which that is said."""
GRACE_S = 10.0
"""Seconds in which a process may leave by itself when another has gone."""
DATA = "waiting for data"


@dataclass
class Peer:
    """Another process, as it was heard last."""

    connection: socket.socket
    rank: int = -1
    where: str = "?"
    doing: str = "starting"
    waited_s: float = 0.0
    """How long it has been waiting for data."""
    heard: float = 0.0
    ended: bool = False
    """Whether it said so."""
    rest: bytes = b""

    @property
    def name(self) -> str:
        """For the user."""
        return f"process {self.rank} ({self.where})"


class Watch:
    """What this process does, for the others; and what is the matter with them, for whoever looks at its log."""

    def __init__(
        self, rank: int, say: Callable[[str], object], give_up: Callable[[str], object], limit_s: float
    ) -> None:
        """`say` writes to the log; `give_up` ends the process when something has lasted for `limit_s` seconds."""
        self.rank, self.say, self.give_up, self.limit_s = rank, say, give_up, limit_s
        self.where = f"{socket.gethostname()}, process ID {os.getpid()}"
        self.reason = ""
        """Why the run can't go on, if a process has gone."""
        self.word = ""
        """Why this process is about to leave, if not for the usual reason."""
        self._doing, self._since = "starting", time.monotonic()
        self._missing, self._children = 0, list[subprocess.Popen[bytes]]()
        self._peers: list[Peer] = []
        self._said: set[str] = set()
        self._gone_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def listen(self, host: str) -> int:
        """Let the others connect to this machine's address (empty: any); returns the port."""
        listener = self._listener = socket.create_server((host, 0))
        self._selector.register(listener, selectors.EVENT_READ)
        return int(listener.getsockname()[1])

    def expect(self, count: int, children: list[subprocess.Popen[bytes]]) -> None:
        """So many others will connect; of them these were started here."""
        self._missing, self._children = count, children

    def connect(self, host: str, port: int) -> None:
        """To process 0."""
        peer = Peer(socket.create_connection((host, port), timeout=60), heard=time.monotonic())
        self._add(peer)

    def start(self) -> None:
        """Begin to look and to tell."""
        self._thread.start()

    def at(self, doing: str) -> None:
        """Remember that this process begins to do something else."""
        self._doing, self._since = doing, time.monotonic()

    def end(self, word: str = "") -> None:
        """Stop looking; the others hear why."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * BEAT_S)
        for peer in self._peers:
            self._tell(peer, {"rank": self.rank, "end": self.word or word})
            peer.connection.close()
        if self._listener:
            self._listener.close()

    def wait_for_reason(self) -> str:
        """Why the run can't go on, as soon as that is known."""
        until = time.monotonic() + GRACE_S
        while not self.reason and time.monotonic() < until:
            time.sleep(0.05)
        return self.reason or "another process has ended"

    def _add(self, peer: Peer) -> None:
        peer.connection.setblocking(False)
        self._peers.append(peer)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    def _run(self) -> None:
        told = 0.0
        while not self._ended.is_set():
            for key, _ in self._selector.select(timeout=BEAT_S / 4) if self._selector.get_map() else ():
                if key.data is None:
                    assert self._listener
                    self._add(Peer(self._listener.accept()[0], heard=time.monotonic()))
                    self._missing -= 1
                else:
                    self._hear(key.data)
            if not self._selector.get_map():
                self._ended.wait(BEAT_S / 4)
            if time.monotonic() - told > BEAT_S:
                told = time.monotonic()
                waited_s = told - self._since if self._doing == DATA else 0.0
                mine = {"rank": self.rank, "where": self.where, "doing": self._doing, "waited_s": waited_s}
                for peer in self._peers:
                    self._tell(peer, mine)
                self._look(told, waited_s)

    def _tell(self, peer: Peer, word: dict[str, Any]) -> None:
        with suppress(OSError):  # it has gone, which reading shows; or it has stopped reading
            peer.connection.send(json.dumps(word).encode() + b"\n")

    def _hear(self, peer: Peer) -> None:
        try:
            new = peer.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            new = b""
        *lines, peer.rest = (peer.rest + new).split(b"\n")
        for line in lines:
            word = parse_json(line)
            if "end" in word:
                peer.ended = True
                if word["end"]:
                    self.reason = self.reason or (
                        f"{peer.name} has ended: {word['end']}" if not self.rank else word["end"]
                    )
            else:
                peer.rank, peer.where, peer.doing, peer.waited_s = (
                    word[k] for k in ("rank", "where", "doing", "waited_s")
                )
            peer.heard = time.monotonic()
        if not new:
            self._selector.unregister(peer.connection)
            self._peers.remove(peer)
            if not peer.ended:
                self.reason = self.reason or f"{peer.name} has ended without a word (killed, or out of memory?)"
            if self.reason or self.rank:
                self._gone_at = time.monotonic()

    def _look(self, now: float, waited_s: float) -> None:
        found = [(waited_s, "", f"{DATA}{_readers()}")] if waited_s else []
        if self._missing > 0:
            found.append((now - self._since, "the run", f"waits for {self._missing} of its processes to start"))
        for rank, child in enumerate(self._children, 1):  # one that is connected says more, or is missed by the others
            if not self._gone_at and child.poll() not in (None, 0, os.EX_TEMPFAIL):
                self.reason = self.reason or f"process {rank} has ended ({_ending(child.returncode)})"
                self._gone_at = now
        for peer in self._peers:
            silent_s = now - peer.heard
            if silent_s > 3 * BEAT_S:
                found.append((silent_s, peer.name, f"has not been heard of; before, it was {peer.doing}"))
            elif peer.waited_s and not self.rank:
                found.append((peer.waited_s, peer.name, f"is {DATA}"))
        current = set()
        for seconds, who, what in found:
            if seconds > REPORT_S:
                current.add(who)
                if who not in self._said:
                    self.say(
                        f"{who} {what}".strip() + f", for {seconds:.0f} s now; the run ends after {self.limit_s:.0f} s"
                    )
            if seconds > self.limit_s:
                self.give_up(f"{who} {what}".strip() + f" for {seconds:.0f} s")
        for who in self._said - current:
            self.say(f"{who or 'reading'} goes on")
        self._said = current
        if self._gone_at and now - self._gone_at > GRACE_S:
            self.give_up(self.reason)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def end_with(parent: int) -> None:
    """Let this process end when its parent has, and it has not done so by itself: it may not be connected yet."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(2 * GRACE_S)
        print("data2vec2: the process that has started this one is gone", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()


def _readers() -> str:
    """The reader processes of this one that are not well."""
    states = {"T": "is stopped", "Z": "has ended", "D": "waits for a disk or network"}
    found = []
    for child in active_children():
        with suppress(OSError, IndexError):
            state = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in states:
                found.append(f"process ID {child.pid} {states[state]}")
    return f" (of its readers {', '.join(found)})" if found else ""
