from __future__ import annotations

import json

import pytest

from phinetune.cli import main
from phinetune.model.hardware import NAMES


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


def test_the_verdict_comes_first_then_parts_and_reasons(capsys, toy_base, toy_sheet):
    code, out, _ = _run(capsys, "plan", toy_sheet, "--model", toy_base, "--grad-accum", "1")
    assert code == 0
    assert out.startswith("Fits: needs about ")
    assert len(out.splitlines()) <= 15
    assert "Nothing to change" in out
    for part in ("Model", "Device", "Work", "Memory", "Time", "Disk"):
        assert f"\n{part} " in out, part
    code, whole, _ = _run(capsys, "plan", toy_sheet, "--model", toy_base, "--details")
    assert whole.startswith("Fits: needs about ")
    assert "How sure: within 11 % of the peak" in whole
    for part in ("weights", "optimizer", "activations", "together", "Steps", "gradient_checkpointing", "why"):
        assert part in whole, part
        assert f"\n{part} " not in out, part


def test_what_to_change_stands_above_the_figures(capsys, toy_sheet):
    code, out, _ = _run(capsys, "plan", toy_sheet, "--device", "t4", "--max-length", "24")
    assert code == 0
    assert -1 < out.index("--max-length") < out.index("\nModel ")


def test_what_does_not_fit_says_so_first(capsys, toy_sheet):
    code, out, _ = _run(capsys, "plan", toy_sheet, "--model", "mistralai/Mistral-7B-v0.1", "--device", "t4")
    assert code == 0
    assert out.startswith("Does not fit: needs about 16")
    assert "--model microsoft/phi-2" in out


def test_json_holds_the_whole_plan(capsys, toy_base, toy_sheet):
    code, out, _ = _run(capsys, "plan", toy_sheet, "--model", toy_base, "--device", "t4", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["fits"] is True
    assert plan["memory_basis"].startswith("an estimate")
    assert plan["seconds"] > 0
    assert sum(plan["memory"].values()) == plan["memory_total"]
    assert {"setting", "value", "flags", "reason"} == set(plan["advice"][0])


def test_measure_takes_real_steps(capsys, toy_base, toy_sheet):
    _, out, _ = _run(capsys, "plan", toy_sheet, "--model", toy_base, "--measure", "--json")
    assert "measured here" in json.loads(out)["time"]["basis"]


def test_errors_are_one_message_and_a_hint(capsys, toy_sheet):
    code, out, err = _run(capsys, "plan", toy_sheet, "--model", "somebody/unknown")
    assert (code, out) == (1, "")
    assert "--download-config" in err
    assert _run(capsys, "plan", toy_sheet, "--device", "abacus")[0] == 1


def test_what_recorded_graphs_hold_and_what_stands_around_the_steps_is_said(capsys, toy_sheet):
    _, out, _ = _run(capsys, "plan", toy_sheet, "--device", "h200")
    assert "more that the run keeps until it ends, for steps recorded as graphs" in " ".join(out.split())
    _, whole, _ = _run(capsys, "plan", toy_sheet, "--device", "h200", "--epochs", "50", "--details")
    said = " ".join(whole.split())
    for part in ("to begin", "for the steps", "checkpoints", "on a shared card no other program gets it"):
        assert part in said, part
    assert "three runs of Phi-2 on an H200 peaked 6 % below, 1 % below and 16 % above what they said" in said
    assert "none was measured" not in said
    assert "graphs" not in _run(capsys, "plan", toy_sheet, "--device", "t4")[1]
    plan = json.loads(_run(capsys, "plan", toy_sheet, "--device", "h200", "--json")[1])
    assert plan["memory_held"] > 0
    assert plan["seconds"] > plan["time"]["training"] + plan["time"]["checkpoints"]


def test_help_names_every_device_that_is_taken(capsys):
    _, out, _ = _run(capsys, "plan", "--help")
    assert len(NAMES) > 5
    assert all(name in out for name in NAMES)
