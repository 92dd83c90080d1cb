"""The mirror: a copy that is proven, made beside the training, and whose failure is no failure of the run."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from phinetune.errors import RunError
from phinetune.events import MirrorAwaited, Mirrored, StepDone, Validated, Warned
from phinetune.run_folder import RunFolder, write_json, write_text
from phinetune.run_folder.copies import sha256
from phinetune.training import mirror as mirror_module
from phinetune.training.checkpoint import CHECKSUMS, damage
from phinetune.training.mirror import Mirror, restore
from phinetune.training.progress import Progress, to_json


def _checkpoint(folder: RunFolder, step: int, best: int, filling: str = "w") -> None:
    """A checkpoint as the disk sees it; what the weights mean is nothing to a mirror."""
    path = folder.checkpoint(step)
    history = [StepDone(1, 1.0, 1.0, 1.0, 1.0, 1, 1.0), Validated(1, 1.0, 1.0, True, 1, 1.0)]
    progress = to_json(Progress(step=step, best_step=best, history=history))
    write_json(path / "state.json", {"format": 2, "progress": progress, "run": {}})
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"):
        write_text(path / name, f"{filling} {step}" * 1000)
    write_json(path / CHECKSUMS, {file.name: sha256(file) for file in path.iterdir()})


@pytest.fixture
def ours(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    for step in (1, 2, 3):
        _checkpoint(folder, step, best=1)
    write_text(folder.pairs, "pairs\n")
    return folder


@pytest.fixture
def theirs(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "mirror")


def _finish(mirror: Mirror, step: int, *, with_model: bool = False) -> list:
    events = []
    mirror.finish(step, with_model=with_model, on_event=events.append)
    return events


def test_the_last_checkpoint_the_best_one_and_the_pairs_are_copied(ours, theirs):
    with Mirror(ours, theirs, anew=True) as mirror:
        assert _finish(mirror, 3) == [Mirrored(3, str(theirs.root), False)]
    assert theirs.checkpoint_steps() == [1, 3]
    assert damage(theirs.checkpoint(3)) is None
    assert theirs.pairs.read_text() == "pairs\n"
    assert not list(theirs.root.rglob(".partial*"))


def test_at_the_end_the_model_and_all_figures_are_copied_too(ours, theirs):
    write_text(ours.recipe, "{}")
    write_text(ours.report_html, "<html>")
    write_text(ours.findings_json, "{}")
    with Mirror(ours, theirs, anew=True) as mirror:
        assert _finish(mirror, 3, with_model=True) == [Mirrored(3, str(theirs.root), True)]
    assert theirs.is_finished
    assert theirs.report_html.read_text() == "<html>"
    assert theirs.findings_json.is_file()


def test_a_mirror_of_another_run_is_replaced_at_the_first_copy_and_not_before(ours, theirs):
    _checkpoint(theirs, 900, best=900)
    write_text(theirs.recipe, "{}")
    with Mirror(ours, theirs, anew=True) as mirror:
        assert theirs.checkpoint_steps() == [900]
        _finish(mirror, 3)
    assert theirs.checkpoint_steps() == [1, 3]
    assert not theirs.is_finished
    assert theirs.model_before.is_dir()


def test_what_is_there_and_whole_is_not_copied_again_and_what_is_damaged_is(ours, theirs):
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 3)
    kept = (theirs.checkpoint(1) / "state.json").stat().st_ino
    write_text(theirs.checkpoint(3) / "adapter_model.safetensors", "rotten")
    with Mirror(ours, theirs, anew=False) as mirror:
        _finish(mirror, 3)
    assert damage(theirs.checkpoint(3)) is None
    assert (theirs.checkpoint(1) / "state.json").stat().st_ino == kept


def test_the_newest_waits_while_the_drive_is_slow_and_an_older_one_that_waited_is_dropped(ours, theirs, monkeypatch):
    gate, copied = threading.Event(), []
    true_copy = mirror_module.copy_folder

    def slow(source, target, on_block):
        gate.wait(10)
        copied.append(source.name)
        true_copy(source, target, on_block)

    monkeypatch.setattr(mirror_module, "copy_folder", slow)
    for step in (4, 5):
        _checkpoint(ours, step, best=1)
    with Mirror(ours, theirs, anew=True) as mirror:
        mirror.submit(3)
        while mirror.in_use() != {3}:
            time.sleep(0.001)
        start = time.monotonic()
        mirror.submit(4)
        mirror.submit(5)
        assert time.monotonic() - start < 1  # training does not wait
        gate.set()
        events = _finish(mirror, 5)
    assert copied == ["checkpoint-1", "checkpoint-3", "checkpoint-5"]
    assert [e.code for e in events if isinstance(e, Warned)] == ["mirror_slow"]
    assert events[-1] == Mirrored(5, str(theirs.root), False)


def test_a_drive_that_fails_is_said_once_and_tried_again(ours, theirs):
    theirs.root.write_text("a file is in the way")
    with Mirror(ours, theirs, anew=True) as mirror:
        for step in (1, 2):
            mirror.submit(step)
            while not mirror.idle():
                time.sleep(0.001)
        [warned] = mirror.news()
        assert warned.code == "mirror_failed"
        assert str(theirs.root) in warned.message
        theirs.root.unlink()
        assert _finish(mirror, 3) == [Mirrored(3, str(theirs.root), False)]
    assert theirs.checkpoint_steps() == [1, 3]


def test_a_copy_that_never_came_about_is_said_at_the_end_with_where_everything_is(ours, theirs):
    theirs.root.write_text("a file is in the way")
    with Mirror(ours, theirs, anew=True) as mirror:
        events = _finish(mirror, 3)
    assert [e.code for e in events] == ["mirror_failed", "mirror_incomplete"]
    assert str(ours.root) in events[-1].message


def test_a_drive_that_answers_no_more_is_not_waited_for_without_end(ours, theirs, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(mirror_module, "copy_folder", lambda *_: gate.wait(30))
    monkeypatch.setattr(mirror_module, "_STALLED", 0.3)
    monkeypatch.setattr(mirror_module, "_PATIENT", 0.1)
    with Mirror(ours, theirs, anew=True) as mirror:
        events = _finish(mirror, 3)
        gate.set()
    assert MirrorAwaited(str(theirs.root)) in events
    assert "no answer from the drive" in events[-1].message


def test_a_checkpoint_that_was_dropped_before_its_turn_is_no_failure(ours, theirs):
    shutil.rmtree(ours.checkpoint(2))
    with Mirror(ours, theirs, anew=True) as mirror:
        mirror.submit(2)
        while not mirror.idle():
            time.sleep(0.001)
        assert mirror.news() == []
        _finish(mirror, 3)
    assert theirs.checkpoint_steps() == [1, 3]


def test_a_checkpoint_that_is_damaged_at_home_is_not_copied(ours, theirs):
    write_text(ours.checkpoint(3) / "optimizer.safetensors", "rotten")
    with Mirror(ours, theirs, anew=True) as mirror:
        events = _finish(mirror, 3)
    assert "checkpoint-3 has been damaged since it was saved (optimizer.safetensors is not" in events[0].message
    assert theirs.checkpoint_steps() == [1]


@pytest.mark.parametrize("rotten", ["optimizer.safetensors", "state.json", CHECKSUMS])
def test_a_finished_model_is_copied_although_its_last_checkpoint_has_rotted(ours, theirs, rotten):
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 2)
    write_text(ours.recipe, "{}")
    write_text(ours.report_html, "<html>")
    write_text(ours.checkpoint(3) / rotten, "rotten")
    with Mirror(ours, theirs, anew=False) as mirror:
        warned, mirrored = _finish(mirror, 3, with_model=True)
    assert warned.code == "mirror_without_checkpoint"
    assert "checkpoint-3 has been damaged since it was saved" in warned.message
    assert mirrored == Mirrored(3, str(theirs.root), True)
    assert theirs.is_finished
    assert theirs.report_html.is_file()
    assert theirs.checkpoint_steps() == [1, 2]
    assert all(damage(theirs.checkpoint(step)) is None for step in (1, 2))


def test_a_best_checkpoint_that_has_rotted_does_not_keep_the_newest_from_being_copied(ours, theirs):
    write_text(ours.checkpoint(1) / "optimizer.safetensors", "rotten")
    with Mirror(ours, theirs, anew=True) as mirror:
        warned, mirrored = _finish(mirror, 3)
    assert warned.code == "mirror_without_best"
    assert mirrored == Mirrored(3, str(theirs.root), False)
    assert theirs.checkpoint_steps() == [3]


@pytest.mark.parametrize("rotten", ["optimizer.safetensors", CHECKSUMS])
def test_a_whole_copy_is_not_replaced_by_what_has_rotted_at_home(ours, theirs, rotten):
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 2)
    write_text(ours.checkpoint(1) / rotten, "rotten")
    with Mirror(ours, theirs, anew=False) as mirror:
        _finish(mirror, 3)
    assert theirs.checkpoint_steps() == [1, 3]
    assert damage(theirs.checkpoint(1)) is None


def test_a_model_is_copied_where_its_checkpoint_finds_no_room(ours, theirs, monkeypatch):
    write_text(ours.recipe, "{}")
    true_copy = mirror_module.copy_folder

    def small(source, target, on_block):
        if source.name.startswith("checkpoint"):
            raise RunError("the drive is full")
        true_copy(source, target, on_block)

    monkeypatch.setattr(mirror_module, "copy_folder", small)
    with Mirror(ours, theirs, anew=True) as mirror:
        failed, incomplete = _finish(mirror, 3, with_model=True)
    assert "the drive is full" in failed.message
    assert incomplete.code == "mirror_incomplete"
    assert theirs.is_finished


def test_restoring_brings_the_checkpoint_and_the_best_one_back(ours, theirs, tmp_path):
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 3)
    home = RunFolder(tmp_path / "new machine")
    restore(theirs, 3, home)
    assert home.checkpoint_steps() == [1, 3]
    assert damage(home.checkpoint(3)) is None


def test_restoring_to_a_place_that_cannot_be_written_is_a_clear_error(ours, theirs, tmp_path):
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 3)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        restore(theirs, 3, RunFolder(tmp_path / "file"))


def test_a_finished_model_is_copied_although_its_last_checkpoint_could_not_be_saved(ours, theirs):
    write_text(ours.recipe, "{}")
    shutil.rmtree(ours.checkpoint(3))
    with Mirror(ours, theirs, anew=True) as mirror:
        mirror.submit(2)
        assert _finish(mirror, 3, with_model=True)[-1] == Mirrored(3, str(theirs.root), True)
    assert theirs.is_finished
    assert theirs.pairs.is_file()


def test_a_last_checkpoint_that_is_gone_is_no_complete_copy(ours, theirs):
    shutil.rmtree(ours.checkpoint(3))
    with Mirror(ours, theirs, anew=True) as mirror:
        [said] = _finish(mirror, 3)
    assert said.code == "mirror_incomplete"
    assert "checkpoint-3 was gone" in said.message


def test_whatever_goes_wrong_in_the_thread_is_said_and_the_next_checkpoint_tried(ours, theirs, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    with Mirror(ours, theirs, anew=True) as mirror:
        with monkeypatch.context() as patched:
            patched.setattr(mirror_module, "copy_folder", no_memory)
            mirror.submit(2)
            while not mirror.idle():
                time.sleep(0.001)
            events = mirror.news()
        assert [e.code for e in events] == ["mirror_failed"]
        assert "MemoryError" in events[0].message
        assert _finish(mirror, 3) == [Mirrored(3, str(theirs.root), False)]


def test_a_person_who_leaves_at_once_is_not_outlived_by_a_copy(ours, theirs, monkeypatch):
    gate = threading.Event()
    true_copy = mirror_module.copy_folder

    def slow(*arguments):
        gate.wait(10)
        true_copy(*arguments)

    monkeypatch.setattr(mirror_module, "copy_folder", slow)
    monkeypatch.setattr(mirror_module, "_PATIENT", 0.01)
    with pytest.raises(KeyboardInterrupt), Mirror(ours, theirs, anew=True) as mirror:
        mirror.submit(2)
        while mirror.in_use() != {2}:
            time.sleep(0.001)
        mirror.submit(3)
        raise KeyboardInterrupt
    gate.set()
    mirror._thread.join(10)
    assert not mirror._thread.is_alive()
    assert theirs.checkpoint_steps() == []


def test_a_silent_drive_is_waited_for_once(ours, theirs, monkeypatch):
    gate, waits = threading.Event(), []
    true_close = Mirror._close

    def counted(mirror, tell):
        waits.append(tell)
        true_close(mirror, tell)

    monkeypatch.setattr(Mirror, "_close", counted)
    monkeypatch.setattr(mirror_module, "copy_folder", lambda *_: gate.wait(30))
    monkeypatch.setattr(mirror_module, "_STALLED", 0.05)
    monkeypatch.setattr(mirror_module, "_PATIENT", 0.01)
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 3)
    gate.set()
    assert len(waits) == 1


def test_what_the_last_run_left_half_written_and_put_aside_goes_with_the_new_model(ours, theirs):
    write_text(ours.recipe, "{}")
    write_text(theirs.recipe, "{}")
    write_text(theirs.visuals / ".partial-phinetune-1", "half")
    with Mirror(ours, theirs, anew=True) as mirror:
        _finish(mirror, 3, with_model=True)
    assert theirs.is_finished
    assert not theirs.model_before.exists()
    assert not list(theirs.root.rglob(".partial*"))
