"""What a column holds, judged by its first rows: text to learn from, or ids, numbers, dates, links and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from phinetune.sheet.clean import clean
from phinetune.sheet.table import Row

_SAMPLE_ROWS = 200
_TEXT_SHARE = 0.6
# A column with so few different values is a label, such as a category.
_LABEL_SHARE = 0.5
_LABEL_ROWS = 8

_LOOKED_AT = 300  # characters: no number, date or id is longer, and of a link this much is one too

_NOT_TEXT = re.compile(
    r"[-+(]?(?=\D*\d)[\d.,' %€$£)]+"  # numbers, amounts
    r"|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[ T].*)?|\d{1,2}:\d{2}.*"  # dates, times
    r"|[A-Za-z]{0,8}[-_#/]?\d[\w-]*|[0-9a-fA-F-]{16,}"  # ids
    r"|(?:https?://|www\.)\S+|[^\s@]+@[^\s@]+\.[^\s@]+"  # links, addresses
    r"|TRUE|FALSE"
)


@dataclass(frozen=True)
class Content:
    filled: int
    is_text: bool
    is_label: bool
    length: float
    """Median length in characters."""


def judge(rows: Sequence[Row], column: int) -> Content:
    """The content of one column below its header."""
    cells = [row.cell(column) for row in rows[:_SAMPLE_ROWS]]
    texts = [text for text in (clean(cell) for cell in cells if isinstance(cell, str)) if text]
    written = sum(is_text(text) for text in texts)
    return Content(
        filled=len(texts),
        is_text=bool(texts) and written >= _TEXT_SHARE * len(texts),
        is_label=len(texts) >= _LABEL_ROWS and len(set(texts)) <= _LABEL_SHARE * len(texts),
        length=median(map(len, texts)) if texts else 0.0,
    )


def is_text(text: str) -> bool:
    return _NOT_TEXT.fullmatch(text[:_LOOKED_AT]) is None
