"""`check` on large sheets, and near-duplicate questions beside what is usually done about them.

    pip install -c constraints.txt 'phinetune[bench]'
    python benchmarks/check_sheet.py [--rows 100000] [--runs 3]

The questions are made here: sentences in which three words of many stand, and for a tenth of them a near duplicate with
a typo, a "please", another article or its clause moved. Sentences that differ in one of the three words are not near
duplicates. The peer is RapidFuzz: every question with every other, alike at 90 of 100 by `token_sort_ratio`. Its work
grows with the square of the rows, so it gets the first 10,000.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench import publish
from rapidfuzz import fuzz, process, utils
from read_sheet import write_workbook

from phinetune.sheet import Pair
from phinetune.sheet.near_duplicates import near_duplicates

BIN = Path(sys.executable).parent
OPENINGS = ["How do I {} the {} of the {}", "Where can I {} the {} for my {}", "Why does the {} {} not fit the {}"]
STARTS, ENDS = "b d f g k l m n p r s t v z br st pl", "an el is or um ak et on ir ush"
PEER_ROWS = 10_000
PEER_LIKENESS = 90
Found = set[tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default=100_000, type=int)
    parser.add_argument("--runs", default=3, type=int)
    arguments = parser.parse_args()
    questions, planted = make_questions(arguments.rows)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (11_000, arguments.rows):
            path = write_workbook(Path(folder, f"{count}.xlsx"), count)
            command = [str(BIN / "phinetune"), "check", str(path)]
            seconds, _ = timed(partial(subprocess.run, command, check=True, capture_output=True), arguments.runs)
            rows.append([f"phinetune check, {count:,} rows, the whole command", f"{seconds:.2f}", "", ""])
    for count in (arguments.rows, PEER_ROWS):
        seconds, found = timed(partial(ours, questions[:count]), arguments.runs)
        rows.append([f"phinetune, {count:,} questions", f"{seconds:.2f}", *quality(found, planted, count)])
    seconds, found = timed(partial(peers, questions[:PEER_ROWS]), 1)
    rows.append([f"RapidFuzz, {PEER_ROWS:,} questions", f"{seconds:.2f}", *quality(found, planted, PEER_ROWS)])
    publish(
        "Checking a sheet, and near-duplicate questions",
        "python benchmarks/check_sheet.py",
        ["what", "seconds", "near duplicates found", "of what was found, right"],
        rows,
        "The near duplicates are planted after our own idea of one, so what was found of them tells that the quick way "
        "loses little, and no more. Of 40 natural rewordings written by hand it finds 36 where the answers are equal "
        "and 16 where they are not, and takes none of 40 look-alikes for the same "
        "(tests/sheet/test_near_duplicates.py); RapidFuzz finds 24, and takes 17.",
    )


def make_questions(rows: int) -> tuple[list[str], Found]:
    """Different questions, and the places of those that are near duplicates."""
    draw = random.Random(0)
    # About one in ten of these has another at one letter's distance, as of common English words.
    syllables = [start + end for start in STARTS.split() for end in ENDS.split()]
    words = sorted({"".join(draw.choices(syllables, k=3)) for _ in range(5_000)})
    made: dict[str, int] = {}
    planted: Found = set()
    while len(made) < rows:
        place = len(made)
        question = draw.choice(OPENINGS).format(*draw.choices(words, k=3)) + "?"
        again = vary(question, draw)
        if question in made or again in made:
            continue
        made[question] = place
        if draw.random() < 0.1:
            made[again] = place + 1
            planted.add((place, place + 1))
    return list(made), planted


def vary(question: str, draw: random.Random) -> str:
    """The same question as another person writes it."""
    words = question.split()
    kind = draw.randrange(4)
    if kind == 0:
        place = draw.randrange(len(words[-1]) - 3) + 1
        return f"{' '.join(words[:-1])} {words[-1][:place]}{words[-1][place + 1 :]}"
    if kind == 1:
        return question.replace(" the ", " a ").replace(" my ", " our ")
    if kind == 2 and " for my " in question:
        first, last = question[:-1].split(" for my ")
        return f"For my {last}, {first[0].lower()}{first[1:]}?"
    return f"{question[:-1]}, please?"


def ours(questions: list[str]) -> Found:
    groups = near_duplicates([Pair(question, str(place), place) for place, question in enumerate(questions)])
    return {(group[0], other) for group in groups for other in group[1:]}


def peers(questions: list[str]) -> Found:
    found = set()
    for start in range(0, len(questions), 1000):
        scores = process.cdist(
            questions[start : start + 1000],
            questions,
            scorer=fuzz.token_sort_ratio,
            processor=utils.default_process,
            score_cutoff=PEER_LIKENESS,
            dtype=np.uint8,
            workers=-1,
        )
        found |= {(int(one) + start, int(other)) for one, other in zip(*scores.nonzero(), strict=True)}
    return {(one, other) for one, other in found if one < other}


def quality(found: Found, planted: Found, count: int) -> list[str]:
    there = {pair for pair in planted if max(pair) < count}
    right = len(found & there)
    return [f"{right / len(there):.1%}", f"{right / max(1, len(found)):.1%}"]


def timed(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The median time, and what came of it."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


if __name__ == "__main__":
    main()
