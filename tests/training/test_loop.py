"""A whole run on a toy model: what it reports, what it keeps, and that a resume changes nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import toys

from phinetune.errors import RunError
from phinetune.events import Endings, Finished, Recalled, Saved, Started, StepDone, Validated
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training import parts
from phinetune.training.checkpoint import Checkpoints, damage
from phinetune.training.loop import Corpus, fit


def _corpus() -> Corpus:
    pairs = [toys.Pair(f"{q} ({i})", a, i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    return Corpus(examples[:20], examples[20:])


def _overfitting() -> Corpus:
    """Held-out pairs that contradict what is learned: their loss falls while the format is learned, then rises."""
    answers = [answer for _, answer in toys.PAIRS]
    swapped = [toys.Pair(q, answers[i - 2], i) for i, (q, _) in enumerate(toys.PAIRS)]
    learned = [toys.Pair(q, a, i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 128)
    return Corpus(encoder.examples(learned), encoder.examples(swapped))


def _run(folder: Path, *, resume_from=None, stop_after=None, fingerprint="same", corpus=None, **changes):
    options = {"epochs": 3, "learning_rate": 5e-3, "batch_size": 2, "grad_accum": 3} | changes
    settings = TrainSettings(**options)
    model = lora.attach(toys.phi(), LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
    checkpoints = Checkpoints(RunFolder(folder), {"run": fingerprint}, settings.keep_checkpoints)
    events = []

    def stop() -> bool:
        return stop_after is not None and sum(isinstance(e, StepDone) for e in events) >= stop_after

    for event in fit(model, corpus or _corpus(), settings, checkpoints, resume_from=resume_from, stop_requested=stop):
        events.append(event)
    return events, {name: p.detach().clone() for name, p in lora.trainable(model)}, checkpoints


def _of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run reports, and what it learned."""
    events, weights, _ = _run(tmp_path_factory.mktemp("whole"))
    return events, weights


def test_a_run_reports_every_step_and_learns(whole):
    events, _ = whole
    started, finished = _of(events, Started)[0], _of(events, Finished)[0]
    steps = _of(events, StepDone)
    assert started.total_steps == 12 == len(steps) == finished.step
    assert [s.step for s in steps] == list(range(1, 13))
    assert steps[3].epoch == 1.0
    assert steps[-1].train_loss < 0.9 * steps[0].train_loss
    corpus = _corpus()
    assert sum(s.tokens for s in steps[:4]) == sum(len(e.ids) for e in corpus.train)
    assert finished.stopped == "finished"
    assert finished.tokens == 3 * sum(len(e.ids) for e in corpus.train)


def test_the_untrained_model_is_measured_and_every_epoch_validated(whole):
    events, _ = whole
    assert [v.step for v in _of(events, Validated)] == [0, 4, 8, 12]
    assert not _of(events, Validated)[0].is_best


def test_the_best_adapter_ends_in_the_model_and_its_checkpoint_is_kept(tmp_path):
    options = {"epochs": 30, "learning_rate": 3e-2, "patience": 2, "eval_steps": 4, "save_steps": 4}
    events, weights, checkpoints = _run(tmp_path, corpus=_overfitting(), **options)
    finished = _of(events, Finished)[0]
    losses = {v.step: v.eval_loss for v in _of(events, Validated) if v.step}
    assert finished.best_step == min(losses, key=losses.get) != finished.step
    saved = lora.read_weights(checkpoints.folder.checkpoint(finished.best_step))
    for name, value in weights.items():
        assert torch.equal(value, saved[name.replace(".default", "")])
    written = [s.step for s in _of(events, Saved)]
    assert checkpoints.folder.checkpoint_steps() == sorted({finished.best_step, *written[-2:]})


def test_early_stopping_ends_the_run_after_so_many_validations_without_a_better_one(tmp_path):
    events, _, _ = _run(tmp_path, corpus=_overfitting(), epochs=30, learning_rate=3e-2, patience=2, eval_steps=4)
    finished = _of(events, Finished)[0]
    assert finished.stopped == "early_stopping"
    validated = [v.step for v in _of(events, Validated)]
    assert [finished.best_step, finished.step] == [validated[-3], validated[-1]]
    assert finished.step < 120


@pytest.mark.parametrize("stop_after", [1, 4, 7, 11])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, whole, stop_after):
    whole, expected = whole
    part, _, checkpoints = _run(tmp_path / "parts", stop_after=stop_after)
    assert _of(part, Finished)[0].stopped == "interrupted"
    rest, resumed, _ = _run(tmp_path / "parts", resume_from=checkpoints.newest_good()[0])
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name
    both = _of(part, StepDone) + _of(rest, StepDone)
    assert [(s.step, s.train_loss, s.learning_rate) for s in both] == [
        (s.step, s.train_loss, s.learning_rate) for s in _of(whole, StepDone)
    ]
    assert _of(rest, Finished)[0].best_step == _of(whole, Finished)[0].best_step


def test_patience_and_best_score_survive_a_resume(tmp_path):
    options = {"corpus": _overfitting(), "epochs": 30, "learning_rate": 3e-2, "patience": 2}
    whole, _, _ = _run(tmp_path / "whole", **options)
    end = _of(whole, Finished)[0].step
    _, _, checkpoints = _run(tmp_path / "parts", stop_after=end - 1, **options)
    rest, _, _ = _run(tmp_path / "parts", resume_from=checkpoints.newest_good()[0], **options)
    assert _of(rest, Finished)[0].step == end
    assert _of(rest, Finished)[0].best_eval_loss == _of(whole, Finished)[0].best_eval_loss


