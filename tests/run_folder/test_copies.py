from __future__ import annotations

import os

import pytest

from phinetune.errors import RunError
from phinetune.run_folder import copies, copy_file, copy_folder


def test_a_folder_is_copied_with_what_is_in_it_and_hidden_files_are_left(tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a").write_bytes(os.urandom(3 << 20))
    (source / "deep" / "b").write_text("b")
    (source / ".DS_Store").write_text("x")
    heard = []
    copy_folder(source, tmp_path / "copy", heard.append)
    assert (tmp_path / "copy" / "a").read_bytes() == (source / "a").read_bytes()
    assert (tmp_path / "copy" / "deep" / "b").read_text() == "b"
    assert not (tmp_path / "copy" / ".DS_Store").exists()
    assert sum(heard) == (3 << 20) + 1
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


def test_a_copy_that_differs_is_an_error_and_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "source").write_text("new")
    (tmp_path / "copy").write_text("old")
    true_sum = copies.sha256

    def flips_a_bit(path):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return true_sum(path)

    monkeypatch.setattr(copies, "sha256", flips_a_bit)
    with pytest.raises(RunError, match="differs from the original"):
        copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


def test_what_cannot_be_read_is_told_from_what_cannot_be_written(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "old").write_text("old")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="gone could not be read: No such file"):
        copy_file(tmp_path / "gone", tmp_path / "copied")
    with pytest.raises(RunError, match="gone could not be read: No such file"):
        copy_folder(tmp_path / "gone", tmp_path / "copy")
    with pytest.raises(RunError, match="copied could not be written"):
        copy_file(tmp_path / "file", tmp_path / "file" / "copied")
    assert os.listdir(tmp_path / "copy") == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["copy", "file"]
