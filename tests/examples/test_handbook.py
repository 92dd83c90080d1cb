"""The example workbooks: what a new user sees first must be complete, fair and up to date."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from python_calamine import CalamineWorkbook

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def sheet_rows(path: Path, sheet: str) -> list[tuple[object, ...]]:
    book = CalamineWorkbook.from_path(path)
    assert book.sheet_names == [sheet]
    return [tuple(row) for row in book.get_sheet_by_name(sheet).to_python()]


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("handbook_build", EXAMPLES / "handbook" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def training() -> list[tuple[str, str]]:
    header, *rows = sheet_rows(EXAMPLES / "handbook.xlsx", "Handbook")
    assert header == ("Question", "Answer")
    return [(str(question), str(answer)) for question, answer in rows]


@pytest.fixture(scope="module")
def held_out() -> list[tuple[str, str, str]]:
    header, *rows = sheet_rows(EXAMPLES / "handbook_test.xlsx", "Held out")
    assert header == ("Question", "Answer", "Fact")
    return [(str(question), str(answer), str(fact)) for question, answer, fact in rows]


def test_98_answers_are_asked_5_times_each_and_held_out_once(training, held_out):
    wordings = defaultdict(list)
    for question, answer in training:
        wordings[answer].append(question)
    assert len(training) == 490
    assert len(held_out) == 98
    assert {len(questions) for questions in wordings.values()} == {5}
    assert sorted(wordings) == sorted(answer for _, answer, _ in held_out)


def test_each_fact_is_in_its_own_answer_alone(training, held_out):
    answers = [answer.casefold() for _, answer, _ in held_out]
    questions = [row[0].casefold() for row in [*training, *held_out]]
    facts = [fact.casefold() for _, _, fact in held_out]
    assert len(set(facts)) == 98
    for number, fact in enumerate(facts):
        assert [place for place, answer in enumerate(answers) if fact in answer] == [number]
        assert not [question for question in questions if fact in question]


def test_no_question_is_asked_twice(training, held_out):
    questions = [normal(row[0]) for row in [*training, *held_out]]
    assert len(set(questions)) == len(questions) == 588


def test_wordings_of_one_answer_do_not_stand_together(training):
    answers = [answer for _, answer in training]
    assert not [here for here, after in pairwise(answers) if here == after]


def test_workbooks_hold_what_the_facts_say_now(build, training, held_out):
    facts = build.read_facts()
    assert training == build.training_rows(facts)
    assert held_out == build.test_rows(facts)


def test_building_twice_gives_the_same_bytes(build, tmp_path):
    rows = build.test_rows(build.read_facts())
    paths = [tmp_path / "first.xlsx", tmp_path / "second.xlsx"]
    for path in paths:
        build.write_workbook(path, "Held out", {"Question": 60, "Answer": 60, "Fact": 20}, rows)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_text_that_looks_like_a_formula_stays_text(build, tmp_path):
    path = tmp_path / "formula.xlsx"
    build.write_workbook(path, "Sheet", {"Question": 20, "Answer": 20}, [("=1+1", "https://example.org")])
    assert sheet_rows(path, "Sheet")[1:] == [("=1+1", "https://example.org")]
