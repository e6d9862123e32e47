"""A `data2vec2` and a `python` that start at once, because they are forked from a process that has imported all.

Importing takes seconds of processor time, and working through the documentation starts some eighty programs.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data2vec2.cli import main
from data2vec2.modalities import specs
from tests.pages import ROOT

OURS = "cli commands.convert commands.demo commands.export commands.sweep commands.tokenizer modalities.transformers"
OTHERS = """
torch._dynamo torch.onnx torch.utils.tensorboard transformers.pipelines transformers.trainer accelerate onnxruntime
onnxscript pandas sklearn.linear_model sklearn.manifold sklearn.neighbors
"""
CLIENT = """#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [asked.encode()], [0, 1, 2])
    sys.exit(int(server.recv(8) or b"1"))
"""


@contextmanager
def preloaded(bin: Path) -> Iterator[None]:
    """Put the two programs into the folder `bin`; they work as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        for name in ("data2vec2", "python"):
            bin.mkdir(exist_ok=True)
            (bin / name).write_text(CLIENT.format(python=sys.executable, path=str(path)))
            (bin / name).chmod(0o755)
        command = f"from {__name__} import serve; serve({str(path)!r})"
        server = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT)
        try:
            while not path.exists():
                assert server.poll() is None, "the server has ended"
                time.sleep(0.1)
            yield
        finally:
            server.kill()
            server.wait()


def serve(path: str) -> None:
    """Fork a process for every client."""
    ours = [*OURS.split(), *(f"modalities.{spec}.{name}" for spec in specs() for name in ("tools", "transformers"))]
    for name in [*(f"data2vec2.{name}" for name in ours), *OTHERS.split()]:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        Path(f"{path}.new").rename(path)
        while True:
            client, _ = listener.accept()
            asked, files, *_ = socket.recv_fds(client, 1 << 20, 3)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not os.fork():
                try:
                    for place, file in enumerate(files):
                        os.dup2(file, place)
                    client.send(str(started(asked)).encode())
                finally:  # not the end of an interpreter: what libraries do there waits for threads that a fork lacks
                    os._exit(1)
            client.close()
            for file in files:
                os.close(file)


def started(asked: bytes) -> int:
    """Do what a client asks for, as a new process would; returns the exit code."""
    sys.stdout = os.fdopen(1, "w", errors="surrogateescape")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    words, folder, environment = json.loads(asked)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = run(Path(words[0]).name, words[1:])
    sys.stdout.flush()
    return code


def run(program: str, words: list[str]) -> int:
    """Do what a program does; returns its exit code."""
    try:
        if program == "data2vec2":
            return main(words)
        sys.argv[:] = words
        if words[0] == "-c":
            exec(compile(words[1], "block", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
