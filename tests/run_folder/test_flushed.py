"""What is renamed into its place is on the disk before, and the new name after: a power cut finds the old or the new.

The calls to the system are recorded in their order. A page that was written after its flush would be lost as well, so
what a flush has seen is compared with what is there when the name is given.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

import phinetune
from phinetune.run_folder import atomic, atomic_file, atomic_folder


class Seen(NamedTuple):
    """A file or folder as it was at a moment: its number on the disk, its size and its last change."""

    number: int
    size: int
    changed: int


def _seen(about: os.stat_result) -> Seen:
    return Seen(about.st_ino, about.st_size, about.st_mtime_ns)


class Recorder:
    """Notes flushes and renames, and what is wrong with their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.placed: list[str] = []
        self._flushed: set[Seen] = set()
        self._unflushed_names: dict[Path, str] = {}
        self._wrong: list[str] = []
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, handle: int) -> None:
        self._fsync(handle)
        about = os.fstat(handle)
        self._flushed.add(_seen(about))
        for folder in list(self._unflushed_names):
            if folder.stat().st_ino == about.st_ino:
                del self._unflushed_names[folder]

    def replace(self, source: Path, target: Path) -> None:
        source, target = Path(source), Path(target)
        if ".partial-phinetune-" in source.name and ".partial-phinetune-" not in target.parent.name:
            for each in [source, *source.rglob("*")]:
                if _seen(each.stat()) not in self._flushed:
                    self._wrong.append(f"{target.name}: {each.relative_to(source)} was not flushed before it was named")
            self.placed.append(target.name)
            self._unflushed_names[target.parent] = target.name
        self._replace(source, target)

    def wrong(self) -> list[str]:
        late = [f"{name}: its name was not flushed" for name in self._unflushed_names.values()]
        return [*self._wrong, *late]


def test_checkpoints_model_and_pictures_are_flushed_before_and_after_they_are_named(
    toy_base, toy_sheet, tmp_path, monkeypatch
):
    recorder = Recorder(monkeypatch)
    phinetune.train(
        toy_sheet, model=str(toy_base), out=tmp_path, epochs=1, lr=1e-2, batch_size=2, grad_accum=2,
        **{"train.save_steps": 3},
    )  # fmt: skip
    assert recorder.wrong() == []
    assert {"checkpoint-3", "model", "training_curves.png", "loss_comparison.png"} <= set(recorder.placed)
    assert {"training_metrics.csv", "training_config.json", "report.html"} <= set(recorder.placed)


def _write(folder: Path) -> None:
    with atomic_file(folder / "file") as file:
        file.write_text("a")
    for _ in range(2):  # the second takes the place of the first
        with atomic_folder(folder / "model") as model:
            (model / "deep").mkdir()
            (model / "deep" / "weights").write_text("b")


@pytest.mark.parametrize(
    ("forgets", "complaint"),
    [
        (lambda path: False, None),
        (lambda path: path.is_file(), "weights was not flushed before it was named"),
        (lambda path: path.name == "deep", "deep was not flushed before it was named"),
        (lambda path: path.is_dir() and ".partial" not in str(path), "its name was not flushed"),
        (lambda path: True, "its name was not flushed"),
    ],
)
def test_a_flush_that_is_forgotten_is_noticed(tmp_path, monkeypatch, forgets, complaint):
    true_flush = atomic._flush
    monkeypatch.setattr(atomic, "_flush", lambda path: None if forgets(path) else true_flush(path))
    recorder = Recorder(monkeypatch)
    _write(tmp_path)
    assert recorder.placed == ["file", "model", "model"]
    assert any(complaint in each for each in recorder.wrong()) if complaint else recorder.wrong() == []


def test_what_is_written_after_its_flush_is_noticed(tmp_path, monkeypatch):
    true_flush = atomic._flush

    def flush_and_go_on(path: Path) -> None:
        true_flush(path)
        if path.name == "weights":
            path.write_text("bb")

    monkeypatch.setattr(atomic, "_flush", flush_and_go_on)
    recorder = Recorder(monkeypatch)
    _write(tmp_path)
    assert any("weights was not flushed" in each for each in recorder.wrong())


def test_the_old_folder_goes_only_when_the_name_of_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    order = []
    true_flush, true_return = atomic._flush, atomic._return_or_remove
    monkeypatch.setattr(atomic, "_flush", lambda path: (order.append(path), true_flush(path)))
    monkeypatch.setattr(atomic, "_return_or_remove", lambda path: (order.append("old goes"), true_return(path)))
    _write(tmp_path)
    assert order[order.index("old goes") - 1] == tmp_path
