"""Checkpoints written while training goes on: those of a run that waits for them, and a failure that comes late."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest
import torch
import toys

from phinetune.errors import DoesNotFitError, RunError, TrainingError
from phinetune.events import Event, Finished, RolledBack, Saved, StepDone, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training import loop, parts
from phinetune.training.checkpoint import Checkpoints, damage
from phinetune.training.loop import Corpus, fit
from phinetune.training.progress import Progress
from phinetune.training.saving import Saver, has_time_beside
from phinetune.training.step import make_optimizer


def _fit(folder: Path, take=lambda events: list(events), **changes):
    """Nine steps, with a checkpoint at every third; `take` iterates over the events."""
    pairs = [toys.Pair(question, answer, row) for row, (question, answer) in enumerate(toys.PAIRS)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)[:6]
    settings = TrainSettings(
        **{"epochs": 3, "learning_rate": 5e-3, "batch_size": 2, "grad_accum": 1, "keep_checkpoints": 9} | changes
    )
    model = lora.attach(toys.phi(), LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
    checkpoints = Checkpoints(RunFolder(folder), {}, settings.keep_checkpoints)
    return take(fit(model, Corpus(examples, examples[:2]), settings, checkpoints)), checkpoints


@pytest.fixture
def beside(monkeypatch):
    monkeypatch.setattr(loop, "has_time_beside", lambda _device: True)


def _files(checkpoints: Checkpoints) -> dict[str, object]:
    """Weights and moments to the bit, and the history without its times."""
    found: dict[str, object] = {}
    for step in checkpoints.folder.checkpoint_steps():
        path = checkpoints.folder.checkpoint(step)
        for name in ("adapter_model.safetensors", "optimizer.safetensors", "adapter_config.json"):
            found[f"{step}/{name}"] = (path / name).read_bytes()
        history = json.loads((path / "state.json").read_text())["progress"]["history"]
        found[f"{step}/history"] = [
            (kind, {name: value for name, value in event.items() if name not in ("seconds", "path")})
            for kind, event in history
        ]
    return found


def test_a_processor_that_trains_has_no_time_to_write():
    assert not has_time_beside(torch.device("cpu"))
    assert has_time_beside(torch.device("cuda"))


def test_the_same_checkpoints_as_a_run_that_waits_for_them(tmp_path, monkeypatch):
    waited, expected = _fit(tmp_path / "waited")
    monkeypatch.setattr(loop, "has_time_beside", lambda _device: True)
    events, found = _fit(tmp_path / "beside")
    assert _files(found) == _files(expected)
    assert [event.step for event in events if isinstance(event, Saved)] == [3, 6, 9]
    assert {type(event) for event in events} == {type(event) for event in waited}
    assert isinstance(events[-1], Finished)


@pytest.mark.usefixtures("beside")
def test_training_goes_on_while_it_is_written_and_is_told_when_it_is_there(tmp_path, monkeypatch):
    may_write, write = threading.Event(), Checkpoints.write

    def slow(self, model, snapshot):
        assert may_write.wait(60)
        return write(self, model, snapshot)

    monkeypatch.setattr(Checkpoints, "write", slow)

    def take(events) -> list[Event]:
        seen = []
        for event in events:
            seen.append(event)
            if isinstance(event, StepDone) and event.step == 5:
                assert not any(isinstance(each, Saved) for each in seen)
                may_write.set()
            if isinstance(event, Saved):
                assert damage(Path(event.path)) is None
        return seen

    events, _ = _fit(tmp_path, take)
    assert [event.step for event in events if isinstance(event, Saved)] == [3, 6, 9]


@pytest.mark.usefixtures("beside")
def test_one_that_cannot_be_written_is_a_warning_and_not_in_the_history(tmp_path, monkeypatch):
    write = Checkpoints.write

    def full(self, model, snapshot):
        if snapshot.step == 6:
            raise RunError("The disk is full.", "Free some.")
        return write(self, model, snapshot)

    monkeypatch.setattr(Checkpoints, "write", full)
    events, checkpoints = _fit(tmp_path)
    assert [event.step for event in events if isinstance(event, Saved)] == [3, 9]
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "checkpoint_failed"
    assert "checkpoint-3 is safe" in warning.message
    assert [event.step for event in checkpoints.history(9) if isinstance(event, Saved)] == [3, 9]


@pytest.mark.usefixtures("beside")
def test_going_back_waits_for_the_checkpoint_that_it_goes_back_to(tmp_path, monkeypatch):
    write, spoilt = Checkpoints.write, []

    def slow(self, model, snapshot):
        threading.Event().wait(0.5)
        return write(self, model, snapshot)

    def are_finite(model) -> bool:
        step = len(spoilt)
        spoilt.append(step)
        return step != 1  # at the second checkpoint, while the first one may be on its way

    monkeypatch.setattr(Checkpoints, "write", slow)
    monkeypatch.setattr(parts, "weights_are_finite", are_finite)
    events, checkpoints = _fit(tmp_path, save_steps=1, eval_steps=99)
    [back] = [event for event in events if isinstance(event, RolledBack)]
    assert (back.step, back.to_step) == (2, 1)
    assert events.index(next(event for event in events if isinstance(event, Saved))) < events.index(back)
    assert checkpoints.newest_good() == (9, {})


@pytest.mark.usefixtures("beside")
def test_leaving_waits_and_says_where_nothing_could_be_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "write", lambda *_: (_ for _ in ()).throw(RunError("The disk is full.", "Free.")))
    pairs = [toys.Pair(question, answer, row) for row, (question, answer) in enumerate(toys.PAIRS)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)[:6]
    model = lora.attach(toys.phi(), LoraSettings(r=4), "toy", 0)
    run = fit(
        model,
        Corpus(examples, []),
        TrainSettings(epochs=3, batch_size=2, grad_accum=1),
        Checkpoints(RunFolder(tmp_path), {}, 1),
        stop_requested=itertools.chain([False], itertools.repeat(True)).__next__,
    )
    with pytest.raises(RunError, match="Stopped after step 2, which could not be saved: The disk is full"):
        list(run)


@pytest.mark.usefixtures("beside")
def test_a_run_that_fails_leaves_what_was_on_its_way_whole(tmp_path, monkeypatch):
    write, began = Checkpoints.write, threading.Event()

    def slow(self, model, snapshot):
        began.set()
        threading.Event().wait(0.3)
        return write(self, model, snapshot)

    monkeypatch.setattr(Checkpoints, "write", slow)

    def take(events) -> list[Event]:
        seen = []
        with pytest.raises(TrainingError, match="broken"):
            for event in events:
                seen.append(event)
                if began.is_set():
                    events.throw(TrainingError("broken", ""))
        return seen

    _, checkpoints = _fit(tmp_path, take)
    assert checkpoints.newest_good() == (3, {})


def test_a_copy_is_what_the_run_was_when_it_was_made(tmp_path):
    model = lora.attach(toys.phi(), LoraSettings(r=4), "toy", 0)
    parameters = [parameter for _, parameter in lora.trainable(model)]
    optimizer, may_write = make_optimizer(parameters, 0.0), threading.Event()
    checkpoints, before = Checkpoints(RunFolder(tmp_path), {}, 1), lora.copy_weights(model)
    saver = Saver(checkpoints, beside=True)
    saver._pool.submit(may_write.wait, 60)
    saver.begin(Saved(1, "", False), model, optimizer, Progress(step=1))
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(1)
            optimizer.state[parameter]["exp_avg"].add_(1)
    assert saver.finish(wait=False) is None
    may_write.set()
    assert saver.finish(wait=True) == (Saved(1, "", False), None)
    saver.close()
    written = lora.read_weights(checkpoints.folder.checkpoint(1))
    assert all(torch.equal(written[name], weight) for name, weight in before.items())
    fresh = lora.attach(toys.phi(), LoraSettings(r=4), "toy", 1)
    moments = make_optimizer([parameter for _, parameter in lora.trainable(fresh)], 0.0)
    checkpoints.resume(1, fresh, moments)
    assert all(not state["exp_avg"].any() for state in moments.state.values())


def test_memory_that_runs_out_beside_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "write", lambda *_: (_ for _ in ()).throw(MemoryError()))
    model = lora.attach(toys.phi(), LoraSettings(r=4), "toy", 0)
    optimizer = make_optimizer([parameter for _, parameter in lora.trainable(model)], 0.0)
    saver = Saver(Checkpoints(RunFolder(tmp_path), {}, 1), beside=True)
    saver.begin(Saved(4, "", False), model, optimizer, Progress(step=4))
    _, error = saver.finish(wait=True)
    saver.close()
    assert isinstance(error, DoesNotFitError)
    assert "checkpoint-4" in error.message
