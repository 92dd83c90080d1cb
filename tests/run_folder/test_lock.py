"""One writer for a run folder, whoever it is and however it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phinetune.errors import RunError
from phinetune.run_folder import InUseError, RunFolder, locked

HOLD = """
import sys, time
from pathlib import Path
from phinetune.run_folder import RunFolder, locked
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    holder = _holder(tmp_path)
    try:
        with (
            pytest.raises(InUseError, match=f"process {holder.pid} on .*, since") as refused,
            locked(RunFolder(tmp_path)),
        ):
            pass
        assert "--out" in refused.value.hint
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    holder = _holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert RunFolder(tmp_path).lock.is_file()
    with locked(RunFolder(tmp_path)) as is_ours:
        assert is_ours
        assert json.loads(RunFolder(tmp_path).lock.read_text())["pid"] == os.getpid()


def test_two_in_one_process_are_two_as_well(tmp_path):
    with locked(RunFolder(tmp_path)), pytest.raises(InUseError), locked(RunFolder(tmp_path)):
        pass
    with locked(RunFolder(tmp_path)):
        pass


def test_a_folder_that_was_made_for_the_lock_alone_goes_with_it(tmp_path):
    with locked(RunFolder(tmp_path / "new" / "run")):
        assert (tmp_path / "new" / "run" / "checkpoints").is_dir()
    assert not (tmp_path / "new" / "run").exists()
    with locked(RunFolder(tmp_path / "run")):
        (tmp_path / "run" / "file").write_text("x")
    assert os.listdir(tmp_path / "run") == ["file"]


def test_a_lock_file_that_was_removed_meanwhile_keeps_nobody_in(tmp_path):
    """The holder removes the file when it leaves; who opened it before must not believe to hold the folder."""
    folder = RunFolder(tmp_path)
    with locked(folder):
        folder.lock.unlink()
        with locked(folder):
            assert folder.lock.is_file()
            with pytest.raises(InUseError), locked(folder):
                pass


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"), locked(RunFolder(tmp_path / "file" / "run")):
        pass


def test_a_drive_without_locks_is_used_and_said_to_be_one(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(RunFolder(tmp_path)) as is_ours:
        assert not is_ours


def test_a_disk_that_is_full_when_the_holder_signs_leaves_the_folder_free(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(RunError, match="cannot be written to: No space left"), locked(RunFolder(tmp_path)):
            pass
    with locked(RunFolder(tmp_path)) as is_ours:
        assert is_ours


def test_a_place_that_may_not_be_looked_at_is_a_clear_error(tmp_path, monkeypatch):
    def forbidden(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(RunError, match="cannot be written to: Permission denied"), locked(RunFolder(tmp_path)):
        pass


def test_a_drive_that_goes_away_meanwhile_does_not_hinder_leaving(tmp_path, monkeypatch):
    with locked(RunFolder(tmp_path / "run")):
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("in its place")

    def gone(*_, **__):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as patched, locked(RunFolder(tmp_path / "other")):
        patched.setattr(Path, "stat", gone)


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays_as_it_was(tmp_path):
    (tmp_path / "precious").write_text("mine")
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.lock.symlink_to("../../precious")
    with pytest.raises(RunError, match="is a link"), locked(folder):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    assert folder.lock.is_symlink()


@pytest.mark.parametrize("what", ["training_visuals", "checkpoints"])
def test_files_behind_a_link_are_refused_as_they_would_be_written_over_somebody_elses(tmp_path, what):
    (tmp_path / "home").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    (folder.root / what).symlink_to("../home")
    with pytest.raises(RunError, match="does not belong to this run"), locked(folder):
        pass
