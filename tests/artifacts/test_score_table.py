"""The lines that terminal and report show: every score, and no surer than the questions allow."""

from __future__ import annotations

import math

from phinetune.artifacts.score_table import is_too_few, score_table
from toy_comparison import comparison


def test_every_score_has_a_line_and_the_perplexity_is_that_of_the_loss():
    found = comparison(40)
    table = found.score_table()
    assert (len(table.rows), table.has_intervals, table.note) == (7, True, None)
    right, *_, loss, perplexity = table.rows
    assert (right.name, right.base, right.tuned) == ("right (by contains)", "0.000", "0.500")
    assert right.difference.startswith("+0.500 (+0.")
    assert all(row.by_chance == "p < 0.001" for row in table.rows[:1] + table.rows[2:6])
    mean = found.scores["loss"].tuned.mean
    assert (loss.tuned, perplexity.tuned) == (f"{mean:.3f}", f"{math.exp(mean):.1f}")
    assert perplexity.difference == perplexity.by_chance == ""


def test_too_few_questions_have_neither_interval_nor_test():
    table = comparison(7).score_table()
    assert not table.has_intervals
    assert "too few questions" in table.note
    assert not any("(" in row.difference or row.by_chance for row in table.rows)


def test_too_few_verdicts_take_the_interval_of_the_right_ones_alone():
    right, *others = (table := comparison(40, judged=4).score_table()).rows
    assert (right.difference, right.by_chance) == ("+0.500", "")
    assert all("(" in row.difference for row in others[:-1])
    assert table.has_intervals
    assert "too few were judged" in table.note


def test_a_comparison_of_an_earlier_version_still_has_its_table():
    scores = comparison(40).to_json()["scores"]
    for score in scores.values():
        del score["too_few"], score["count"]
    assert score_table(scores, "exact").rows[0].name == "right (by exact)"
    assert not is_too_few(scores["f1"])