def test_a_resume_after_early_stopping_trains_no_further(tmp_path):
    options = {"corpus": _overfitting(), "epochs": 30, "learning_rate": 3e-2, "patience": 2}
    whole, expected, checkpoints = _run(tmp_path, **options)
    again, weights, _ = _run(tmp_path, resume_from=checkpoints.newest_good()[0], **options)
    assert not _of(again, StepDone)
    assert _of(again, Finished)[0].best_step == _of(whole, Finished)[0].best_step
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_the_history_of_a_checkpoint_replays_the_run(tmp_path):
    events, _, checkpoints = _run(tmp_path)
    history = checkpoints.history(12)
    assert history == [e for e in events if isinstance(e, StepDone | Validated | Saved)]


def test_a_damaged_checkpoint_is_found_and_the_one_before_taken(tmp_path):
    _, _, checkpoints = _run(tmp_path)
    newest = checkpoints.folder.checkpoint(12) / "optimizer.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    assert damage(checkpoints.folder.checkpoint(12)) == "optimizer.safetensors is not as it was written"
    assert checkpoints.newest_good()[0] == 8


def test_a_run_started_differently_cannot_be_resumed_and_the_difference_is_named(tmp_path):
    _, _, checkpoints = _run(tmp_path)
    with pytest.raises(RunError, match="run: same before, other now"):
        _run(tmp_path, resume_from=checkpoints.newest_good()[0], fingerprint="other")


def test_checkpoints_hold_no_pickle(tmp_path):
    _, _, checkpoints = _run(tmp_path)
    names = {file.name for file in checkpoints.folder.checkpoint(12).iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "checksums.json",
    }
    assert json.loads((checkpoints.folder.checkpoint(12) / "state.json").read_text())["progress"]["step"] == 12


def test_without_validation_pairs_the_last_state_is_kept(tmp_path):
    corpus = _corpus()
    events, weights, checkpoints = _run(tmp_path, corpus=Corpus(corpus.train, []))
    finished = _of(events, Finished)[0]
    assert not _of(events, Validated)
    assert (finished.best_step, finished.best_eval_loss) == (12, None)
    saved = lora.read_weights(checkpoints.folder.checkpoint(12))
    assert all(torch.equal(v, saved[n.replace(".default", "")]) for n, v in weights.items())
    assert checkpoints.folder.checkpoint_steps() == [8, 12]


def test_another_seed_gives_another_run_and_the_same_seed_the_same(tmp_path):
    _, first, _ = _run(tmp_path / "a", epochs=1)
    _, again, _ = _run(tmp_path / "b", epochs=1)
    _, other, _ = _run(tmp_path / "c", epochs=1, seed=7)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


def test_recomputing_activations_changes_memory_and_not_the_result(tmp_path):
    _, plain, _ = _run(tmp_path / "a", epochs=1)
    settings = TrainSettings(epochs=1, learning_rate=5e-3, batch_size=2, grad_accum=3)
    model = lora.attach(toys.phi(), LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for _ in fit(model, _corpus(), settings, Checkpoints(RunFolder(tmp_path / "b"), {}, 2)):
        pass
    for name, parameter in lora.trainable(model):
        torch.testing.assert_close(parameter.detach(), plain[name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def rising(monkeypatch):
    """Facts that no other pair tells: the first measured state has the lowest held-out loss of all."""
    losses = itertools.cycle((5.0, 3.0, 4.0, 4.5, 5.0, 5.5))
    monkeypatch.setattr(parts, "validation_loss", lambda *_: next(losses))
    told = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(
        [toys.Pair(q, a, i) for i, (q, a) in enumerate(toys.PAIRS)]
    )
    options = {"epochs": 15, "learning_rate": 1e-2, "batch_size": 1, "grad_accum": 1, "eval_steps": 18}
    return {"corpus": Corpus(told, told[:1])} | options


def test_an_early_state_is_kept_or_the_last_and_what_both_know_by_heart_is_told(tmp_path, rising):
    best, early, _ = _run(tmp_path, patience=0, **rising)
    assert (best[-1].kept_step, best[-1].best_step, best[-1].step) == (18, 18, 90)
    of_last, of_kept = _of(best, Recalled)
    assert (of_last.step, of_kept.step) == (90, 18)
    assert of_last.asked == of_kept.asked == len(toys.PAIRS)
    assert of_last.right > of_kept.right
    (endings,) = _of(best, Endings)
    assert (endings.step, endings.asked) == (18, 1)
    # The other state of a run that is done is taken without training again.
    last, trained, _ = _run(tmp_path, resume_from=90, patience=0, keep="last", **rising)
    again, as_before, _ = _run(tmp_path, resume_from=90, patience=0, **rising)
    assert not _of([*last, *again], StepDone)
    assert (last[-1].kept_step, again[-1].kept_step) == (90, 18)
    assert _of(last, Recalled) == [of_last]
    assert _of(again, Endings) == [endings]
    assert _of(last, Endings)[0].step == 90
    assert any(not torch.equal(early[name], trained[name]) for name in early)
    assert all(torch.equal(early[name], as_before[name]) for name in early)


def test_patience_ends_no_run_whose_last_state_is_kept(tmp_path, rising):
    stopped, _, _ = _run(tmp_path, patience=2, **rising)
    assert (stopped[-1].stopped, stopped[-1].step) == ("early_stopping", 54)
    went_on, _, _ = _run(tmp_path, resume_from=54, patience=2, keep="last", **rising)
    assert (went_on[-1].stopped, went_on[-1].kept_step) == ("finished", 90)


def test_an_interrupted_run_is_not_asked_what_it_knows(tmp_path):
    interrupted, _, _ = _run(tmp_path, stop_after=2)
    assert not _of(interrupted, Recalled)
    assert not _of(interrupted, Endings)
