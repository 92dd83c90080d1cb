"""How much a sheet may hold, so that looking through it takes about 10 s and less than 1 GB on an ordinary machine.

Measured on a slow and busy one (26 November 2026): 0.08 ms of computing for a row of 300 plain letters, up to twice as
much for letters beyond ASCII, and more where every row is at fault.
"""

from __future__ import annotations

from phinetune.errors import SheetError

MOST_ROWS = 120_000  # that hold something
MOST_PAIR_BYTES = 32_000_000  # of questions and answers in UTF-8: 100,000 pairs of 320 plain letters
MOST_TEXT_BYTES = 64 << 20  # of a text file, whatever is in it
MOST_CELLS = 10_000_000  # of a table, the empty ones too
MOST_CONTAINERS = 3_000_000  # lists and records in JSON, which take 50 times the room that they are written in


def refuse_many_rows(count: int, file: str) -> None:
    if count > MOST_ROWS:
        raise too_much(file, f"it has more than {MOST_ROWS:,} rows")


def refuse_many_cells(count: int, file: str) -> None:
    if count > MOST_CELLS:
        raise too_much(file, f"it has more than {MOST_CELLS:,} cells")


def refuse_long_texts(size: int, file: str) -> None:
    if size > MOST_PAIR_BYTES:
        megabytes, most = size / 1e6, MOST_PAIR_BYTES / 1e6
        raise too_much(
            file, f"its questions and answers are {megabytes:,.1f} MB of text, and {most:,.0f} MB are the most"
        )


def too_much(file: str, size: str) -> SheetError:
    return SheetError(
        f"{file} is too large: {size}.",
        "Split it into several files, or use its first pairs alone: --limit 10000, say.",
    )


def too_large(file: str, size: str) -> SheetError:
    """Of what is too large to be opened at all."""
    return SheetError(f"{file} is too large: {size}.", "Keep the questions and answers only, and save it again.")
