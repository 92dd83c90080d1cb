"""`check()`: a sheet as training would see it, without a model."""

from __future__ import annotations

from pathlib import Path

from phinetune.sheet.pairs import PairTable, find_pairs


def check(
    sheet: str | Path,
    *,
    question: str | None = None,
    answer: str | None = None,
    sheet_name: str | None = None,
    limit: int | None = None,
) -> PairTable:
    """The question/answer pairs of a sheet, which columns they come from, and what was passed over.

    Raises SheetError when the file cannot be used.
    """
    return find_pairs(sheet, question=question, answer=answer, sheet=sheet_name, limit=limit)
