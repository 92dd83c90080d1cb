"""Base and tuned model side by side, on a run that has learned its pairs."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace

import pytest
import python_calamine
import toys
import xlsxwriter
from PIL import Image

import phinetune
from phinetune.artifacts.comparison import read_comparison
from phinetune.cli import main
from phinetune.errors import RunError, SettingsError, SheetError
from phinetune.run_folder import RunFolder
from phinetune.sheet.kept import kept_pairs
from phinetune.use.agreement import mean_loss


@pytest.fixture(scope="module")
def run(toy_run, tmp_path_factory):
    """A copy: a comparison writes into the run folder."""
    root = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(toy_run.folder.root, root)
    return replace(toy_run, folder=RunFolder(root))


@pytest.fixture(scope="module")
def compared(run):
    return phinetune.compare(run, max_new_tokens=40)


def test_losses_are_those_of_training(compared, run):
    assert (compared.questions, len(compared.pairs)) == ("held out in training", 3)
    loss, f1 = compared.scores["loss"], compared.scores["f1"]
    assert loss.tuned.mean == pytest.approx(run.eval_loss, rel=1e-2)  # here in bf16
    assert loss.base.mean == pytest.approx(run.first_eval_loss, rel=1e-2)  # here in bf16
    assert loss.difference.mean == pytest.approx(loss.tuned.mean - loss.base.mean)
    assert f1.tuned.mean > f1.base.mean
    assert compared.perplexity["tuned"] == pytest.approx(math.exp(loss.tuned.mean))
    assert 0 <= f1.tuned.low <= f1.tuned.mean <= f1.tuned.high <= 1


def test_both_models_say_what_they_say_alone(compared, run):
    tuned = phinetune.open_model(run)
    for pair in compared.pairs:
        for side, base in ((pair.base, True), (pair.tuned, False)):
            assert side.answer == tuned.ask(pair.question, base=base, greedy=True, max_new_tokens=40)
    with tuned.model.disable_adapter():
        [example] = tuned.encoder.examples([toys.Pair(compared.pairs[0].question, compared.pairs[0].expected)])
        assert compared.pairs[0].base.loss == pytest.approx(mean_loss(tuned.model, [example]), rel=1e-2)  # here in bf16


def test_it_tells_how_answers_end_and_what_tuning_cost(compared):
    assert compared.tuned.stopped_by_itself > compared.base.stopped_by_itself
    ends = compared.base.cut_at_the_longest + compared.base.stopped_by_itself + compared.base.ran_into_next_question
    assert ends == pytest.approx(1)
    text = compared.general_text
    assert text.count == 14
    assert text.difference.low < text.tuned.mean - text.base.mean < text.difference.high
    assert compared.seen.loss < compared.scores["loss"].base.mean
    assert any("stops by itself" in sentence for sentence in compared.verdict())
    assert any("general text" in sentence for sentence in compared.verdict())


def test_three_questions_fool_nobody(compared):
    assert compared.scores["f1"].p_value > 0.05
    assert "No sure difference" in compared.verdict()[0]
    assert "too few" in compared.verdict()[0]
    assert "confidence" not in compared.verdict()[0]
    assert not any("trained on the overlap" in said for said in compared.verdict())


def test_more_training_questions_are_asked_than_were_held_out_when_those_are_few(compared, run):
    assert compared.seen.count == len(kept_pairs(run.folder.pairs).train) > len(compared.pairs)


def test_many_questions_of_a_sheet_are_enough(run, toy_sheet):
    found = phinetune.compare(run, toy_sheet, limit=20, max_new_tokens=40, judge_by="exact")
    assert (found.questions, len(found.pairs)) == (toy_sheet.name, 20)
    assert found.scores["right"].tuned.mean == found.scores["exact"].tuned.mean > 0.5
    assert found.verdict()[0].startswith(f"{found.in_training} of 20 questions were in training")
    assert "answers better" in found.verdict()[1]
    again = phinetune.compare(run, toy_sheet, limit=20, max_new_tokens=40, judge_by="exact")
    assert again.to_json() == found.to_json()


def _column(path, title):
    rows = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_name("Answers").to_python()
    return [row[rows[0].index(title)] for row in rows[1:]]


def test_new_questions_of_a_sheet_are_set_beside_those_of_the_training(run, toy_sheet, compared, tmp_path):
    new = [(f"Who rings bell {number}?", "Nobody.") for number in range(12)]
    sheet = toys.write_sheet(tmp_path / "test.xlsx", [*new, *toys.PAIRS])
    asked = []
    found = phinetune.compare(
        run, sheet, max_new_tokens=2, on_progress=lambda name, done, total: asked.append((name, total))
    )
    assert (found.in_training, found.unseen.count) == (0, 18)
    assert max(total for _, total in asked) == found.seen.count == 27
    [sentence] = [sentence for sentence in found.verdict() if "trained on the overlap" in sentence]
    assert f"the loss {found.seen.loss:.2f}, on 18 new ones" in sentence
    assert found.seen.loss < found.unseen.loss
    # Those that were in training are no new ones.
    mixed = phinetune.compare(run, toy_sheet, max_new_tokens=2)
    assert (mixed.in_training, mixed.unseen.count) == (27, 3)
    assert mixed.unseen.loss == pytest.approx(compared.unseen.loss, rel=1e-2)
    assert not any("trained on the overlap" in sentence for sentence in mixed.verdict())
    few = phinetune.compare(run, sheet, limit=5, max_new_tokens=2)
    assert few.seen.count == 5


def test_answers_without_a_number_are_no_wrong_ones_to_the_numeric_judge(run, tmp_path):
    sheet = toys.write_sheet(tmp_path / "test.xlsx", toys.PAIRS)
    found = phinetune.compare(run, sheet, judge_by="numeric", max_new_tokens=20)
    assert [pair.expected for pair in found.pairs if pair.tuned.right is not None] == [
        "There are 417 steps.",
        "The ferry leaves at 6:45.",
    ]
    assert "4 of 6 questions could not be judged, as no number stands" in found.verdict()[1]
    words = toys.write_sheet(tmp_path / "words.xlsx", toys.PAIRS[4:])
    with pytest.raises(SettingsError, match="No expected answer holds a number"):
        phinetune.compare(run, words, judge_by="numeric")


def test_answers_without_a_verdict_are_counted_and_left_out(run, monkeypatch):
    verdicts = iter([True, None, False, None, None, True, *[None] * 50])  # base, tuned, and what it was trained on
    monkeypatch.setattr("phinetune.api.compare.judge", lambda *_: lambda *_: next(verdicts))
    found = phinetune.compare(run, max_new_tokens=20)
    assert [pair.base.right for pair in found.pairs] == [1, None, 0]
    assert [pair.tuned.right for pair in found.pairs] == [None, None, 1]
    assert (found.scores["right"].base.mean, found.scores["right"].tuned.mean) == (0, 1)
    assert (found.seen.judged, found.seen.right) == (0, None)
    assert "Of 1 answers" in found.verdict()[1]
    assert "3 of 6 answers of both models were not judged" in found.verdict()[1]
    assert "2 questions are left out" in found.verdict()[1]
    assert sorted(map(str, _column(run.folder.answers_xlsx, "Right"))) == ["", "", "1.0"]
    monkeypatch.setattr("phinetune.api.compare.judge", lambda *_: lambda *_: None)
    with pytest.raises(RunError, match="no verdict on any"):
        phinetune.compare(run, max_new_tokens=20)


@pytest.fixture(scope="module")
def told_run(toy_base, tmp_path_factory):
    """A run that was told which columns to take, as their names say nothing."""
    place = tmp_path_factory.mktemp("told")
    pairs = [(f"{question} ({i})", answer) for i, (question, answer) in enumerate(toys.PAIRS * 4)]
    sheet = _write(place / "odd.csv", pairs)
    return phinetune.train(sheet, model=str(toy_base), out=place / "run", question="C", answer="E", epochs=1)


def _write(path, pairs):
    """Columns whose names say nothing, with texts in all of them."""
    rows = [("Alpha", "Beta", "Gamma", "Delta", "Epsilon")]
    rows += [("some text", "some more", question, "and more", answer) for question, answer in pairs]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_sheet_is_read_as_in_training_unless_told_otherwise(told_run, tmp_path):
    odd = _write(tmp_path / "test.csv", [("Who rings the bell?", "Nobody."), ("", "Nothing."), *toys.PAIRS[:3]])
    found = phinetune.compare(told_run, odd, max_new_tokens=2)
    assert found.pairs[0].question == "Who rings the bell?"
    assert found.pairs[0].expected == "Nobody."
    assert 'from the column "Gamma" of test.csv, expected answers from "Epsilon"' in " ".join(found.verdict())
    assert any("answer without a question" in note for note in found.notes)
    assert not any("a model learns a subject" in note for note in found.notes)
    other = phinetune.compare(told_run, odd, question="Beta", answer="gamma", max_new_tokens=2)
    assert (other.pairs[0].question, other.pairs[0].expected) == ("some more", "Who rings the bell?")
    with pytest.raises(SheetError, match="no column"):
        phinetune.compare(told_run, odd, question="Omega")
    usual = toys.write_sheet(tmp_path / "usual.xlsx", toys.PAIRS)
    assert phinetune.compare(told_run, usual, max_new_tokens=2).pairs[0].question == toys.PAIRS[0][0]


def test_columns_that_were_guessed_are_told(run, tmp_path):
    found = phinetune.compare(run, _write(tmp_path / "test.csv", toys.PAIRS), max_new_tokens=2)
    assert any("not named question and answer" in note for note in found.verdict())


def test_one_sheet_of_a_workbook_is_asked(told_run, tmp_path):
    with xlsxwriter.Workbook(tmp_path / "test.xlsx") as book:
        for name, pairs in (("Old", toys.PAIRS[:1]), ("New", toys.PAIRS[:3])):
            page = book.add_worksheet(name)
            for row, pair in enumerate([("C", "E"), *pairs]):
                page.write_row(row, 0, pair)
    for named in ({"question": "C", "answer": "E"}, {}):  # the columns, as in training, are those of that sheet too
        found = phinetune.compare(told_run, tmp_path / "test.xlsx", sheet_name="New", max_new_tokens=2, **named)
        assert len(found.pairs) == 3
        assert 'sheet "New"' in " ".join(found.notes)
    with pytest.raises(SettingsError, match="no file that has it"):
        phinetune.compare(told_run, sheet_name="New")


def test_questions_that_were_in_training_are_told(run, toy_sheet, compared, tmp_path):
    found = phinetune.compare(run, toy_sheet, max_new_tokens=2)
    assert found.verdict()[0].startswith(f"{30 - 3} of 30 questions were in training")
    some = replace(found, in_training=14)
    assert "in training" not in some.verdict()[0]
    assert any("14 of 30 questions were in training" in said for said in some.verdict())
    held_out = [(pair.question.upper(), pair.expected) for pair in compared.pairs]
    sheet = toys.write_sheet(tmp_path / "held_out.xlsx", held_out)
    for found in (compared, phinetune.compare(run, sheet, max_new_tokens=2)):
        assert not any("were in training" in said for said in found.verdict())


def test_damaged_settings_of_a_run_are_named(told_run, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(told_run.folder.root, folder.root)
    sheet = _write(tmp_path / "test.csv", toys.PAIRS)
    for damage in ("{", '{"settings": []}', '{"settings": {"data": {"question": 5, "answer": null}}}'):
        folder.config_json.write_text(damage)
        with pytest.raises(RunError, match="are damaged"):
            phinetune.compare(folder.root, sheet)
    folder.config_json.unlink()
    assert phinetune.compare(folder.root, sheet, question="C", answer="E", max_new_tokens=2).notes


def test_the_tuned_model_alone_is_asked_what_it_was_trained_on(run):
    asked = []
    phinetune.compare(run, max_new_tokens=2, on_progress=lambda name, done, total: asked.append((name, done, total)))
    assert [name for name, done, total in asked if done == total] == [
        "base",
        "tuned",
        "tuned, on what it was trained on",
    ]


def test_workbook_picture_and_record_are_written(run, tmp_path):
    sheet = toys.write_sheet(tmp_path / "test.xlsx", [("=1+1 is what?", "=2+2"), *toys.PAIRS])
    found = phinetune.compare(run, sheet, max_new_tokens=20)
    visuals = run.folder.visuals
    assert read_comparison(run.folder) == json.loads(json.dumps(found.to_json()))
    book = python_calamine.CalamineWorkbook.from_path(visuals / "comparison.xlsx")
    assert book.sheet_names == ["Answers", "Summary"]
    rows = book.get_sheet_by_name("Answers").to_python()
    assert rows[0][:4] == ["Question", "Expected", "Base model", "Tuned model"]
    f1 = _column(visuals / "comparison.xlsx", "F1")
    assert f1 == sorted(f1)  # the worst first
    assert ("=1+1 is what?", "=2+2") in [tuple(row[:2]) for row in rows]  # text: a formula would read as its result
    with Image.open(visuals / "comparison.png") as picture:
        assert picture.width > 1500


def test_the_report_shows_a_comparison_at_once(run, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(run.folder.root, folder.root)
    for record in (folder.answers_json, folder.report_html):
        record.unlink()
    found = phinetune.compare(folder.root, max_new_tokens=2)
    assert found.report == folder.report_html
    assert "Furthest from what you expect" in folder.report_html.read_text()
    folder.metrics_json.write_text("{}")
    found = phinetune.compare(folder.root, max_new_tokens=2)
    assert found.report is None
    assert any("was not made again" in note and "damaged" in note for note in found.verdict())
    folder.metrics_json.unlink()
    found = phinetune.compare(folder.root, max_new_tokens=2)
    assert found.report is None
    assert not found.notes


def test_a_damaged_record_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    assert read_comparison(folder) is None
    folder.visuals.mkdir()
    folder.answers_json.write_text('{"scores": {}}')
    with pytest.raises(RunError, match="is damaged"):
        read_comparison(folder)


def test_what_cannot_be_compared_is_a_clear_error(run, tmp_path):
    with pytest.raises(SettingsError, match="no judge"):
        phinetune.compare(run, judge_by="coin")
    with pytest.raises(SettingsError, match="no file that has it"):
        phinetune.compare(run, answer="C")
    with pytest.raises(RunError, match="no folder"):
        phinetune.compare(tmp_path / "none")


def test_a_judge_that_is_not_used_is_no_silent_wish(run, capsys):
    for flags in (("--judge-url", "http://localhost:1/v1"), ("--judge-model", "llama3.1")):
        with pytest.raises(SystemExit) as done:
            main(["compare", str(run.folder.root), *flags])
        assert done.value.code
        assert "--judge llm-endpoint" in capsys.readouterr().err


def test_the_command_prints_a_page_or_json(run, capsys):
    for flags in ((), ("--json",)):
        with pytest.raises(SystemExit) as done:
            main(["compare", str(run.folder.root), "--max-new-tokens", "20", *flags])
        assert not done.value.code
    page, _, told = capsys.readouterr().out.partition("\n{")
    assert "shared words (F1)" in page
    assert "comparison.xlsx" in page
    assert "report.html" in page.replace("\n", "")
    assert "too few questions to say how sure this is" in page
    assert "p = " not in page
    told = json.loads("{" + told)
    assert told["count"] == 3
    assert {"difference", "p_value"} <= told["scores"]["f1"].keys()
