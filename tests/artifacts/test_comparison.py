"""The workbook and the picture of a comparison, for many questions and for a handful."""

from __future__ import annotations

from dataclasses import replace

import pytest
import python_calamine

from phinetune.artifacts import comparison as artifact
from phinetune.run_folder import RunFolder
from toy_comparison import comparison, side


def _sheets(tmp_path, found):
    folder = RunFolder(tmp_path)
    folder.visuals.mkdir(exist_ok=True)
    artifact.write_comparison(folder, found.to_json())
    book = python_calamine.CalamineWorkbook.from_path(folder.answers_xlsx)
    return [book.get_sheet_by_name(name).to_python() for name in ("Answers", "Summary")]


def _summary(rows):
    """The lines below the heads, by their names."""
    heads = next(number for number, row in enumerate(rows) if "Base" in row)
    return {row[0]: row[1:] for row in rows[heads + 1 :]}


def test_every_score_of_both_models_has_a_column_the_important_ones_first(tmp_path):
    answers, _ = _sheets(tmp_path, comparison(12))
    heads = answers[0]
    assert heads[:8] == ["Question", "Expected", "Base model", "Tuned model", "Right", "Right, base", "F1", "F1, base"]
    for name in ("Right", "F1", "Loss", "Mark", "ROUGE-L", "chrF", "Ended"):
        assert heads[heads.index(name) + 1] == f"{name}, base"
    line = dict(zip(heads, answers[1], strict=True))
    pair = next(pair for pair in comparison(12).pairs if pair.row == line["Row"])
    for name, of in (("ROUGE-L", "rouge_l"), ("chrF", "chrf"), ("Right", "right"), ("Loss", "loss"), ("Ended", "end")):
        assert line[name] == getattr(pair.tuned, of)
        assert line[f"{name}, base"] == getattr(pair.base, of)


def test_empty_and_repeating_answers_are_marked_in_their_line(tmp_path):
    found = comparison(3)
    empty = side(0.0, 9.0, 0.0, answer="")
    circling = replace(side(0.1, 9.0, 0.0, answer="I do not know it. " * 4), in_circles=True)
    pairs = [
        replace(found.pairs[0], base=empty),
        replace(found.pairs[1], tuned=circling),
        replace(found.pairs[2], tuned=empty),
    ]
    answers, _ = _sheets(tmp_path, replace(found, pairs=pairs))
    marks = {line["Row"]: (line["Mark"], line["Mark, base"]) for line in _lines(answers)}
    assert marks == {2: ("", "empty"), 3: ("repeats itself", ""), 4: ("empty", "")}


def _lines(rows):
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_the_summary_has_intervals_and_perplexity(tmp_path):
    found = comparison(40)
    _, summary = _sheets(tmp_path, found)
    lines = _summary(summary)
    f1, loss = found.scores["f1"], found.scores["loss"]
    assert lines["shared words (F1)"][:3] == pytest.approx([f1.base.mean, f1.base.low, f1.base.high])
    assert lines["shared words (F1)"][9] == pytest.approx(f1.p_value)
    assert lines["loss, nats per token"][6] == pytest.approx(loss.difference.mean)
    perplexity = lines["perplexity (e^loss)"]
    assert (perplexity[0], perplexity[3]) == pytest.approx(tuple(found.perplexity.values()))
    assert perplexity[4] < perplexity[3] < perplexity[5]
    assert perplexity[6:] == [""] * 4


def test_the_summary_of_too_few_questions_has_the_means_alone_and_says_so(tmp_path):
    _, summary = _sheets(tmp_path, comparison(7))
    assert any("too few questions to say how sure" in str(row[0]) for row in summary)
    lines = _summary(summary)
    assert len(lines) == 7
    for name, figures in lines.items():
        shown = [at for at, figure in enumerate(figures) if figure != ""]
        assert shown == ([0, 3] if name.startswith("perplexity") else [0, 3, 6])


def _intervals_and_words(monkeypatch, found):
    """Of the left panel: how many interval lines there are, and all that is written."""
    drawn = []
    draw = artifact._draw_scores
    monkeypatch.setattr(artifact, "_draw_scores", lambda axes, record: (draw(axes, record), drawn.append(axes)))
    artifact._draw(found.to_json())
    words = " ".join(text.get_text() for text in drawn[0].findobj(lambda artist: hasattr(artist, "get_text")))
    return len(drawn[0].collections), words


def test_the_picture_draws_intervals_of_enough_questions_alone(monkeypatch):
    lines, words = _intervals_and_words(monkeypatch, comparison(40))
    assert lines == 10
    assert "95 % interval" in words
    lines, words = _intervals_and_words(monkeypatch, comparison(7))
    assert lines == 0
    assert "too few questions" in words
    assert "95 %" not in words
    lines, _ = _intervals_and_words(monkeypatch, comparison(40, judged=4))
    assert lines == 8
