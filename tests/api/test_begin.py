"""How a run takes its folder: alone, without harm to what is there, and from what is whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import toys

import phinetune
from phinetune.api.begin import claimed
from phinetune.errors import RunError
from phinetune.events import Mirrored, Restored, Started, StepDone, Warned
from phinetune.run_folder import RunFolder, locked

ADAPTER = "adapter_model.safetensors"


def _train(sheet, base, out, *, stop_after=None, **options):
    """A run and its events; broken off after so many steps when asked."""
    events = []

    def stop() -> bool:
        return stop_after is not None and sum(isinstance(e, StepDone) for e in events) >= stop_after

    options = {"epochs": 2, "lr": 1e-2, "batch_size": 2, "grad_accum": 2} | options
    run = phinetune.train(sheet, model=str(base), out=out, on_event=events.append, stop_requested=stop, **options)
    return run, events


def _weights(root) -> bytes:
    return (root / "model" / ADAPTER).read_bytes()


def _codes(events) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


@pytest.fixture(scope="module")
def whole(toy_base, toy_sheet, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    _train(toy_sheet, toy_base, root)
    return _weights(root)


def test_a_second_run_into_the_folder_is_refused_and_the_first_is_not_disturbed(toy_base, toy_sheet, tmp_path, whole):
    refused = []

    def meanwhile(event):
        if isinstance(event, StepDone) and event.step == 3:
            for options in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(RunError, match=f"process {os.getpid()} on") as caught:
                    _train(toy_sheet, toy_base, tmp_path, **options)
                refused.append(caught.value)

    phinetune.train(
        toy_sheet, model=str(toy_base), out=tmp_path, epochs=2, lr=1e-2, batch_size=2, grad_accum=2, on_event=meanwhile
    )
    assert len(refused) == 3
    assert _weights(tmp_path) == whole
    assert not list(tmp_path.rglob(".lock"))


def test_report_and_training_keep_out_of_each_others_way(toy_run, tmp_path):
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    with locked(RunFolder(tmp_path / "run")), pytest.raises(RunError, match="Another phinetune is writing"):
        phinetune.report(tmp_path / "run")
    assert phinetune.report(tmp_path / "run").is_file()


def test_resume_of_a_finished_run_without_checkpoints_does_not_replace_its_model(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path)
    before = _weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="holds a tuned model and no checkpoint") as refused:
        _train(toy_sheet, toy_base, tmp_path, resume=True, seed=3)
    assert "--overwrite" in refused.value.hint
    assert _weights(tmp_path) == before


def test_an_overwriting_run_keeps_the_earlier_model_aside_until_its_own_is_there(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path, seed=7)
    earlier = _weights(tmp_path)
    _, events = _train(toy_sheet, toy_base, tmp_path, overwrite=True, stop_after=2)
    assert "model_put_aside" in _codes(events)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "model.before" / ADAPTER).read_bytes() == earlier
    assert not (tmp_path / "training_visuals" / "comparison.json").exists()
    _train(toy_sheet, toy_base, tmp_path, resume=True)
    assert not (tmp_path / "model.before").exists()
    assert _weights(tmp_path) != earlier


def test_the_same_pairs_in_another_file_are_the_same_run(toy_base, toy_sheet, tmp_path, whole):
    _train(toy_sheet, toy_base, tmp_path / "run", stop_after=3)
    pairs = [(f"{q} ({i})", a) for i, (q, a) in enumerate(toys.PAIRS * 5)]
    text = "Answer,Question\n" + "".join(f'"{answer}","{question}"\n' for question, answer in pairs)
    (tmp_path / "saved again.csv").write_text(text)
    _train(tmp_path / "saved again.csv", toy_base, tmp_path / "run", resume=True, question="Question", answer="Answer")
    assert _weights(tmp_path / "run") == whole


def test_other_pairs_are_another_run_and_refused_before_the_model_is_loaded(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path, stop_after=3)
    events = []
    with pytest.raises(RunError) as refused:
        phinetune.train(
            toy_sheet, model=str(toy_base), out=tmp_path, epochs=2, lr=2e-2, batch_size=2, grad_accum=2, limit=20,
            resume=True, on_event=events.append,
        )  # fmt: skip
    for said in ("--lr: 0.01 before, 0.02 now", "--limit: not given before, 20 now", "pairs to learn from: 27 before"):
        assert said in str(refused.value)
    assert "ModelLoading" not in [type(event).__name__ for event in events]


def test_other_weights_at_the_same_place_are_another_run(toy_base, toy_sheet, tmp_path):
    base = shutil.copytree(toy_base, tmp_path / "base")
    _train(toy_sheet, base, tmp_path / "run", stop_after=3)
    toys.save(base, toys.phi(seed=5))
    events = []
    with pytest.raises(RunError) as refused:
        phinetune.train(
            toy_sheet, model=str(base), out=tmp_path / "run", epochs=2, lr=1e-2, batch_size=2, grad_accum=2,
            resume=True, on_event=events.append,
        )  # fmt: skip
    assert f"weights of the base model {base}: " in str(refused.value)
    assert "ModelLoading" not in [type(event).__name__ for event in events]


def test_the_same_model_at_another_place_is_the_same_run(toy_base, toy_sheet, tmp_path, whole, monkeypatch):
    """As on another machine, which fetches the run from its mirror."""
    shutil.copytree(toy_base, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    _train(toy_sheet, "base", tmp_path / "run", stop_after=3, mirror=tmp_path / "mirror")
    shutil.move("base", "moved")
    shutil.rmtree(tmp_path / "run")
    _, events = _train(toy_sheet, tmp_path / "moved", tmp_path / "run", resume=True, mirror=tmp_path / "mirror")
    assert any(isinstance(event, Restored) for event in events)
    assert _weights(tmp_path / "run") == whole


def test_what_changes_memory_or_disk_and_not_the_result_may_change(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path, stop_after=3)
    changed = {"batch_size": 1, "grad_accum": 4, "device": "cpu", "patience": 5, "adapter_format": "bin"}
    changed["keep"] = "last"
    dotted = {"train.keep_checkpoints": 1, "train.save_steps": 2, "train.gradient_checkpointing": True}
    run, _ = _train(toy_sheet, toy_base, tmp_path, resume=True, **changed, **dotted)
    assert run.stopped == "finished"
    assert run.kept_step == run.steps


def test_a_run_that_began_on_another_machine_goes_on_and_says_that_rounding_differs(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path, stop_after=3)
    _rewrite_state(
        tmp_path / "checkpoints" / "checkpoint-3", lambda state: state["run"].update({"machine.torch": "1.0"})
    )
    run, events = _train(toy_sheet, toy_base, tmp_path, resume=True)
    [said] = [e.message for e in events if isinstance(e, Warned) and e.code == "other_machine"]
    assert "torch was 1.0 and is " in said
    assert run.stopped == "finished"


def test_when_nothing_is_whole_every_damage_is_named_and_nothing_is_touched(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path, stop_after=9)
    folders = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert len(folders) > 1
    for folder in folders:
        (folder / "optimizer.safetensors").write_bytes(b"rotten")
    with pytest.raises(RunError) as refused:
        _train(toy_sheet, toy_base, tmp_path, resume=True)
    for folder in folders:
        assert f"{folder.name}: optimizer.safetensors is not as it was written" in refused.value.message
    assert "--overwrite and without --resume" in refused.value.hint
    assert sorted((tmp_path / "checkpoints").glob("checkpoint-*")) == folders


def test_a_vanished_machine_goes_on_from_the_mirror_to_the_same_model(toy_base, toy_sheet, tmp_path, whole):
    mirror = tmp_path / "drive" / "copy"
    mirror.parent.mkdir()
    _, events = _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=9)
    assert [e.with_model for e in events if isinstance(e, Mirrored)][-1] is False
    shutil.rmtree(tmp_path / "run")
    _, events = _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert Restored(9, str(mirror)) in events
    assert [e.step for e in events if isinstance(e, Started)] == [9]
    assert _weights(tmp_path / "run") == _weights(mirror) == whole
    pairs = RunFolder(mirror).pairs
    assert pairs.read_bytes() == RunFolder(tmp_path / "run").pairs.read_bytes()
    names = {path.name for path in (mirror / "training_visuals").iterdir()}
    assert names == {path.name for path in (tmp_path / "run" / "training_visuals").iterdir()}


def test_a_mirror_serves_as_well_when_every_checkpoint_at_home_is_damaged(toy_base, toy_sheet, tmp_path, whole):
    mirror = tmp_path / "copy"
    _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=9)
    for folder in (tmp_path / "run" / "checkpoints").glob("checkpoint-*"):
        (folder / ADAPTER).unlink()
    _, events = _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert any(isinstance(e, Restored) for e in events)
    assert _weights(tmp_path / "run") == whole


def test_a_mirror_that_holds_a_model_is_not_replaced_unasked(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path / "a", mirror=tmp_path / "copy", epochs=1)
    kept = _weights(tmp_path / "copy")
    with pytest.raises(RunError, match="copy already holds a tuned model"):
        _train(toy_sheet, toy_base, tmp_path / "b", mirror=tmp_path / "copy", epochs=1, seed=5)
    assert _weights(tmp_path / "copy") == kept
    assert not (tmp_path / "b").exists()


def test_a_mirror_that_cannot_be_one_is_refused_before_anything_begins(toy_base, toy_sheet, tmp_path):
    with pytest.raises(RunError, match="There is no folder .*MyDrive") as refused:
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "MyDrive" / "copy")
    assert "mount" in refused.value.hint
    with pytest.raises(RunError, match="same folder"):
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "run")
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
    _, events = _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy")
    assert _codes(events).count("mirror_failed") == 1
    assert _codes(events)[-1] == "mirror_incomplete"
    assert _weights(tmp_path / "run") == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mirror_whose_checkpoints_cannot_be_read_is_not_begun_anew_by_a_resume(
    toy_base, toy_sheet, tmp_path, overwrite
):
    mirror = tmp_path / "copy"
    _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, stop_after=3)
    shutil.rmtree(tmp_path / "run")
    folders = sorted((mirror / "checkpoints").glob("checkpoint-*"))
    for folder in folders:
        (folder / ADAPTER).write_bytes(b"rotten")
    with pytest.raises(RunError, match="No checkpoint in .*copy.* can be gone on from"):
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=overwrite, stop_after=3)
    assert sorted((mirror / "checkpoints").glob("checkpoint-*")) == folders


def test_a_mirror_of_another_run_is_refused_by_a_resume_and_replaced_when_asked(toy_base, toy_sheet, tmp_path, whole):
    """Also how a run goes on that was to replace it, and was broken off before its first copy."""
    mirror = tmp_path / "copy"
    _train(toy_sheet, toy_base, tmp_path / "other", mirror=mirror, seed=5, stop_after=3)
    _train(toy_sheet, toy_base, tmp_path / "run", stop_after=4)
    kept = sorted(mirror.rglob("*"))
    with pytest.raises(RunError, match="The mirror is not of this run") as refused:
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert "--resume with --overwrite" in refused.value.hint
    assert sorted(mirror.rglob("*")) == kept
    _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=True)
    assert _weights(tmp_path / "run") == _weights(mirror) == whole
    assert "checkpoint-3" not in os.listdir(mirror / "checkpoints")


def test_a_mirror_that_holds_a_model_alone_is_refused_by_a_resume_and_replaced_when_asked(
    toy_base, toy_sheet, tmp_path, whole
):
    mirror = tmp_path / "copy"
    (mirror / "model").mkdir(parents=True)
    (mirror / "model" / "phinetune.json").write_text("{}")
    _train(toy_sheet, toy_base, tmp_path / "run", stop_after=4)
    with pytest.raises(RunError, match="copy holds a tuned model and no checkpoint"):
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True)
    assert os.listdir(mirror / "model") == ["phinetune.json"]
    _train(toy_sheet, toy_base, tmp_path / "run", mirror=mirror, resume=True, overwrite=True)
    assert _weights(mirror) == whole
    assert not (mirror / "model.before").exists()


def test_nothing_of_a_mirror_is_fetched_into_a_folder_of_another_run(toy_base, toy_sheet, tmp_path):
    _train(toy_sheet, toy_base, tmp_path / "other", mirror=tmp_path / "copy", stop_after=4)
    _train(toy_sheet, toy_base, tmp_path / "run", seed=5, stop_after=3)
    with pytest.raises(RunError, match="run cannot go on, because it was started differently"):
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", resume=True)
    assert "checkpoint-4" not in os.listdir(tmp_path / "run" / "checkpoints")


def test_a_mirror_that_cannot_be_locked_is_not_replaced_unasked_either(toy_base, toy_sheet, tmp_path):
    (tmp_path / "copy" / "model").mkdir(parents=True)
    (tmp_path / "copy" / "model" / "phinetune.json").write_text("{}")
    (tmp_path / "copy" / "checkpoints").write_text("in the way")
    with pytest.raises(RunError, match="copy already holds a tuned model"):
        _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy")


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
    assert _codes(events)[-1] == "mirror_incomplete"
    assert _weights(tmp_path / "run") == whole


def test_a_mirror_that_is_not_answering_before_the_run_is_refused_and_a_resume_does_without(
    toy_base, toy_sheet, tmp_path, whole, monkeypatch
):
    _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", stop_after=4)
    _hang_up(monkeypatch, tmp_path / "copy")
    for resume in (False, True):
        with pytest.raises(RunError, match="copy cannot be read: Transport endpoint"):
            _train(toy_sheet, toy_base, tmp_path / "new", mirror=tmp_path / "copy", resume=resume)
    _, events = _train(toy_sheet, toy_base, tmp_path / "run", mirror=tmp_path / "copy", resume=True)
    assert _codes(events)[-1] == "mirror_incomplete"
    assert _weights(tmp_path / "run") == whole


def test_a_file_where_the_model_goes_is_a_clear_error(toy_base, toy_sheet, tmp_path):
    (tmp_path / "model").write_text("notes of mine")
    with pytest.raises(RunError, match="model is or holds something that is not a tuned model"):
        _train(toy_sheet, toy_base, tmp_path)
    assert (tmp_path / "model").read_text() == "notes of mine"


def _rewrite_state(checkpoint, change) -> None:
    from phinetune.run_folder import sha256

    state = json.loads((checkpoint / "state.json").read_text())
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    sums = json.loads((checkpoint / "checksums.json").read_text()) | {"state.json": sha256(checkpoint / "state.json")}
    (checkpoint / "checksums.json").write_text(json.dumps(sums))
