"""`check` measures pairs in tokens, of the model where it is at hand, and says what training would cut or refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import phinetune
from phinetune.errors import ModelError, RunError, SettingsError
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.xlsx"


def write(path: Path, *pairs: tuple[str, str]) -> Path:
    path.write_text("question,answer\n" + "".join(f"{question},{answer}\n" for question, answer in pairs))
    return path


def test_a_clean_sheet_is_ready_and_nothing_is_found() -> None:
    report = phinetune.check(HANDBOOK)
    assert (report.verdict.level, report.warnings, report.skipped) == ("ready", (), ())
    account = json.loads(json.dumps(report.to_json()))
    assert account["findings"] == []
    assert account["lengths"]["estimated"] is True
    assert sum(bar["count"] for bar in account["lengths"]["answer"]["histogram"]) == account["pairs"] == 490


def test_an_answer_that_will_be_cut_is_estimated_and_told(tmp_path: Path) -> None:
    sheet = write(tmp_path / "s.csv", ("Who?", "We."), ("Why?", "so it goes " * 300))
    (cut,) = [warning for warning in phinetune.check(sheet).warnings if warning.code == "answers_cut"]
    assert cut.rows == (3,)
    assert "estimate" in cut.message
    assert not [w for w in phinetune.check(sheet, max_length=2000).warnings if w.code == "answers_cut"]


def test_counts_as_the_model_does_where_it_is_at_hand(tmp_path: Path, toy_base: Path) -> None:
    sheet = write(tmp_path / "s.csv", ("Who keeps it?", "We."), ("Why?", "so it goes on " * 20))
    report = phinetune.check(sheet, model=str(toy_base), max_length=40)
    encoder = Encoder(phinetune.api.load_tokenizer(str(toy_base)), PromptTemplate(), 40)
    examples = encoder.examples(report.pairs)
    assert report.lengths.counted_by == str(toy_base)
    assert report.lengths.question == tuple(example.prompt_length for example in examples)
    (cut,) = [warning for warning in report.warnings if warning.code == "answers_cut"]
    assert cut.rows == tuple(example.row for example in examples if example.was_cut) == (3,)
    assert "estimate" not in cut.message


def test_a_question_that_training_would_refuse_is_told(tmp_path: Path, toy_base: Path) -> None:
    sheet = write(tmp_path / "s.csv", ("Who?", "We."), ("why and why " * 50, "So."))
    report = phinetune.check(sheet, model=str(toy_base), max_length=60)
    assert report.verdict.level == "mend"
    assert [warning.rows for warning in report.warnings if warning.code == "questions_too_long"] == [(3,)]


def test_a_model_that_is_not_here_is_estimated_and_told_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    report = phinetune.check(HANDBOOK, model="nobody/has-this-model")
    assert report.lengths.counted_by is None
    assert [warning.code for warning in report.warnings] == ["estimated_tokens"]
    for wrong in ("./nowhere.gguf", "no name/of a model"):
        with pytest.raises(ModelError):
            phinetune.check(HANDBOOK, model=wrong)


def test_loads_no_torch_without_a_model_at_hand() -> None:
    code = (
        "import sys, phinetune\n"
        f"phinetune.check({str(HANDBOOK)!r})\n"
        f"phinetune.check({str(HANDBOOK)!r}, model='nobody/has-this-model')\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_settings_and_places_are_looked_at_first(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        phinetune.check(HANDBOOK, max_length=1)
    with pytest.raises(RunError, match="the sheet itself"):
        phinetune.check(HANDBOOK, fix=HANDBOOK)
    report = phinetune.check(HANDBOOK, fix=tmp_path / "cleaned.xlsx")
    assert report.to_json()["fixed"] == str(tmp_path / "cleaned.xlsx")
    assert len(phinetune.check(tmp_path / "cleaned.xlsx").pairs) == 490


def test_what_is_shown_holds_no_personal_data(tmp_path: Path) -> None:
    report = phinetune.check(write(tmp_path / "s.csv", ("Who is jane@firm.org?", "Call +44 20 7946 0958.")))
    shown = json.dumps(report.to_json()) + report.example.question + report.example.answer
    assert "personal_data" in shown
    assert not any(secret in shown for secret in ("jane@", "firm.org", "7946"))
