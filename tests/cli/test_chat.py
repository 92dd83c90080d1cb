"""The chat: questions and wishes on standard input, answers on standard output."""

from __future__ import annotations

import io
import json
import sys

import pytest
import toys

import phinetune
from phinetune.cli import main
from phinetune.cli.terminal import shown


def _chat(monkeypatch, capsys, model, *lines: str, flags: tuple[str, ...] = ()) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    with pytest.raises(SystemExit) as done:
        main(["chat", str(model), "--greedy", "--max-new-tokens", "20", *flags])
    assert not done.value.code
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def tuned(toy_run):
    return phinetune.open_model(toy_run)


def test_it_answers_as_ask_does_and_switches_between_base_and_tuned(toy_run, tuned, monkeypatch, capsys):
    question = toys.PAIRS[0][0]
    answer, base = (tuned.ask(question, base=b, greedy=True, max_new_tokens=20) for b in (False, True))
    out = _chat(monkeypatch, capsys, toy_run.folder.root, question, "/base", question, "/both", question)
    seen = shown(base)  # a terminal must not obey it
    assert out == f"{answer}\n{seen}\nbase: {seen}\ntuned: {answer}\n"


def test_scripts_get_a_json_object_a_line(toy_run, tuned, monkeypatch, capsys):
    question = toys.PAIRS[0][0]
    out = _chat(monkeypatch, capsys, toy_run.folder.root, "/both", question, flags=("--json",))
    base, answer = map(json.loads, out.splitlines())
    assert answer == {
        "question": question,
        "answer": tuned.ask(question, greedy=True, max_new_tokens=20),
        "model": "tuned",
    }
    assert (base["model"], base["question"]) == ("base", question)


def test_unknown_wishes_are_explained_and_quit_ends(toy_run, monkeypatch, capsys):
    out = _chat(monkeypatch, capsys, toy_run.folder.root, "/shout", "", "/vary", "/quit", "never asked")
    assert "There is no /shout" in out
    assert "Answers vary." in out
    assert len(out.splitlines()) <= 4


def test_a_gguf_file_chats_and_has_no_base(toy_run, tmp_path, monkeypatch, capsys):
    [file] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=["q8_0"])
    out = _chat(monkeypatch, capsys, file.path, "/base", toys.PAIRS[0][0])
    assert "no base model in it" in out
    assert len(out.splitlines()) == 2


def test_earlier_questions_go_along_when_asked_to(toy_run, tuned, monkeypatch, capsys):
    first, second = toys.PAIRS[0][0], toys.PAIRS[1][0]
    answer = tuned.ask(first, greedy=True, max_new_tokens=20)
    after = "".join(tuned.stream(second, greedy=True, max_new_tokens=20, history=[(first, answer)]))
    alone = tuned.ask(second, greedy=True, max_new_tokens=20)
    lines = ("/remember", first, second, "/reset", second)
    out = _chat(monkeypatch, capsys, toy_run.folder.root, *lines, flags=("--json",))
    said = [json.loads(line)["answer"] for line in out.splitlines() if line.startswith("{")]
    assert said == [answer, after, alone]


def test_what_was_not_remembered_is_not_said_to_be_forgotten(toy_run, monkeypatch, capsys):
    lines = ("Who?", "/reset", "/remember", "/reset", "Who?", "/reset")
    out = _chat(monkeypatch, capsys, toy_run.folder.root, *lines)
    assert out.count("There is nothing to forget.") == 2
    assert out.count("Forgotten.") == 1


def test_a_question_may_stand_behind_the_wish(toy_run, tuned, monkeypatch, capsys):
    question = toys.PAIRS[0][0]
    out = _chat(monkeypatch, capsys, toy_run.folder.root, f"/both {question}", question, flags=("--json",))
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["model"] for answer in answers] == ["base", "tuned", "base", "tuned"]
    assert {answer["question"] for answer in answers} == {question}


def test_an_empty_answer_is_said_to_be_one(toy_run, monkeypatch, capsys):
    monkeypatch.setattr(phinetune.TunedModel, "stream", lambda *_, **__: iter([""]))
    assert _chat(monkeypatch, capsys, toy_run.folder.root, "/both", "Who?") == "base: (no answer)\ntuned: (no answer)\n"
