"""Disks that fill up, fail or forbid while a run trains: it goes on where it can, and says what is safe where not."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_runs import weights

import phinetune
from phinetune.errors import RunError
from phinetune.events import Saved, StepDone, Warned
from phinetune.run_folder import RunFolder

OPTIONS = {"epochs": 2, "lr": 1e-2, "batch_size": 2, "grad_accum": 2, "train.save_steps": 3, "train.eval_steps": 5}


def _train(sheet, base, out, **options):
    events = []
    run = phinetune.train(sheet, model=str(base), out=out, on_event=events.append, **OPTIONS | options)
    return run, events


@pytest.fixture(scope="module")
def whole(toy_base, toy_sheet, tmp_path_factory) -> bytes:
    root = tmp_path_factory.mktemp("whole")
    _train(toy_sheet, toy_base, root)
    return weights(root)


@pytest.fixture
def failing(monkeypatch):
    """Call with a predicate of a path's name and an error number: renaming to such a path then fails."""
    true_replace = os.replace
    broken = []

    def replace(source, target, **named):
        for matches, number in broken:
            if matches(Path(target).name):
                raise OSError(number, os.strerror(number))
        true_replace(source, target, **named)

    monkeypatch.setattr(os, "replace", replace)
    yield lambda matches, number=errno.ENOSPC: broken.append((matches, number))
    monkeypatch.undo()


def test_a_checkpoint_that_cannot_be_saved_is_a_warning_and_the_next_one_is_tried(
    toy_base, toy_sheet, tmp_path, failing, whole
):
    failing(lambda name: name == "checkpoint-6")
    _, events = _train(toy_sheet, toy_base, tmp_path)
    [said] = [e.message for e in events if isinstance(e, Warned) and e.code == "checkpoint_failed"]
    assert re.search(r"checkpoint-6 could not be written: No space left on device\. It takes about \d+ kB, and ", said)
    assert "until then checkpoint-5 is safe" in said
    assert [e.step for e in events if isinstance(e, Saved)] == [3, 5, 9, 10, 12, 14]
    assert weights(tmp_path) == whole


def test_leaving_without_a_checkpoint_is_an_error_that_says_what_is_safe(
    toy_base, toy_sheet, tmp_path, failing, whole, monkeypatch
):
    failing(lambda name: name == "checkpoint-7", errno.EROFS)
    steps = []

    def count(event):
        steps.extend([event.step] if isinstance(event, StepDone) else [])

    with pytest.raises(RunError, match="Stopped after step 7, which could not be saved: .*Read-only") as stopped:
        phinetune.train(
            toy_sheet,
            model=str(toy_base),
            out=tmp_path,
            on_event=count,
            stop_requested=lambda: len(steps) > 6,
            **OPTIONS,
        )
    assert "Checkpoint-6 is safe" in stopped.value.hint
    assert "--resume" in stopped.value.hint
    monkeypatch.undo()
    _train(toy_sheet, toy_base, tmp_path, resume=True)
    assert weights(tmp_path) == whole


@pytest.mark.parametrize(
    "name", ["training_metrics.csv", "training_metrics.json", "loss_comparison.png", "report.html"]
)
def test_a_picture_or_a_table_that_cannot_be_written_costs_no_model(
    toy_base, toy_sheet, tmp_path, failing, whole, name
):
    failing(lambda target: target == name, errno.EACCES)
    _, events = _train(toy_sheet, toy_base, tmp_path)
    said = [e.message for e in events if isinstance(e, Warned) and e.code == "not_written"]
    assert f"{name} could not be written: Permission denied" in said[0]
    assert len(said) == len(set(said)) <= 3
    assert weights(tmp_path) == whole


def test_a_model_that_cannot_be_written_is_an_error_and_a_resume_writes_it(
    toy_base, toy_sheet, tmp_path, failing, whole, monkeypatch
):
    failing(lambda name: name == "model")
    with pytest.raises(RunError, match="Training is done, and its model could not be saved") as stopped:
        _train(toy_sheet, toy_base, tmp_path)
    assert "checkpoint-14 is safe" in stopped.value.hint
    monkeypatch.undo()
    _, events = _train(toy_sheet, toy_base, tmp_path, resume=True)
    assert not [e for e in events if isinstance(e, StepDone)]
    assert weights(tmp_path) == whole


def test_the_best_adapter_is_kept_though_its_checkpoint_is_gone_at_the_end(toy_base, toy_sheet, tmp_path, whole):
    """The folder of the best step is removed under the running training, as a cleaner or a synced drive may do."""

    def remove(event):
        if isinstance(event, Saved) and event.step < 14:
            for file in RunFolder(tmp_path).checkpoint(event.step).iterdir():
                file.unlink()

    phinetune.train(toy_sheet, model=str(toy_base), out=tmp_path, on_event=remove, **OPTIONS)
    assert weights(tmp_path) == whole


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A real file system of 480 kB: room for one checkpoint of the toy, and not for its model beside it."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=480k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_leaves_no_half_and_a_resume_finishes_when_there_is_room(
    toy_base, toy_sheet, small_disk, whole
):
    with pytest.raises(
        RunError, match=r"No space left on device\. It takes about \d+ kB, and \d+ kB are free"
    ) as stopped:
        _train(toy_sheet, toy_base, small_disk / "run")
    assert "checkpoint-3 is safe" in stopped.value.hint
    assert not list(small_disk.rglob(".partial*"))
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    _train(toy_sheet, toy_base, small_disk / "run", resume=True)
    assert weights(small_disk / "run") == whole
