"""Memory refused, and other errors, outside a step: what is dispensable costs no model, and what is safe is said."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
from whole_runs import weights

import phinetune
from phinetune.errors import PhinetuneError
from phinetune.events import Finished, StepDone, Warned
from phinetune.training import parts
from phinetune.training.step import step_seed

OPTIONS = {"epochs": 2, "lr": 1e-2, "batch_size": 2, "grad_accum": 2, "train.save_steps": 3, "train.eval_steps": 5}

CHECKPOINTS = 7  # that a whole run saves: after 3, 5, 6, 9, 10, 12 and 14 steps


def _train(sheet, base, out, **options):
    events = []
    phinetune.train(sheet, model=str(base), out=out, on_event=events.append, **OPTIONS | options)
    return events


def _notes(events, code="not_written"):
    return [event.message for event in events if isinstance(event, Warned) and event.code == code]


@pytest.fixture(scope="module")
def whole(toy_base, toy_sheet, tmp_path_factory) -> bytes:
    root = tmp_path_factory.mktemp("whole")
    _train(toy_sheet, toy_base, root)
    return weights(root)


@pytest.fixture
def broken(monkeypatch):
    """Make a function of a module fail at the calls whose number, from 1, is `when`."""

    def break_it(module, name, error=MemoryError, when=lambda _: True):
        place, calls = importlib.import_module(module), []
        real = getattr(place, name)

        def failing(*args, **named):
            calls.append(name)
            if when(len(calls)):
                raise error("refused")
            return real(*args, **named)

        monkeypatch.setattr(place, name, failing)

    return break_it


@pytest.fixture
def unsound(monkeypatch):
    """Steps 8 to 10 give no numbers, the first time."""
    place = importlib.import_module("phinetune.training.parts")
    real, bad = place.step_gradients, {step_seed(42, step) for step in (8, 9, 10)}

    def step_gradients(*args, seed, **named):
        result = real(*args, seed=seed, **named)
        if seed in bad:
            bad.discard(seed)
            return replace(result, train_loss=float("nan"))
        return result

    monkeypatch.setattr(place, "step_gradients", step_gradients)


@pytest.mark.parametrize("error", [MemoryError, ValueError])
@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        ("phinetune.api.outputs", "draw_run", "the pictures"),
        ("phinetune.api.outputs", "write_card", "the model card"),
        ("phinetune.api.tuning", "report_on", "the report"),
        ("phinetune.api.tuning", "diagnosis_of", "pictures and figures"),
    ],
)
def test_what_is_dispensable_costs_no_model_whatever_happens_to_it(
    toy_base, toy_sheet, tmp_path, whole, broken, module, name, what, error
):
    broken(module, name, error)
    [said] = _notes(_train(toy_sheet, toy_base, tmp_path))
    assert f"a problem with {what}, not with the model: " in said
    assert ("there was no memory for it." if error is MemoryError else "ValueError, refused.") in said
    assert weights(tmp_path) == whole


def test_a_person_who_leaves_while_the_pictures_are_drawn_leaves(toy_base, toy_sheet, tmp_path, broken):
    broken("phinetune.api.outputs", "draw_run", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        _train(toy_sheet, toy_base, tmp_path)


def test_without_memory_to_keep_the_best_adapter_its_checkpoint_has_it(
    toy_base, toy_sheet, tmp_path, whole, broken, monkeypatch
):
    losses = iter([5.0, 4.0, 3.0, 2.0])  # of the untrained model and after three validations; then it rises
    monkeypatch.setattr(parts, "validation_loss", lambda *_: next(losses, 6.0))
    broken("phinetune.model.lora", "copy_weights", when=lambda call: call > 2)
    events = _train(toy_sheet, toy_base, tmp_path, epochs=6, patience=0)
    [end] = [event for event in events if isinstance(event, Finished)]
    assert end.kept_step < end.step
    checkpoint = tmp_path / "checkpoints" / f"checkpoint-{end.kept_step}" / "adapter_model.safetensors"
    assert weights(tmp_path) == checkpoint.read_bytes()


def test_a_model_is_written_at_the_second_try(toy_base, toy_sheet, tmp_path, whole, broken):
    broken("phinetune.model.lora", "save", when=lambda call: call == CHECKPOINTS + 1)
    events = _train(toy_sheet, toy_base, tmp_path)
    assert not _notes(events, "checkpoint_failed")
    assert weights(tmp_path) == whole


def test_a_model_that_there_is_no_memory_for_is_there_after_a_resume(
    toy_base, toy_sheet, tmp_path, whole, broken, monkeypatch
):
    broken("phinetune.model.lora", "save", when=lambda call: call > CHECKPOINTS)
    with pytest.raises(PhinetuneError, match="its model could not be saved: there was no memory") as stopped:
        _train(toy_sheet, toy_base, tmp_path)
    _names_what_is_safe(stopped.value, "checkpoint-14")
    monkeypatch.undo()
    assert not [e for e in _train(toy_sheet, toy_base, tmp_path, resume=True) if isinstance(e, StepDone)]
    assert weights(tmp_path) == whole


def _names_what_is_safe(error: PhinetuneError, checkpoint: str) -> None:
    assert f"{checkpoint} is safe: the same command with --resume" in error.hint
    assert "--overwrite" not in str(error)


def test_no_memory_to_go_back_is_an_error_with_what_is_safe_and_a_resume_is_back(
    toy_base, toy_sheet, tmp_path, broken, unsound, monkeypatch
):
    broken("phinetune.training.checkpoint", "load_file")
    with pytest.raises(PhinetuneError, match="no memory left to go back to checkpoint-6") as stopped:
        _train(toy_sheet, toy_base, tmp_path)
    _names_what_is_safe(stopped.value, "checkpoint-6")
    monkeypatch.undo()
    steps = [event for event in _train(toy_sheet, toy_base, tmp_path, resume=True) if isinstance(event, StepDone)]
    assert steps[0].step == 7
    assert (tmp_path / "model").is_dir()


def test_a_refusal_while_going_back_that_does_not_come_again_is_none(toy_base, toy_sheet, tmp_path, broken, unsound):
    broken("phinetune.training.checkpoint", "load_file", when=lambda call: call == 1)
    assert _notes(_train(toy_sheet, toy_base, tmp_path), "rolled_back")


@pytest.mark.parametrize("place", ["phinetune.training.checkpoint.save_file", "phinetune.training.parts.recall.choose"])
def test_wherever_a_run_under_way_has_no_memory_it_names_what_is_safe(
    toy_base, toy_sheet, tmp_path, monkeypatch, place
):
    """A checkpoint is tried again in its time; what nothing is done about ends the run."""
    if "save_file" in place:
        import phinetune.training.checkpoint as module

        real, calls = module.save_file, []

        def save_file(*args):
            calls.append(1)
            if len(calls) in (2, 3):
                raise MemoryError
            real(*args)

        monkeypatch.setattr(module, "save_file", save_file)
        [said] = _notes(_train(toy_sheet, toy_base, tmp_path), "checkpoint_failed")
        assert "no memory left to save checkpoint-5. Training goes on" in said
        assert "until then checkpoint-3 is safe" in said
        return

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(place, refuse)
    with pytest.raises(PhinetuneError, match="no memory left for the run to go on") as stopped:
        _train(toy_sheet, toy_base, tmp_path)
    _names_what_is_safe(stopped.value, "checkpoint-14")
    assert "--batch-size 1 --grad-accum 4" in stopped.value.hint


@pytest.mark.parametrize("name", ["load_base", "Encoder"])
def test_no_memory_on_the_way_to_the_first_step_says_how_much_the_model_takes(
    toy_base, toy_sheet, tmp_path, broken, name, monkeypatch
):
    steps = []
    phinetune.train(
        toy_sheet, model=str(toy_base), out=tmp_path / "part", on_event=steps.append,
        stop_requested=lambda: sum(isinstance(event, StepDone) for event in steps) > 3, **OPTIONS,
    )  # fmt: skip
    broken("phinetune.api.tuning", name)
    with pytest.raises(PhinetuneError, match=r"weights alone take 0\.0 GB, and this device has .* GB") as stopped:
        _train(toy_sheet, toy_base, tmp_path / "new")
    assert "smaller --model" in stopped.value.hint
    assert "--overwrite" not in str(stopped.value)
    with pytest.raises(PhinetuneError) as stopped:
        _train(toy_sheet, toy_base, tmp_path / "part", resume=True)
    _names_what_is_safe(stopped.value, "checkpoint-4")


def test_no_memory_to_read_the_sheet_is_said_of_the_sheet(toy_base, toy_sheet, tmp_path, broken):
    broken("phinetune.api.tuning", "read_sheet")
    with pytest.raises(PhinetuneError, match=r"no memory to read dataset\.xlsx"):
        _train(toy_sheet, toy_base, tmp_path)
