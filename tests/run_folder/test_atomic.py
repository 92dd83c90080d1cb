from __future__ import annotations

import errno
import os
import shutil
import stat

import pytest

from phinetune.errors import RunError
from phinetune.run_folder import (
    RunFolder,
    atomic_file,
    atomic_folder,
    find_model,
    open_finished,
    remove_leftovers,
    write_json,
    write_text,
)


def test_the_guides_layout(tmp_path):
    folder = RunFolder(tmp_path)
    paths = [folder.model, folder.checkpoint(50), folder.curves_png, folder.comparison_png]
    paths += [folder.metrics_json, folder.metrics_csv, folder.config_json]
    assert [str(p.relative_to(tmp_path)) for p in paths] == [
        "model",
        "checkpoints/checkpoint-50",
        "training_visuals/training_curves.png",
        "training_visuals/loss_comparison.png",
        "training_visuals/training_metrics.json",
        "training_visuals/training_metrics.csv",
        "training_visuals/training_config.json",
    ]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temporary:
        (temporary / "b").write_text("2")
        raise ZeroDivisionError
    assert os.listdir(path) == ["a"]
    with atomic_folder(path) as temporary:
        (temporary / "c").write_text("3")
    assert os.listdir(path) == ["c"]
    assert os.listdir(tmp_path) == ["model"]


def test_others_may_read_what_is_written(tmp_path):
    write_text(tmp_path / "file", "x")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "weights").touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) & 0o044
    assert stat.S_IMODE((tmp_path / "folder" / "weights").stat().st_mode) & 0o044
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) & 0o055


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not be written"):
        write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(RunError, match="could not be written"), atomic_folder(tmp_path / "file" / "below"):
        pass


def test_numbers_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".partial-phinetune-abc").mkdir()
    (tmp_path / ".partial-phinetune-def").write_text("")
    (tmp_path / "checkpoint-4").mkdir()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint-4"]


def test_checkpoints_are_found_in_order_of_their_steps(tmp_path):
    for name in ("checkpoint-100", "checkpoint-50", "checkpoint-x", ".partial-phinetune-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert RunFolder(tmp_path).checkpoint_steps() == [50, 100]


def test_checkpoints_that_are_removed_while_they_are_listed_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "is_dir", lambda _: True)  # a moment ago
    assert RunFolder(tmp_path / "gone").checkpoint_steps() == []


def test_a_finished_run_is_found_by_its_folder_or_its_model_folder(tmp_path):
    write_text(RunFolder(tmp_path).recipe, "{}")
    assert open_finished(tmp_path).root == open_finished(tmp_path / "model").root == tmp_path
    assert find_model(tmp_path) == find_model(tmp_path / "model") == tmp_path / "model"


def test_a_model_folder_that_was_renamed_is_still_a_model(tmp_path):
    write_text(tmp_path / "my-download" / "phinetune.json", "{}")
    assert find_model(tmp_path / "my-download") == tmp_path / "my-download"
    with pytest.raises(RunError, match="a model without the run it comes from"):
        open_finished(tmp_path / "my-download")


def test_no_run_an_unfinished_run_and_no_folder_are_told_apart(tmp_path):
    with pytest.raises(RunError, match="There is no folder"):
        open_finished(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no tuned model"):
        open_finished(tmp_path)
    (tmp_path / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    with pytest.raises(RunError, match="not finished") as caught:
        open_finished(tmp_path)
    assert "--resume" in caught.value.hint


def test_a_folder_put_aside_by_a_killed_process_returns_unless_the_new_one_came(tmp_path):
    (tmp_path / ".replaced-phinetune-1" / "model").mkdir(parents=True)
    (tmp_path / ".replaced-phinetune-1" / "model" / "a").write_text("old")
    remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "a").read_text() == "old"
    (tmp_path / ".replaced-phinetune-2" / "model").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_leftovers_that_are_links_lead_to_nobody_elses_files(tmp_path):
    """A run folder from elsewhere may hold them: what they lead to was moved into it, or removed."""
    (tmp_path / "home" / "thesis").mkdir(parents=True)
    (tmp_path / "home" / "model").mkdir()
    (tmp_path / "run" / "model").mkdir(parents=True)
    for name in (".replaced-phinetune-a", ".partial-phinetune-b"):
        (tmp_path / "run" / name).symlink_to("../home")
    remove_leftovers(tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "home")) == ["model", "thesis"]
    assert (tmp_path / "run" / "model").is_dir()


def test_what_a_person_calls_partial_is_no_leftover(tmp_path):
    for name in (".partial-results", ".partial-abcdefgh", ".replaced-abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / ".partial-notes.txt").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


def test_what_libraries_say_of_a_full_disk_is_a_clear_error_and_other_errors_are_their_own(tmp_path):
    with pytest.raises(RunError, match="could not be written"), atomic_folder(tmp_path / "a"):
        raise Exception("No space left on device (os error 28)")
    with pytest.raises(ValueError, match="mine"), atomic_folder(tmp_path / "a"):
        raise ValueError("mine")
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_told_with_what_it_takes_and_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 45_000, 45_000))
    full = OSError(errno.ENOSPC, "No space left on device")
    said = []
    for error in (full, Exception("write error: No space left on device (os error 28)"), PermissionError(13, "Denied")):
        for needs in (lambda: 12_340_000, None, lambda: 1 // 0):
            with pytest.raises(RunError) as stopped, atomic_folder(tmp_path / "a", needs) as temporary:
                (temporary / "half").write_text("half")
                raise error
            said.append(stopped.value.message.partition("written: ")[2])
    know, free, _ = said[:3]
    assert know == "No space left on device. It takes about 12.3 MB, and 45 kB are free."
    assert free == "No space left on device. 45 kB are free."
    assert said[3:6] == [know, free, free]
    assert set(said[6:]) == {"Denied."}


def test_a_drive_that_cannot_flush_folders_is_good_enough(tmp_path, monkeypatch):
    true_fsync = os.fsync

    def only_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        true_fsync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "b").write_text("b")
    assert (tmp_path / "a" / "b").read_text() == "b"


def test_the_mask_for_new_files_is_not_touched_while_others_may_be_writing(tmp_path, monkeypatch):
    """It is read by setting it: what another thread makes in between would be open to everybody."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the mask was set"))
    write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"
