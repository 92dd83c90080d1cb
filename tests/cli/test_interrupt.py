"""Real signals to a real training process, at the moments that differ."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
import warm

from phinetune.cli.interrupt import Interrupt
from phinetune.events import Finished, MirrorAwaited, RolledBack, Saved, Started

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def _words(sheet, base, out, *flags) -> list[str]:
    words = ["train", str(sheet), "--model", str(base), "--out", str(out), "--epochs", "900", "--patience", "0"]
    return [*words, *flags]


def _training(*what) -> closing[warm.Process]:
    return closing(warm.Process("phinetune", *_words(*what)))


def _read_until(process, words: str) -> str:
    """What it printed, up to a line with these words."""
    text = ""
    while words not in text:
        line = process.stdout.readline()
        assert line, text
        text += line
    return text


@BOTH
def test_while_the_model_is_loaded_it_leaves_at_once_and_says_so(toy_base, toy_sheet, tmp_path, number):
    with _training(toy_sheet, toy_base, tmp_path / "run") as process:
        _read_until(process, "Loading")
        process.send_signal(number)
        out = process.finish(timeout=60)
    assert process.returncode == 130, out
    assert "Stopped before training began." in out
    assert "Traceback" not in out
    assert not (tmp_path / "run").exists()


@BOTH
def test_while_training_it_finishes_the_step_saves_and_says_how_to_go_on(toy_base, toy_sheet, tmp_path, number):
    with _training(toy_sheet, toy_base, tmp_path) as process:
        _read_until(process, "step ")
        process.send_signal(number)
        out = process.finish(timeout=60)
    assert process.returncode == 130, out
    assert "Finishing this step, then saving." in out
    assert "--resume" in out
    steps = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("checkpoints/checkpoint-*"))
    assert f"Stopped after step {steps[-1]}." in out
    assert "Traceback" not in out
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.rglob(".*"))


@BOTH
def test_a_second_one_leaves_at_once_and_names_the_checkpoint_that_is_safe(toy_base, toy_sheet, tmp_path, number):
    with _training(toy_sheet, toy_base, tmp_path, "--batch-size", "27", "--grad-accum", "40") as process:
        _read_until(process, "Before training")  # a step of many pairs: there is time for a second signal within it
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("checkpoints/checkpoint-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _read_until(process, "Finishing this step")
        process.send_signal(number)
        out = process.finish(timeout=60)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    # The first may have been done with in the meantime: then the second met the writing of the results.
    assert "Stopped at once, without saving." in out or "Stopped before everything was written." in out
    assert "is safe. The same command with --resume" in out


def test_a_background_job_that_ignores_ctrl_c_goes_on_ignoring_it(toy_base, toy_sheet, tmp_path):
    """Started as any command is, from nothing: what is ignored is handed down."""
    command = [sys.executable, "-u", "-m", "phinetune", *_words(toy_sheet, toy_base, tmp_path)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        _read_until(process, "step ")
        process.send_signal(signal.SIGINT)
        _read_until(process, "step ")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert out.count("Finishing this step") == 1


STARTED = Started(
    step=0, total_steps=9, steps_per_epoch=9, examples_per_step=4, warmup_steps=1, train_tokens_per_epoch=9
)


def _finished(stopped) -> Finished:
    return Finished(
        step=6, epochs=1.0, stopped=stopped, kept_step=6, best_step=6, best_eval_loss=1.0, seconds=1.0, tokens=9
    )


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([Saved(6, "", False), RolledBack(8, 3, 0.5, 1.0)], "without saving. checkpoint-3 is safe."),
        ([Saved(6, "", False), RolledBack(8, 0, 0.5, 1.0)], "without saving."),
        ([Saved(6, "", False), _finished("finished"), MirrorAwaited("copy")], "complete; the run itself is done."),
        ([Saved(6, "", False), _finished("interrupted"), MirrorAwaited("copy")], "complete. checkpoint-6 is safe."),
    ],
)
def test_leaving_at_once_says_what_is_true_at_that_moment(events, says):
    said = []
    with pytest.raises(SystemExit), Interrupt(said.append) as interrupt:
        for event in (STARTED, *events):
            interrupt.watch(event)
        raise KeyboardInterrupt
    assert says in said[-1]
    assert ("is safe" in said[-1]) == ("is safe" in says)
