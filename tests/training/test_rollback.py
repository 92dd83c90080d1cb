"""The note that a run went back, and which checkpoint is gone on from with it."""

from __future__ import annotations

import json

import pytest
import torch
import toys
from toy_training import Run, breaks_once, equal

from phinetune.errors import RunError, TrainingError
from phinetune.events import Finished, RolledBack, StepDone, StepSkipped, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.mirror import Mirror, restore
from phinetune.training.progress import Progress
from phinetune.training.rollback import read_rollback, write_rollback

BACK = RolledBack(3, 2, 0.5, 1.5)


def _save(folder: RunFolder, *progress: Progress) -> Checkpoints:
    model = lora.attach(toys.phi(), LoraSettings(r=2, dropout=0.0), "toy", 0)
    optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=1e-2)
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    checkpoints = Checkpoints(folder, {}, keep=9)
    for each in progress:
        checkpoints.save(model, optimizer, each)
    return checkpoints


def _step(step: int) -> StepDone:
    return StepDone(step, 0.1, 1.0, 1e-3, 1.0, 10, 1.0)


@pytest.fixture
def gone_back(tmp_path) -> Checkpoints:
    """Three checkpoints and the note that the run went back to the second: killed before the third was removed."""
    folder = RunFolder(tmp_path / "run")
    checkpoints = _save(folder, *(Progress(step=n, history=[_step(i) for i in range(1, n + 1)]) for n in (1, 2, 3)))
    write_rollback(folder, Progress(step=2, rollbacks=1, learning_rate_factor=0.5, pairs_per_row=1, history=[BACK]))
    return checkpoints


def test_the_checkpoint_that_was_gone_back_to_is_gone_on_from_with_what_was_learned(gone_back):
    assert gone_back.newest_good() == (2, {})
    progress = gone_back.state(2).progress
    assert (progress.rollbacks, progress.learning_rate_factor, progress.pairs_per_row) == (1, 0.5, 1)
    assert progress.history == [_step(1), _step(2), BACK]


def test_where_that_one_is_damaged_the_one_before_knows_it_too(gone_back):
    (gone_back.folder.checkpoint(2) / "state.json").unlink()
    step, wrong = gone_back.newest_good()
    assert (step, list(wrong)) == (1, [2])
    assert gone_back.state(1).progress.rollbacks == 1


def test_a_checkpoint_saved_since_then_knows_it_by_itself(gone_back):
    history = [_step(1), _step(2), BACK, _step(3), _step(4)]
    _save(gone_back.folder, Progress(step=4, rollbacks=1, learning_rate_factor=0.5, history=history))
    assert gone_back.newest_good() == (4, {})
    assert gone_back.state(4).progress.history == history


@pytest.mark.parametrize("change", [lambda text: text[:-9], lambda text: text.replace("0.5", "0.7"), lambda _: "[]"])
def test_a_damaged_note_is_named_and_not_believed(gone_back, change):
    note = gone_back.folder.rollback_json
    assert gone_back.rollback_damage() is None
    note.write_text(change(note.read_text()))
    assert gone_back.rollback_damage()
    assert gone_back.newest_good() == (3, {})
    assert gone_back.state(2).progress.rollbacks == 0


def test_a_run_that_never_went_back_has_none(tmp_path):
    assert read_rollback(RunFolder(tmp_path)) is None
    assert Checkpoints(RunFolder(tmp_path), {}, 2).rollback_damage() is None


def test_the_mirror_has_it_before_it_loses_what_was_gone_back_from(gone_back, tmp_path):
    copy = RunFolder(tmp_path / "mirror")
    (tmp_path / "mirror").mkdir()
    with Mirror(gone_back.folder, copy, anew=False) as mirror:
        mirror.submit(3)
        mirror.finish(2, with_model=False, on_event=lambda _: None)
    assert Checkpoints(copy, {}, 2).newest_good() == (2, {})
    assert json.loads(copy.rollback_json.read_text()) == json.loads(gone_back.folder.rollback_json.read_text())
    again = RunFolder(tmp_path / "again")
    restore(copy, 2, again)
    assert Checkpoints(again, {}, 2).state(2).progress.rollbacks == 1


class _KilledError(TrainingError):
    """The process was ended at this event."""


def _killed_going_back(after: int):
    """Damage after this step, and the end of the process when the run has gone back for it."""

    def before(run, event):
        breaks_once(after)(run, event)
        if isinstance(event, RolledBack):
            raise _KilledError("killed")

    return before


def _figures(run):
    return [(row.step, row.train_loss, row.eval_loss, row.learning_rate) for row in run.log.rows]


@pytest.mark.parametrize("after", [5, 1])  # back to a checkpoint, and to the beginning
def test_a_run_that_is_killed_when_it_has_gone_back_goes_on_as_one_that_has(tmp_path, after):
    whole = Run(tmp_path / "whole", before=breaks_once(after))
    part = Run(tmp_path / "parts", before=_killed_going_back(after))
    assert isinstance(part.error, _KilledError)
    rest = Run(tmp_path / "parts", resume=True)
    assert rest.events[0].step == part.of(RolledBack)[0].to_step
    assert not rest.of(RolledBack)
    assert equal(rest.weights, whole.weights)
    assert _figures(rest) == _figures(whole)
    assert rest.log.rollbacks == whole.log.rollbacks == 1


@pytest.mark.parametrize("after", [5, 1])
def test_leaving_in_the_step_that_goes_back_loses_nothing(tmp_path, after):
    whole = Run(tmp_path / "whole", before=breaks_once(after))
    part = Run(tmp_path / "parts", before=breaks_once(after), stop=lambda run: len(run.of(StepSkipped)) == 3)
    assert (part.of(Finished)[0].stopped, part.of(Finished)[0].step) == ("interrupted", part.of(RolledBack)[0].to_step)
    rest = Run(tmp_path / "parts", resume=True)
    assert equal(rest.weights, whole.weights)
    assert _figures(rest) == _figures(whole)
    assert rest.log.rollbacks == 1


def test_twice_is_twice_however_often_the_run_is_killed(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 9:
            run.break_weights()
        if isinstance(event, RolledBack):
            raise _KilledError("killed")

    runs = [Run(tmp_path, before=before, epochs=6, resume=resume) for resume in (False, True, True)]
    assert [isinstance(run.error, _KilledError) for run in runs] == [True, True, False]
    assert [back.learning_rate_factor for run in runs for back in run.of(RolledBack)] == [0.5, 0.25]
    assert "after going back twice already" in runs[-1].error.message
    assert runs[-1].log.rollbacks == 2


def test_a_disk_that_does_not_take_the_note_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise RunError("rollback.json could not be written: No space left on device.")

    whole = Run(tmp_path / "whole", before=breaks_once(5))
    monkeypatch.setattr("phinetune.training.recovery.write_rollback", refuse)
    run = Run(tmp_path / "run", before=breaks_once(5))
    assert [said.code for said in run.of(Warned)] == ["rolled_back", "rollback_not_noted"]
    assert equal(run.weights, whole.weights)
