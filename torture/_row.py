"""What a torture script reports: rows of one table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

HEADER = "| what | tried | survived | seconds |\n|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """`survived` of `tried` ended as they should; `failures` say of the others what was wrong."""

    what: str
    tried: int
    survived: int
    seconds: float
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"| {self.what} | {self.tried} | {self.survived} | {self.seconds:.0f} |"


def row_of(what: str, attempts: Iterator[str]) -> Row:
    """Make the attempts; each is "where: what was wrong", with nothing after the colon when it survived."""
    start = time.monotonic()
    results = list(attempts)
    failures = [result for result in results if not result.endswith(": ")]
    for failure in failures:
        print(failure, file=sys.stderr)
    return row_since(start, what, len(results), failures)


def row_since(start: float, what: str, tried: int, failures: Sequence[str]) -> Row:
    """The row of what began at `start` (of time.monotonic) and failed so often."""
    return Row(what, tried, tried - len(failures), time.monotonic() - start, tuple(failures))


def parser(description: str) -> argparse.ArgumentParser:
    """With the options that every script has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="print one JSON object: rows, machine")
    made.add_argument("--short", action="store_true", help="a few of each kind, in seconds")
    made.add_argument("--full", action="store_true", help="the embedded SmolLM2-135M instead of a toy model")
    return made


def report(rows: Iterable[Row], *, as_json: bool) -> int:
    """Print the rows; 0 when everything survived."""
    rows = list(rows)
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "machine": machine()}, indent=1))
    else:
        print(HEADER, *rows, sep="\n")
        for row in rows:
            for failure in row.failures:
                print(f"\n{row.what}: {failure}")
    return int(any(row.survived < row.tried for row in rows))


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
