"""A web server of a folder that answers ranges, in a process of its own, which can be told to behave badly.

`python -m tests.integration.ranges FOLDER PORT [--short N] [--fail N] [--whole] [--stall N]`: every N-th answer to a
range is cut short (by turns with a length that says so and with one that does not), or an error 500; ranges are not
heeded; the N-th answer stops in the middle for good.
"""

from __future__ import annotations

import argparse
import itertools
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = itertools.count(1)

    def __init__(self, how: argparse.Namespace, *args: object) -> None:
        self.how = how
        super().__init__(*args, directory=how.folder)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        asked, path = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")), self.translate_path(self.path)
        if not asked or not Path(path).is_file() or self.how.whole:
            super().do_GET()
            return
        number, content = next(self.count), Path(path).read_bytes()
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(content))
        body = content[start:stop]
        if self.how.fail and number % self.how.fail == 0:
            self.send_error(500, "as asked")
            return
        short = self.how.short and number % self.how.short == 0
        honest = short and number // self.how.short % 2 == 0
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body) // 2 if honest else len(body)))
        self.end_headers()
        stall = number == self.how.stall
        self.wfile.write(body[: len(body) // 2] if short or stall else body)
        self.wfile.flush()
        if stall:
            print("stalled", flush=True)
            time.sleep(3600)
        if short and not honest:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        print(self.command, self.path, self.headers.get("Range", ""), flush=True)


class Server:
    """That process."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.folder, self.log, self.process = folder, log, None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, *how: str) -> Server:
        command = [sys.executable, "-m", "tests.integration.ranges", str(self.folder), str(self.port), *how]
        with self.log.open("ab") as log:
            self.process: subprocess.Popen[bytes] | None = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    @property
    def asked(self) -> list[str]:
        """The ranges that it was asked for."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("GET") and "bytes=" in line]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    for option in ("--short", "--fail", "--stall"):
        parser.add_argument(option, type=int, default=0)
    parser.add_argument("--whole", action="store_true")
    how = parser.parse_args()
    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(("127.0.0.1", how.port), partial(Handler, how))
    server.serve_forever()


if __name__ == "__main__":
    main()
