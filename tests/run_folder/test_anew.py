from __future__ import annotations

import os

import pytest

from phinetune.errors import RunError
from phinetune.run_folder import RunFolder, begin_anew, write_text


def _finished(root, text: str) -> RunFolder:
    folder = RunFolder(root)
    write_text(folder.recipe, text)
    for file in (folder.pairs, folder.metrics_csv, folder.answers_json, folder.checkpoint(4) / "state.json"):
        write_text(file, text)
    write_text(root / "notes.txt", "the person's own")
    return folder


def test_the_model_is_put_aside_and_nothing_else_of_the_earlier_run_stays(tmp_path):
    folder = _finished(tmp_path, "first")
    assert begin_anew(folder)
    assert (folder.model_before / "phinetune.json").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "model.before", "notes.txt", "training_visuals"]
    assert not os.listdir(folder.checkpoints)
    assert not os.listdir(folder.visuals)


def test_the_last_model_that_was_whole_stays_aside_when_a_run_begins_twice(tmp_path):
    folder = _finished(tmp_path, "first")
    assert begin_anew(folder)
    assert not begin_anew(folder)
    assert (folder.model_before / "phinetune.json").read_text() == "first"
    _finished(tmp_path, "second")
    assert begin_anew(folder)
    assert (folder.model_before / "phinetune.json").read_text() == "second"


def test_what_cannot_be_replaced_is_a_clear_error(tmp_path, monkeypatch):
    folder = _finished(tmp_path, "first")

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="cannot be replaced: Operation not permitted"):
        begin_anew(folder)
    assert folder.is_finished
