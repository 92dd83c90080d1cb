"""Output that fails: training goes on without it, all else ends in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import warm

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")


def _command(*arguments: object, unbuffered: bool = False) -> list[str]:
    return [sys.executable, *(["-u"] if unbuffered else []), "-m", "phinetune", *map(str, arguments)]


def _train(sheet, base, out) -> list[str]:
    return _command("train", sheet, "--model", base, "--out", out, "--epochs", 2, "--lr", 0.01, unbuffered=True)


@needs_full
def test_training_goes_on_without_its_page_on_a_full_disk_and_says_so_once(toy_base, toy_sheet, tmp_path):
    with FULL.open("w") as full:
        command = _train(toy_sheet, toy_base, tmp_path)
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("What this run prints cannot be written any more (No space left on device).")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "training_visuals" / "report.html").is_file()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forked, so that torch is not imported anew")
def test_training_goes_on_when_both_streams_are_closed_under_it(toy_base, toy_sheet, tmp_path):
    words = ["train", toy_sheet, "--model", toy_base, "--out", tmp_path, "--epochs", 2, "--lr", 0.01]
    with closing(warm.Process("phinetune", *words)) as process:
        while not (line := process.stdout.readline()).startswith("step "):
            assert line
        process.stdout.close()
        process.wait(timeout=120)
        assert process.returncode == 0
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_training_goes_on_when_its_terminal_is_gone(toy_base, toy_sheet, tmp_path):
    ours, theirs = os.openpty()
    process = subprocess.Popen(_train(toy_sheet, toy_base, tmp_path), stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"held-out loss" not in said:
        said += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


@needs_full
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain"], ["check", "SHEET"], ["check", "SHEET", "--json"]]
)
def test_the_other_commands_end_with_one_line(toy_sheet, arguments, unbuffered):
    command = _command(*(toy_sheet if word == "SHEET" else word for word in arguments), unbuffered=unbuffered)
    with FULL.open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: The output could not be written: No space left on device.\n"


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_enough_is_no_error_to_speak_of(unbuffered):
    process = subprocess.Popen(
        _command("explain", unbuffered=unbuffered), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_an_output_that_was_closed_before_is_none(toy_sheet):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *_command("check", toy_sheet)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_full
def test_an_error_that_cannot_be_shown_is_an_exit_code():
    with FULL.open("w") as full:
        done = subprocess.run(_command("check", "nowhere.xlsx"), stdout=full, stderr=full, check=False)
    assert done.returncode == 1
