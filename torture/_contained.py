"""Inputs that lie, tried one after the other in a process of their own: who crashes, hangs or swallows memory is seen.

    trial(number)         makes the input of that number, tries it, and says how it ended
    run("sheets", …)      a table row: what | tried | survived | seconds

The trials run in a worker with a limit on its memory, and are told one by one over a pipe: when the worker dies or is
silent for too long, the input it was at is the culprit, and a new worker goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST_MESSAGE = 5_000  # characters; who would read more
SILENCE = 10.0  # seconds of computing that one input may take
_IDLE = 6  # times as many by the clock: a worker that waits hangs too, one that shares its core with others does not
MEMORY = 1 << 30  # bytes beyond what the worker has before the first input
_UNSHOWABLE = {*range(32), 127, *range(0x80, 0xA0), *range(0x200E, 0x2010), *range(0x202A, 0x202F)} - {9, 10}
_UNSHOWABLE |= {*range(0x2066, 0x206A)}

Trial = Callable[[int], str]
"""The number of an input -> how it ended: "good" or "refused"; anything else, and any exception, is a failure."""


def command_line(*argv: str) -> str:
    """Run `phinetune …` in this process. "good" or "refused"; raises AssertionError when it breaks a promise."""
    from phinetune.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(argv))
            code = 0
        except SystemExit as ended:
            code = ended.code
    written = out.getvalue(), err.getvalue()
    assert code in (0, 1, None), f"exit code {code}"
    for text in written:
        text.encode("utf-8")
        shown = {ord(letter) for letter in text} & _UNSHOWABLE
        assert not shown, f"control characters reach the terminal: {sorted(map(hex, shown))}"
    if "--json" in argv:
        said = json.loads(written[0])
        assert (code == 1) == ("error" in said)
    if code == 1:
        words = said["error"] if "--json" in argv else written[1]
        assert words.strip(), "refused without a word"
        return "refused"
    return "good"


def arguments(description: str, count: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count, help="inputs to try")
    parser.add_argument("--seed", type=int, default=0, help="where the numbers of the inputs begin")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many seconds, 0 never")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    parser.add_argument("--one", type=int, help="try this one input here, with its traceback")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true", help="a tenth of them")
    parser.add_argument("--full", action="store_true", help="ten times as many")
    options = parser.parse_args()
    if options.short or options.full:
        options.count = count // 10 if options.short else 10 * count
    return options


def run(what: str, options: argparse.Namespace, trial: Trial, prepare: Callable[[], None] = lambda: None) -> None:
    """Try inputs seed, seed + 1, …; print the row; exit 1 when one failed."""
    if options.one is not None:
        prepare()
        print(trial(options.one))
        return
    if options.worker:
        _work(trial, prepare, *options.worker)
        return
    start = time.monotonic()
    outcomes: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    number, stop = options.seed, options.seed + options.count
    while number < stop and not (options.seconds and time.monotonic() - start > options.seconds):
        number = _watch(number, stop, options, start, outcomes, failures)
    tried = outcomes.total()
    handled = outcomes["good"] + outcomes["refused"]
    seconds = time.monotonic() - start
    print(dict(outcomes), file=sys.stderr)
    told = [f"{failure['input']}: {failure['outcome']} {failure.get('words', '')}".strip() for failure in failures]
    report(what, tried, handled, seconds, told, as_json=options.json)


def report(what: str, tried: int, survived: int, seconds: float, failures: list[str], *, as_json: bool) -> None:
    """Print the row as the other scripts here do, and exit: 1 when something failed or nothing was tried."""
    if as_json:
        row = {"what": what, "tried": tried, "survived": survived, "seconds": round(seconds, 1), "failures": failures}
        machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        print(json.dumps({"rows": [row], "machine": machine}, indent=1))
    else:
        print(f"| {what} | {tried:,} | {survived:,} | {seconds:,.0f} |", *failures, sep="\n")
    sys.exit(1 if failures or not tried else 0)


def _watch(
    first: int,
    stop: int,
    options: argparse.Namespace,
    start: float,
    outcomes: Counter[str],
    failures: list[dict[str, Any]],
) -> int:
    """Follow one worker until it is done or dead; the number of the input to go on with."""
    own = [sys.executable, *_own_arguments(), "--worker", str(first), str(stop)]
    folder = tempfile.TemporaryDirectory(prefix="torture-")
    process = subprocess.Popen(
        own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"TMPDIR": folder.name},
    )
    os.set_blocking(process.stderr.fileno(), False)
    at, pending, last_words = first, b"", b""
    patience = 60.0  # to begin with, for the imports
    heard, had_computed = time.monotonic(), None  # the second is asked for in the first second of silence
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 1.0)
            last_words = (last_words + (process.stderr.read() or b""))[-2000:]
            if not ready:
                computed = _computed(process.pid)
                had_computed = computed if had_computed is None else had_computed
                if computed - had_computed <= patience and time.monotonic() - heard <= _IDLE * patience:
                    continue
            chunk = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                if ready and process.wait() == 0:
                    return stop
                silence = time.monotonic() - heard
                told = f"died with {process.returncode}" if ready else f"silent for {silence:.0f} s"
                words = last_words.decode(errors="replace").strip()[-300:]
                outcomes["hang" if not ready else "crash"] += 1
                failures.append({"input": at, "outcome": told, "words": words})
                return at + 1
            patience, heard, had_computed = SILENCE, time.monotonic(), None
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                said = json.loads(line)
                at = said["input"]
                if "outcome" in said:
                    outcomes[said["outcome"]] += 1
                    if said["outcome"] not in ("good", "refused"):
                        failures.append(said)
                    at += 1
            if options.seconds and time.monotonic() - start > options.seconds:
                return at
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()
        folder.cleanup()


def _computed(group: int) -> float:
    """Seconds of computing of all processes of a group so far, those that ended and were waited for included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()  # from the third on: state, parent, group
            ticks += sum(map(int, fields[11:15])) if int(fields[2]) == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_arguments() -> list[str]:
    words = list(sys.argv)
    return [word for word in words if word not in ("--json", "--short", "--full")]


def _work(trial: Trial, prepare: Callable[[], None], first: int, stop: int) -> None:
    prepare()
    channel = os.fdopen(os.dup(1), "wb", buffering=0)

    def tell(**values: Any) -> None:
        channel.write(json.dumps(values).encode() + b"\n")

    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, has + MEMORY))
    for number in range(first, stop):
        tell(input=number)
        started = _own_computing()
        try:
            outcome, words = trial(number), ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "memory" if isinstance(error, MemoryError) else "leak"
            words = f"{type(error).__name__}: {error}"[:300] + " @ " + _last_places(error)
        took = _own_computing() - started
        if took > SILENCE:
            outcome, words = "slow", f"{took:.0f} s"
        tell(input=number, outcome=outcome, words=words)


def _own_computing() -> float:
    """Seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _last_places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
