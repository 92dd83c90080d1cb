"""stdout and stderr that fail: a full disk behind `> log`, a closed pipe, a terminal that is gone.

stdout of train       the run goes on without its page; said once, on stderr
stdout of all others  OutputError, which `main` makes one line, or for a pipe that is closed a quiet end
stderr                nobody is left to tell: what goes there is dropped
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast


class OutputError(Exception):
    """stdout takes nothing more; `__cause__` is the OSError, on which some libraries would end the process."""


class _Watched:
    """A text stream. Once it has failed it leads nowhere, so that nothing of it fails again, the exit included."""

    def __init__(self, stream: TextIO, fail: Callable[[OSError], None]) -> None:
        self._stream, self.fail = stream, fail

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lead_nowhere(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lead_nowhere(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lead_nowhere(self, error: OSError) -> None:
        with suppress(OSError, ValueError):  # a stream without a file, in a notebook
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self.fail(error)


@contextmanager
def watched_output() -> Iterator[None]:
    """Watch both streams. A stream that was closed before the start is as one that leads nowhere."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Watched(before[0] or _nowhere(), _end))
    sys.stderr = cast(TextIO, _Watched(before[1] or _nowhere(), lambda _: None))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def go_on_without_output() -> None:
    """From here on a stdout that fails ends nothing; that is said once."""
    stdout, stderr = sys.stdout, sys.stderr  # a bar of rich puts others in their place
    if not isinstance(stdout, _Watched):
        return

    def say(error: OSError) -> None:
        stdout.fail = lambda _: None  # a stream without a file, which leads nowhere, fails again
        why = error.strerror or error
        print(
            f"What this run prints cannot be written any more ({why}). It goes on; its folder tells the rest.",
            file=stderr,
        )

    stdout.fail = say


def reason(error: OutputError) -> str | None:
    """Why it failed, in words; None where the reader went away, as `head` does when it has enough."""
    cause = error.__cause__
    return None if isinstance(cause, BrokenPipeError) else getattr(cause, "strerror", None) or str(cause)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _end(error: OSError) -> None:
    raise OutputError from error
