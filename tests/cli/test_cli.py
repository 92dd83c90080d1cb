"""The commands as a person or a script runs them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import zipfile

import pytest
import toys
import xlsxwriter

import phinetune
from phinetune.cli import VERBS, main
from phinetune.errors import RunError


def _run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    code, out, _ = _run(capsys, verb, "--help")
    assert code == 0
    assert "Usage: phinetune " + verb in out
    assert "--json" in out


def test_version(capsys):
    assert _run(capsys, "--version")[1].startswith("phinetune 0.")


def test_a_sheet_that_is_not_there_is_said_before_torch_is_loaded(tmp_path):
    code = (
        "import sys\n"
        "from phinetune.cli import main\n"
        "try: main(['train', 'missing.xlsx', '--out', 'run'])\n"
        "except SystemExit as left: assert left.code == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "There is no file missing.xlsx" in done.stderr
    assert not (tmp_path / "run").exists()


def test_train_shows_the_run_and_what_to_type_next(capsys, toy_base, toy_sheet, tmp_path):
    code, out, _ = _run(capsys, "train", toy_sheet, "--model", toy_base, "--out", tmp_path, "--epochs", 2, "--lr", 0.01)
    assert code == 0
    for part in (
        "Pairs",
        "27 to learn from",
        "Adapter",
        "28,672 trainable",
        "Before training",
        "held-out loss",
        "Done",
    ):
        assert part in out, part
    typed = out.replace("\n", "")
    assert f"phinetune ask {tmp_path}" in typed
    assert f"phinetune compare {tmp_path}" in typed
    assert f"{tmp_path}/training_visuals/report.html" in typed
    assert "perplexity" not in out
    starts = {line.split()[0]: line for line in out.splitlines() if line.split()[:1] in (["Steps"], ["Device"])}
    assert all(line[:9].endswith("  ") and line[9] != " " for line in starts.values()), starts
    assert len(starts) == 2


def test_one_is_not_many(capsys, toy_base, toy_sheet, tmp_path):
    _, out, _ = _run(
        capsys, "train", toy_sheet, "--model", toy_base, "--out", tmp_path, "--limit", 12, "--epochs", 3,
        "--batch-size", 16, "--grad-accum", 1,
    )  # fmt: skip
    assert "3 epochs of 1 step, " in out


def test_train_json_prints_one_object_with_the_promised_keys(capsys, toy_base, toy_sheet, tmp_path):
    code, out, _ = _run(
        capsys, "train", toy_sheet, "--model", toy_base, "--out", tmp_path, "--epochs", 1, "--json", "--set", "lora.r=2"
    )
    result = json.loads(out)
    assert code == 0
    assert set(result) >= {
        "out", "steps", "epochs", "train_loss", "eval_loss", "best_step", "stopped", "seconds", "real_tokens_per_s",
        "peak_memory_gb", "trainable_parameters",
    }  # fmt: skip
    assert result["trainable_parameters"] == 28_672 // 8


def test_limit_trains_on_the_first_rows(capsys, toy_base, toy_sheet, tmp_path):
    _, out, _ = _run(capsys, "train", toy_sheet, "--model", toy_base, "--out", tmp_path, "--limit", 12, "--epochs", 1)
    assert "12: 11 to learn from, 1 held out" in out


def test_ask_answers_and_pack_packs(capsys, toy_run, tmp_path):
    root = toy_run.folder.root
    code, out, _ = _run(capsys, "ask", root, "Who keeps the lighthouse? (1)", "--greedy")
    assert (code, out.strip()) == (0, "Old Maren Tibb keeps the lighthouse.")
    code, out, _ = _run(capsys, "ask", root, "Who?", "--base", "--json", "--max-new-tokens", 3)
    assert json.loads(out)["model"] == "base"
    code, out, _ = _run(capsys, "pack", root, "--to", tmp_path / "it.zip", "--json")
    assert code == 0
    names = zipfile.ZipFile(json.loads(out)["file"]).namelist()
    assert "training_visuals/report.html" not in names
    _, out, _ = _run(capsys, "pack", root, "--to", tmp_path / "it.zip")
    assert "report.html" in out
    assert "base model" in out
    assert {name.partition("/")[0] for name in names} == {"model", "training_visuals"}


def test_ask_gives_the_same_answer_each_time_and_says_on_a_terminal_where_it_is_drawn(capsys, toy_run, monkeypatch):
    monkeypatch.setattr("phinetune.cli.ask.on_terminal", lambda: True)

    def ask(*flags: object) -> list[str]:
        asked = ("ask", toy_run.folder.root, "Who wrote the log?", "--base", "--max-new-tokens", 12)
        return _run(capsys, *asked, *flags)[1].splitlines()

    said = "Drawn by chance; --greedy gives the same answer every time."
    for drawn in (("--sample",), ("--temperature", 2)):
        assert ask(*drawn)[-1] == said
    likeliest = ask()
    for same in ((), ("--greedy",), ("--temperature", 0), ("--seed", 1)):
        assert ask(*same) == likeliest
    assert ask("--sample", "--seed", 1, "--temperature", 5) != likeliest
    assert not any("Drawn" in line for flags in (("--sample", "--seed", 1), ("--json",)) for line in ask(*flags))
    monkeypatch.undo()
    assert "Drawn" not in " ".join(ask("--sample"))


def test_check_shows_columns_pairs_and_what_was_skipped(capsys, tmp_path):
    sheet = tmp_path / "faq.csv"
    sheet.write_text("id,Question,Answer\n1,Who?,Me.\n2,When?,\n3,[red]Why?[/red],\x1b[31mNow\n")
    code, out, _ = _run(capsys, "check", sheet)
    assert code == 0
    assert out.startswith("Mend the sheet first: 2 pairs")
    assert "question = Question, answer = Answer (ignored: id)" in out
    assert "2, 1 row skipped" in out
    assert "Skipped 1 row with a question without an answer. (row 3)" in out
    assert out.rstrip().endswith(f"phinetune check {sheet} --fix cleaned.xlsx")
    assert "row 3: question without an answer" in _run(capsys, "check", sheet, "--details")[1]
    code, out, _ = _run(capsys, "check", sheet, "--json")
    report = json.loads(out)
    assert (report["pairs"], report["header_row"], report["skipped"]) == (
        2, 1, [{"row": 3, "reason": "question without an answer"}],
    )  # fmt: skip


def test_check_gives_a_verdict_lengths_and_a_cleaned_workbook(capsys, tmp_path):
    sheet, cleaned = tmp_path / "faq.csv", tmp_path / "cleaned.xlsx"
    sheet.write_text("Question,Answer\nWho?,Jane (jane@firm.org).\nwho,Tom.\nWhen?,TBD\n")
    code, out, _ = _run(capsys, "check", sheet, "--fix", cleaned)
    assert code == 0
    for part in ("Mend the sheet first", "Tokens", "answered in different ways", "Your sheet is untouched"):
        assert part in out, part
    assert "█" not in out
    assert out.rstrip().endswith(f"Next: phinetune train {cleaned}")
    details = _run(capsys, "check", sheet, "--details")[1]
    for part in ("estimated", "█", "The model will waver between them."):
        assert part in details, part
        assert part not in out, part
    assert "firm.org" not in out + details
    code, _, err = _run(capsys, "check", sheet, "--fix", cleaned)
    assert (code, "is not replaced" in err) == (1, True)
    cleaned.unlink()
    report = json.loads(_run(capsys, "check", sheet, "--fix", cleaned, "--json", "--max-length", 64)[1])
    assert report["verdict"]["level"] == "mend"
    assert report["lengths"]["max_length"] == 64
    assert {"sheet": None, "row": 4, "code": "placeholders", "finding": 'placeholder "TBD" as the answer',
            "done": "left out"} in report["findings"]  # fmt: skip
    assert cleaned.is_file()


def test_a_page_with_many_findings_is_one_screen_and_its_details_name_every_row(capsys, tmp_path):
    sheet = tmp_path / "faq.csv"
    good = "".join(
        f"What is the fee of town number {n} for a boat of kind {n * 7}?,It is {n} crowns.\n" for n in range(150)
    )
    odd = "".join(f"Where is harbour {n}?,<b>North</b> of <i>pier</i> {n}.\nWhen {n}?,TBD\n" for n in range(30))
    sheet.write_text(f"Question,Answer\n{good}{odd}")
    brief, whole = (_run(capsys, "check", sheet, *flags)[1] for flags in ((), ("--details",)))
    assert len(brief.splitlines()) <= 24
    assert "Skipped 30 rows" in brief
    assert "…)" in brief
    assert "…)" not in whole
    assert all(f"row {row}: " in whole for row in range(153, 212, 2))


def test_check_names_the_sheet_of_every_row(capsys, tmp_path):
    book = xlsxwriter.Workbook(tmp_path / "faq.xlsx")
    for name in ("Two", "One"):
        sheet = book.add_worksheet(name)
        rows = [(name, "North."), (name, "South."), ("Who?", ""), ("Mail?", "jane@firm.org"), (), ("", "So.")]
        for number, row in enumerate([("Question", "Answer"), *rows]):
            sheet.write_row(number, 0, row)
    book.close()
    brief = " ".join(_run(capsys, "check", tmp_path / "faq.xlsx")[1].split())
    assert "answered in different ways. (Two, rows 2, 3; One, rows 2, 3)" in brief
    assert "waver" not in brief
    shown = " ".join(_run(capsys, "check", tmp_path / "faq.xlsx", "--details")[1].split())
    assert "waver between them. (Two, rows 2, 3; One, rows 2, 3)" in shown
    for finding in ("passed over.", "without an answer.", "write it in every row.", "meant for everybody."):
        assert re.search(rf"{finding} \(Two, rows? [0-9, ]+; One, rows? [0-9, ]+\)", shown), finding
    assert "The first pair, Two, row 2" in shown
    warnings = json.loads(_run(capsys, "check", tmp_path / "faq.xlsx", "--json")[1])["warnings"]
    assert all(len(warning["sheets"]) == len(warning["rows"]) for warning in warnings)
    (empty,) = [warning for warning in warnings if warning["code"] == "empty_rows"]
    assert list(zip(empty["sheets"], empty["rows"], strict=True)) == [("Two", 6), ("One", 6)]


def test_text_of_a_sheet_is_shown_and_never_obeyed(capsys, tmp_path):
    sheet = tmp_path / "faq.csv"
    sheet.write_text("Question,Answer\n[red]Why?[/red],\x1b[31mNow\x07\n")
    _, out, _ = _run(capsys, "check", sheet)
    assert "[red]Why?[/red]" in out
    assert "\x1b[31m" not in out
    assert "\x07" not in out


def test_errors_are_one_message_a_hint_and_exit_code_1(capsys, tmp_path):
    code, out, err = _run(capsys, "check", tmp_path / "nowhere.xlsx")
    assert (code, out) == (1, "")
    assert "nowhere.xlsx" in err
    assert "Traceback" not in err
    code, out, _ = _run(capsys, "check", tmp_path / "nowhere.xlsx", "--json")
    assert code == 1
    assert set(json.loads(out)) == {"error", "hint"}
    assert _run(capsys, "ask", tmp_path, "Who?")[0] == 1
    assert _run(capsys, "train", toys.write_sheet(tmp_path / "s.xlsx"), "--epochs", "-1")[0] == 1


def test_an_unknown_option_is_a_usage_error(capsys):
    assert _run(capsys, "train", "x.xlsx", "--nonsense")[0] == 2


def test_a_usage_error_is_json_too_when_asked_for(capsys):
    code, out, err = _run(capsys, "train", "x.xlsx", "--epochs", "abc", "--json")
    assert (code, err) == (2, "")
    told = json.loads(out)
    assert set(told) == {"error", "hint"}
    assert "--epochs" in told["error"]
    code, out, _ = _run(capsys, "train", "--json", "--help")
    assert (code, "Usage" in out) == (0, True)


def test_serve_says_at_once_that_it_loads(capsys, monkeypatch):
    def fail(*_, **__):
        raise RunError("none here")

    monkeypatch.setattr(phinetune, "serve", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert _run(capsys, "serve", "my-run")[:2] == (1, "Loading my-run …\n")
    assert "Loading" not in _run(capsys, "serve", "my-run", "--json")[1]


@pytest.mark.parametrize(("without", "said"), [(1, "1 row has no"), (2, "2 rows have no")])
def test_answer_counts_the_rows_without_a_question(capsys, toy_run, tmp_path, without, said):
    sheet = tmp_path / "q.csv"
    sheet.write_text("id,Question\n1,Who?\n" + "2,\n" * without)
    _, out, _ = _run(
        capsys, "answer", toy_run.folder.root, "--sheet", sheet, "--to", tmp_path / "a.csv", "--max-new-tokens", 2
    )
    assert "Answered 1 question of" in out
    assert said in out
