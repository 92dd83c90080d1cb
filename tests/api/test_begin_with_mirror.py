"""How a run takes its mirror: without harm to what is there, and it goes on from what is whole in it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from whole_runs import ADAPTER, codes, train_by_fours, weights

import phinetune
from phinetune.api.begin import claimed
from phinetune.errors import RunError
from phinetune.events import Mirrored, Restored, Started, StepDone
from phinetune.run_folder import RunFolder


def test_a_vanished_machine_goes_on_from_the_mirror_to_the_same_model(toy_base, toy_sheet, tmp_path, whole):
    mirror = tmp_path / "drive" / "copy"
    mirror.parent.mkdir()
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=9)
    assert [e.with_model for e in events if isinstance(e, Mirrored)][-1] is False
    shutil.rmtree(tmp_path / "run")
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert Restored(9, str(mirror)) in events
    assert [e.step for e in events if isinstance(e, Started)] == [9]
    assert weights(tmp_path / "run") == weights(mirror) == whole
    pairs = RunFolder(mirror).pairs
    assert pairs.read_bytes() == RunFolder(tmp_path / "run").pairs.read_bytes()
    names = {path.name for path in (mirror / "training_visuals").iterdir()}
    assert names == {path.name for path in (tmp_path / "run" / "training_visuals").iterdir()}


def test_a_mirror_serves_as_well_when_every_checkpoint_at_home_is_damaged(toy_base, toy_sheet, tmp_path, whole):
    mirror = tmp_path / "copy"
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=9)
    for folder in (tmp_path / "run" / "checkpoints").glob("checkpoint-*"):
        (folder / ADAPTER).unlink()
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert any(isinstance(e, Restored) for e in events)
    assert weights(tmp_path / "run") == whole


def test_a_mirror_that_holds_a_model_is_not_replaced_unasked(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path / "a", mirror=tmp_path / "copy", epochs=1)
    kept = weights(tmp_path / "copy")
    with pytest.raises(RunError, match="copy already holds a tuned model"):
        train_by_fours(toy_sheet, toy_base, tmp_path / "b", mirror=tmp_path / "copy", epochs=1, seed=5)
    assert weights(tmp_path / "copy") == kept
    assert not (tmp_path / "b").exists()


def test_a_mirror_that_cannot_be_one_is_refused_before_anything_begins(toy_base, toy_sheet, tmp_path):
    with pytest.raises(RunError, match="There is no folder .*MyDrive") as refused:
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "MyDrive" / "copy")
    assert "mount" in refused.value.hint
    with pytest.raises(RunError, match="same folder"):
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["model", "model.before", "checkpoints", "checkpoints/copy", "training_visuals"])
def test_a_mirror_inside_what_the_run_replaces_is_refused(tmp_path, place):
    run, inside = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run" / place)
    for folder, mirror in ((run, inside), (inside, run)):
        with (
            pytest.raises(RunError, match="lie in one another"),
            claimed(folder, mirror, resume=False, overwrite=False, on_event=lambda _: None),
        ):
            pass
    beside = RunFolder(tmp_path / "run" / "copy")
    with claimed(run, beside, resume=False, overwrite=False, on_event=lambda _: None):
        assert beside.lock.is_file()


def test_a_mirror_that_fails_costs_the_run_nothing(toy_base, toy_sheet, tmp_path, whole):
    (tmp_path / "copy").write_text("a file is in the way")
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy")
    assert codes(events).count("mirror_failed") == 1
    assert codes(events)[-1] == "mirror_incomplete"
    assert weights(tmp_path / "run") == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mirror_whose_checkpoints_cannot_be_read_is_not_begun_anew_by_a_resume(
    toy_base, toy_sheet, tmp_path, overwrite
):
    mirror = tmp_path / "copy"
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=3)
    shutil.rmtree(tmp_path / "run")
    folders = sorted((mirror / "checkpoints").glob("checkpoint-*"))
    for folder in folders:
        (folder / ADAPTER).write_bytes(b"rotten")
    with pytest.raises(RunError, match="No checkpoint in .*copy.* can be gone on from"):
        train_by_fours(
            toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=overwrite, stop_after=3
        )
    assert sorted((mirror / "checkpoints").glob("checkpoint-*")) == folders


def test_a_mirror_of_another_run_is_refused_by_a_resume_and_replaced_when_asked(toy_base, toy_sheet, tmp_path, whole):
    """Also how a run goes on that was to replace it, and was broken off before its first copy."""
    mirror = tmp_path / "copy"
    train_by_fours(toy_sheet, toy_base, tmp_path / "other", mirror=mirror, seed=5, stop_after=3)
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", stop_after=4)
    kept = sorted(mirror.rglob("*"))
    with pytest.raises(RunError, match="The mirror is not of this run") as refused:
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert "--resume with --overwrite" in refused.value.hint
    assert sorted(mirror.rglob("*")) == kept
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=True)
    assert weights(tmp_path / "run") == weights(mirror) == whole
    assert "checkpoint-3" not in os.listdir(mirror / "checkpoints")


def test_a_mirror_that_holds_a_model_alone_is_refused_by_a_resume_and_replaced_when_asked(
    toy_base, toy_sheet, tmp_path, whole
):
    mirror = tmp_path / "copy"
    (mirror / "model").mkdir(parents=True)
    (mirror / "model" / "phinetune.json").write_text("{}")
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", stop_after=4)
    with pytest.raises(RunError, match="copy holds a tuned model and no checkpoint"):
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert os.listdir(mirror / "model") == ["phinetune.json"]
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=True)
    assert weights(mirror) == whole
    assert not (mirror / "model.before").exists()


def test_nothing_of_a_mirror_is_fetched_into_a_folder_of_another_run(toy_base, toy_sheet, tmp_path):
    train_by_fours(toy_sheet, toy_base, tmp_path / "other", mirror=tmp_path / "copy", stop_after=4)
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", seed=5, stop_after=3)
    with pytest.raises(RunError, match="run cannot go on, because it was started differently"):
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", resume=True)
    assert "checkpoint-4" not in os.listdir(tmp_path / "run" / "checkpoints")


def test_a_mirror_that_cannot_be_locked_is_not_replaced_unasked_either(toy_base, toy_sheet, tmp_path):
    (tmp_path / "copy" / "model").mkdir(parents=True)
    (tmp_path / "copy" / "model" / "phinetune.json").write_text("{}")
    (tmp_path / "copy" / "checkpoints").write_text("in the way")
    with pytest.raises(RunError, match="copy already holds a tuned model"):
        train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy")


def _hang_up(monkeypatch, drive) -> None:
    """The drive answers nothing, as one whose network is gone."""

    def unless_there(true):
        def call(path, **options):
            if path.is_relative_to(drive):
                raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            return true(path, **options)

        return call

    for name in ("stat", "iterdir"):
        monkeypatch.setattr(Path, name, unless_there(getattr(Path, name)))


def _put_a_file_in_its_place(_, drive) -> None:
    shutil.rmtree(drive, ignore_errors=True)
    drive.write_text("")


@pytest.mark.parametrize("go_away", [_hang_up, _put_a_file_in_its_place])
def test_a_mirror_that_goes_away_during_the_run_costs_it_nothing(
    toy_base, toy_sheet, tmp_path, whole, monkeypatch, go_away
):
    events = []

    def listen(event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            go_away(monkeypatch, tmp_path / "copy")
        events.append(event)

    phinetune.train(
        toy_sheet, model=str(toy_base), out=tmp_path / "run", mirror=tmp_path / "copy", on_event=listen,
        epochs=2, lr=1e-2, batch_size=2, grad_accum=2,
    )  # fmt: skip
    assert codes(events)[-1] == "mirror_incomplete"
    assert weights(tmp_path / "run") == whole


def test_a_mirror_that_is_not_answering_before_the_run_is_refused_and_a_resume_does_without(
    toy_base, toy_sheet, tmp_path, whole, monkeypatch
):
    train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", stop_after=4)
    _hang_up(monkeypatch, tmp_path / "copy")
    for resume in (False, True):
        with pytest.raises(RunError, match="copy cannot be read: Transport endpoint"):
            train_by_fours(toy_sheet, toy_base, tmp_path / "new", mirror=tmp_path / "copy", resume=resume)
    _, events = train_by_fours(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", resume=True)
    assert codes(events)[-1] == "mirror_incomplete"
    assert weights(tmp_path / "run") == whole
