"""What was found in a sheet -> whether to train on it, in plain words.

490 pairs, nothing found            ->  ready: "Ready to train: 490 pairs, and nothing …"
60 pairs                            ->  few:   "Too few to learn a subject from: 60 pairs …"
490 pairs, 100 of them conflicting  ->  mend:  "Mend the sheet first: …"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from phinetune.sheet.findings import counted
from phinetune.sheet.table import SheetWarning

FEW_PAIRS = 100  # the least that a model learns a subject from
IDEAL_PAIRS = 500
FAR_TOO_FEW_PAIRS = 10

# What a model learns wrongly from, or not at all: when more than this share of the rows is so, the sheet comes first.
# The other findings are for a person to judge.
_HARMFUL = {
    "questions_too_long": (0.0, "questions that leave no room for an answer"),  # training refuses them
    "conflicting_answers": (0.1, "different answers to one question"),
    "answer_is_question": (0.1, "answers that repeat the question"),
    "mojibake": (0.1, "garbled letters"),
    "html": (0.1, "HTML left over"),
    "answers_cut": (0.1, "answers that are cut"),
    "repeated_answers": (0.5, "one answer to many questions"),
    "error_cells": (0.1, "error values"),
    "unstored_questions": (0.1, "formulas without a result"),
    "unstored_answers": (0.1, "formulas without a result"),
    "placeholders": (0.1, "placeholders"),
    "questions_without_answer": (0.1, "questions without an answer"),
}
# Of the file, not of what is in its pairs.
_HARMLESS = frozenset({"several_sheets", "unused_sheets", "empty_rows", "similar_columns"})


class Level(StrEnum):
    READY = "ready"
    LOOK = "look"
    FEW = "few"
    MEND = "mend"


@dataclass(frozen=True)
class Verdict:
    level: Level
    text: str


def give_verdict(pairs: int, skipped: int, warnings: Sequence[SheetWarning]) -> Verdict:
    """Whether a sheet with so many pairs, rows that are none, and these findings is worth training on."""
    rows = pairs + skipped
    have = counted(pairs, "pair")
    harmful = [
        f"{what} ({counted(len(warning.rows), 'row')})"
        for warning in warnings
        if warning.code in _HARMFUL
        for share, what in [_HARMFUL[warning.code]]
        if len(warning.rows) > share * rows
    ]
    if harmful:
        return Verdict(Level.MEND, f"Mend the sheet first: {have}, but {', '.join(harmful)}.")
    if pairs < FEW_PAIRS:
        return Verdict(Level.FEW, f"Too few: {have}. {FEW_PAIRS} are the least to learn from, {IDEAL_PAIRS} are ideal.")
    enough = "plenty" if pairs >= IDEAL_PAIRS else f"enough; {IDEAL_PAIRS} are ideal"
    if told := [warning for warning in warnings if warning.code not in _HARMLESS]:
        notes = counted(len(told), "note")
        return Verdict(Level.LOOK, f"Good to train on ({have}: {enough}), once you have looked at the {notes} below.")
    return Verdict(Level.READY, f"Ready to train: {have} ({enough}), and nothing found that needs mending.")


def warn_of_few(pairs: int) -> list[SheetWarning]:
    """Too few pairs to learn from."""
    if pairs >= FEW_PAIRS:
        return []
    there = "There is only 1 pair" if pairs == 1 else f"There are only {pairs} pairs"
    if pairs < FAR_TOO_FEW_PAIRS:
        message = f"{there}, far too few to learn from: expect it to learn them by heart at best."
    else:
        message = f"{there}; a model learns a subject from {FEW_PAIRS} or more, and {IDEAL_PAIRS} are ideal."
    return [SheetWarning("few_pairs", message)]
