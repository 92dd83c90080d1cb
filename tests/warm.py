"""Python processes that begin with everything imported: forked from one that did nothing but import.

One that starts from nothing imports torch, transformers and peft for some 5 s of processor time before it does anything
that a test is about. These are processes all the same, with their own signals, streams and exit codes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import runpy
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

HEAVY = [
    "matplotlib.backends.backend_agg",
    "peft",
    "transformers.models.auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.phi.modeling_phi",
    "phinetune.api.tuning",
    "phinetune.cli.train",
]


class Process:
    """`python -u FILE ARGUMENTS`, or `python -u -m MODULE ARGUMENTS`; both its streams are `stdout`. Needs fork."""

    def __init__(self, what: object, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(HEAVY)
        reader, writer = context.Pipe(duplex=False)
        words = [str(what), *map(str, arguments)]
        self._process = context.Process(target=_begin, args=(words, dict(os.environ), writer))
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def finish(self, timeout: float) -> str:
        """What it says from here to its end, which comes by force when it does not come in time."""
        watch = threading.Timer(timeout, self._process.kill)
        watch.start()
        try:
            said = self.stdout.read()
            self._process.join()
        finally:
            watch.cancel()
        return said

    def wait(self, timeout: float) -> None:
        self._process.join(timeout)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self.stdout.close()


def _begin(words: list[str], environment: dict[str, str], writer: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    writer.close()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)
        for number in (1, 2)
    )
    sys.argv = words
    if words[0].endswith(".py"):
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
