"""Numbers that go wrong in the middle of a run: steps are skipped, the run goes back, and the best model stays."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import toys

from phinetune.artifacts.metrics import MetricsLog, read_metrics
from phinetune.errors import RunError, TrainingError
from phinetune.events import Finished, RolledBack, Saved, StepDone, StepSkipped, Validated, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints, damage
from phinetune.training.loop import Corpus, fit
from phinetune.training.recovery import reason_to_skip, trouble_with_steps

REAL_RUNS = sorted((Path(__file__).parents[1] / "artifacts" / "runs").rglob("*.csv"))


def _corpus(odd: str = "") -> Corpus:
    """20 pairs to learn from, five a step; `odd` ends the answer of row 7 alone."""
    pairs = [toys.Pair(f"{q} ({i})", a + odd * (i == 7), i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    return Corpus(examples[:20], examples[20:])


class _Run:
    def __init__(
        self,
        folder,
        *,
        corpus=None,
        base=None,
        resume=False,
        stop_after=None,
        stop=lambda run: False,
        before=lambda run, event: None,
        dtype=torch.float32,
        **changes,
    ):
        settings = TrainSettings(**{"epochs": 3, "learning_rate": 5e-3, "batch_size": 5, "grad_accum": 1} | changes)
        base = (toys.phi() if base is None else base).to(dtype)
        self.model = lora.attach(base, LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
        self.checkpoints = Checkpoints(RunFolder(folder), {}, settings.keep_checkpoints)
        self.log = MetricsLog(self.checkpoints.folder)
        start = self.checkpoints.newest_good()[0] if resume else None
        for past in self.checkpoints.history(start) if start is not None else ():
            self.log.consume(past)
        self.events, self.error = [], None
        try:
            for event in fit(
                self.model,
                corpus or _corpus(),
                settings,
                self.checkpoints,
                resume_from=start,
                stop_requested=lambda: (
                    stop(self) or (stop_after is not None and self.of(StepDone)[-1].step >= stop_after)
                ),
            ):
                self.events.append(event)
                self.log.consume(event)
                before(self, event)
        except TrainingError as error:
            self.error = error

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def weights(self):
        return [parameter.detach().clone() for _, parameter in lora.trainable(self.model)]

    def break_weights(self, value: float = float("nan")) -> None:
        with torch.no_grad():
            lora.trainable(self.model)[1][1].fill_(value)

    def moments(self, step: int) -> bytes:
        return (self.checkpoints.folder.checkpoint(step) / "optimizer.safetensors").read_bytes()


def _equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _noise(parameter: torch.Tensor) -> torch.Tensor:
    return 5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


def _unreadable_token() -> tuple[torch.nn.Module, str]:
    """A base model that has no numbers for one letter, as one damaged row of its embedding gives."""
    base, letter = toys.phi(), "Ω"
    ids = toys.tokenizer()(letter).input_ids
    with torch.no_grad():
        base.model.embed_tokens.weight[ids[-1]] = float("nan")
    return base, letter


# --- steps that are skipped


def test_a_step_without_numbers_is_skipped_and_leaves_weights_and_moments_alone(tmp_path):
    base, letter = _unreadable_token()
    events = []

    def before(run, event):
        events.append((event, run.weights))

    run = _Run(tmp_path, corpus=_corpus(letter), base=base, before=before, save_steps=1, keep_checkpoints=50)
    skipped = run.of(StepSkipped)
    assert len(skipped) == 3  # once an epoch, and never two in a row
    assert all((s.reason, s.train_loss) == ("not_finite", None) and 7 in s.rows for s in skipped)
    steps = [(event, weights) for event, weights in events if isinstance(event, StepDone | StepSkipped)]
    assert [event.step for event, _ in steps] == list(range(1, 13))
    for (_, before_it), (event, after_it) in pairwise(steps):
        assert _equal(before_it, after_it) == isinstance(event, StepSkipped)
    assert run.of(Finished)[0].stopped == "finished"
    assert all(torch.isfinite(weights).all() for weights in run.weights)
    first = skipped[0].step
    assert run.moments(first + 1) != run.moments(first - 1)
    assert not run.checkpoints.folder.checkpoint(first).exists()  # a state under suspicion is not written


def test_the_log_counts_a_skipped_step_once_and_gives_it_no_rate(tmp_path):
    base, letter = _unreadable_token()
    run = _Run(tmp_path, corpus=_corpus(letter), base=base)
    rows = read_metrics(run.checkpoints.folder.metrics_csv)
    assert [row.step for row in rows] == list(range(13))
    assert [row.step for row in rows if row.was_skipped] == [s.step for s in run.of(StepSkipped)]
    assert sum(row.tokens for row in rows) == 3 * sum(len(e.ids) for e in _corpus(letter).train)


def test_a_resume_after_a_skipped_step_is_bit_identical(tmp_path):
    def run(folder, **options):
        base, letter = _unreadable_token()
        return _Run(folder, corpus=_corpus(letter), base=base, **options)

    whole = run(tmp_path / "whole")
    stop = whole.of(StepSkipped)[1].step + 1
    run(tmp_path / "parts", stop_after=stop)
    rest = run(tmp_path / "parts", resume=True)
    assert _equal(rest.weights, whole.weights)
    assert [row.step for row in rest.log.rows if row.was_skipped] == [s.step for s in whole.of(StepSkipped)]


def test_fp16_skips_what_no_scale_can_save_and_keeps_its_scale(tmp_path):
    base, letter = _unreadable_token()
    run = _Run(tmp_path, corpus=_corpus(letter), base=base, dtype=torch.float16)
    assert len(run.of(StepSkipped)) == 3
    progress = json.loads((tmp_path / "checkpoints/checkpoint-12/state.json").read_text())["progress"]
    assert progress["loss_scale"] == 2.0**16


# --- spikes


def _history(losses, norms):
    pairs = zip(losses, norms, strict=True)
    return [StepDone(i, i / 10, loss, 1e-3, norm, 100, 1.0) for i, (loss, norm) in enumerate(pairs, 1)]


def _falling(count: int, noise: float, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    wobble = torch.exp(noise * torch.randn(2, count, generator=random)).tolist()
    losses = [(0.5 + 2.5 * math.exp(-4 * i / count)) * w for i, w in enumerate(wobble[0])]
    return losses, wobble[1]


def test_a_spike_stands_out_in_loss_and_gradient_both():
    history = _history(*_falling(60, 0.1))
    assert reason_to_skip(history, 3.0, 12.0) == "spike"
    assert reason_to_skip(history, 3.0, 1.5) is None
    assert reason_to_skip(history, 0.6, 12.0) is None


def test_a_few_steps_do_not_tell_what_is_usual():
    assert reason_to_skip(_history(*_falling(19, 0.1)), 30.0, 120.0) is None


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("inf"), float("nan"))])
def test_what_is_no_number_is_skipped_from_the_first_step_on(loss, norm):
    assert reason_to_skip([], loss, norm) == "not_finite"


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.6])
def test_noise_is_no_spike(noise):
    for seed in range(40):
        losses, norms = _falling(200, noise, seed)
        history = _history(losses, norms)
        found = [i for i in range(200) if reason_to_skip(history[:i], losses[i], norms[i])]
        assert not found, (seed, found)


def test_there_are_real_runs_to_look_at():
    assert REAL_RUNS


@pytest.mark.parametrize("path", REAL_RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_step_of_a_real_run_was_a_spike(path):
    taken = [row for row in read_metrics(path) if row.train_loss is not None and row.grad_norm is not None]
    history = _history([row.train_loss for row in taken], [row.grad_norm for row in taken])
    found = [row.step for i, row in enumerate(taken) if reason_to_skip(history[:i], row.train_loss, row.grad_norm)]
    assert len(taken) >= 5
    assert not found


def test_a_real_spike_is_skipped_and_the_run_goes_on_as_if_it_had_not_been(tmp_path):
    """A state that something spoiled for one step: the step after it is measured with the wrong weights."""
    spoiled = {}

    def spoil(run, event):
        name, parameter = lora.trainable(run.model)[-1]
        if isinstance(event, StepDone) and event.step == 81 and not spoiled:
            spoiled[name] = parameter.detach().clone()
            with torch.no_grad():
                parameter.copy_(_noise(parameter))
        elif isinstance(event, StepSkipped):
            with torch.no_grad():
                parameter.copy_(spoiled[name])

    run = _Run(tmp_path, epochs=90, batch_size=20, eval_steps=45, save_steps=45, learning_rate=2e-2, before=spoil)
    [skipped] = run.of(StepSkipped)
    assert (skipped.step, skipped.reason) == (82, "spike")
    around = [s.train_loss for s in run.of(StepDone) if s.step in (81, 83)]
    assert skipped.train_loss > 2 * max(around)
    assert not run.of(RolledBack)
    assert run.of(Finished)[0].stopped == "finished"


@pytest.mark.parametrize("seed", range(4))
def test_normal_runs_skip_nothing(tmp_path, seed):
    run = _Run(tmp_path, epochs=20, learning_rate=1e-2, seed=seed, patience=0)
    assert len(run.of(StepDone)) == 80
    assert not run.of(StepSkipped)


# --- going back


def _step(step):
    return StepDone(step, 0.1, 1.0, 1e-3, 1.0, 10, 1.0)


def _skip(step):
    return StepSkipped(step, 0.1, "not_finite", None, None, 10, 1.0, ())


def test_three_in_a_row_or_six_of_twenty_are_too_many():
    assert trouble_with_steps([_step(1), _skip(2), _skip(3)]) is None
    assert "3 steps in a row" in trouble_with_steps([_step(1), _skip(2), _skip(3), _skip(4)])
    one_of_three = [(_skip if i % 3 == 0 else _step)(i) for i in range(1, 19)]
    assert "6 of the last 18 steps" in trouble_with_steps(one_of_three)
    assert trouble_with_steps(one_of_three[:-1]) is None
    assert trouble_with_steps([*one_of_three, RolledBack(18, 4, 0.5, 1.0), _skip(5)]) is None


def _breaks_once(step: int):
    """Damage that comes once, as of a bit that flipped: it does not come again when the step is done again."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == step and not run.of(RolledBack):
            run.break_weights()

    return before


def test_damaged_weights_lead_back_to_the_last_checkpoint_at_half_the_rate(tmp_path):
    run = _Run(tmp_path, before=_breaks_once(5))
    [back] = run.of(RolledBack)
    assert (back.step, back.to_step, back.learning_rate_factor) == (8, 4, 0.5)
    assert [s.step for s in run.of(StepSkipped)] == [6, 7, 8]
    [said] = run.of(Warned)
    assert said.code == "rolled_back"
    assert "goes back from step 8 to checkpoint-4, and on at half of the learning rate" in said.message
    steps = [event for event in run.events if isinstance(event, StepDone)]
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12]
    assert steps[5].learning_rate == steps[4].learning_rate / 2
    assert run.of(Finished)[0].stopped == "finished"
    assert all(torch.isfinite(weights).all() for weights in run.weights)


def test_the_figures_of_a_run_that_went_back_count_no_step_twice(tmp_path):
    run = _Run(tmp_path, before=_breaks_once(5))
    rows = read_metrics(run.checkpoints.folder.metrics_csv)
    assert [row.step for row in rows] == list(range(13))
    assert run.log.rollbacks == 1
    finished = run.of(Finished)[0]
    assert finished.tokens == sum(row.tokens for row in rows) == 3 * sum(len(e.ids) for e in _corpus().train)
    history = run.checkpoints.history(12)
    replayed = MetricsLog(RunFolder(tmp_path / "again"))
    for event in history:
        replayed.consume(event)
    assert replayed.rows == run.log.rows
    assert replayed.rollbacks == 1


def test_a_resume_after_going_back_is_bit_identical(tmp_path):
    whole = _Run(tmp_path / "whole", before=_breaks_once(5))
    part = _Run(tmp_path / "parts", before=_breaks_once(5), stop_after=9)
    assert part.of(RolledBack)
    rest = _Run(tmp_path / "parts", resume=True)
    assert _equal(rest.weights, whole.weights)
    assert [(r.step, r.train_loss, r.eval_loss, r.learning_rate) for r in rest.log.rows] == [
        (r.step, r.train_loss, r.eval_loss, r.learning_rate) for r in whole.log.rows
    ]


class _KilledError(TrainingError):
    """The process was ended at this event."""


def _killed_going_back(after: int):
    """Damage after this step, and the end of the process when the run has gone back for it."""

    def before(run, event):
        _breaks_once(after)(run, event)
        if isinstance(event, RolledBack):
            raise _KilledError("killed")

    return before


def _figures(run):
    return [(row.step, row.train_loss, row.eval_loss, row.learning_rate) for row in run.log.rows]


@pytest.mark.parametrize("after", [5, 1])  # back to a checkpoint, and to the beginning
def test_a_run_that_is_killed_when_it_has_gone_back_goes_on_as_one_that_has(tmp_path, after):
    whole = _Run(tmp_path / "whole", before=_breaks_once(after))
    part = _Run(tmp_path / "parts", before=_killed_going_back(after))
    assert isinstance(part.error, _KilledError)
    rest = _Run(tmp_path / "parts", resume=True)
    assert rest.events[0].step == part.of(RolledBack)[0].to_step
    assert not rest.of(RolledBack)
    assert _equal(rest.weights, whole.weights)
    assert _figures(rest) == _figures(whole)
    assert rest.log.rollbacks == whole.log.rollbacks == 1


@pytest.mark.parametrize("after", [5, 1])
def test_leaving_in_the_step_that_goes_back_loses_nothing(tmp_path, after):
    whole = _Run(tmp_path / "whole", before=_breaks_once(after))
    part = _Run(tmp_path / "parts", before=_breaks_once(after), stop=lambda run: len(run.of(StepSkipped)) == 3)
    assert (part.of(Finished)[0].stopped, part.of(Finished)[0].step) == ("interrupted", part.of(RolledBack)[0].to_step)
    rest = _Run(tmp_path / "parts", resume=True)
    assert _equal(rest.weights, whole.weights)
    assert _figures(rest) == _figures(whole)
    assert rest.log.rollbacks == 1


def test_twice_is_twice_however_often_the_run_is_killed(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 9:
            run.break_weights()
        if isinstance(event, RolledBack):
            raise _KilledError("killed")

    runs = [_Run(tmp_path, before=before, epochs=6, resume=resume) for resume in (False, True, True)]
    assert [isinstance(run.error, _KilledError) for run in runs] == [True, True, False]
    assert [back.learning_rate_factor for run in runs for back in run.of(RolledBack)] == [0.5, 0.25]
    assert "after going back twice already" in runs[-1].error.message
    assert runs[-1].log.rollbacks == 2


def test_a_disk_that_does_not_take_the_note_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise RunError("rollback.json could not be written: No space left on device.")

    whole = _Run(tmp_path / "whole", before=_breaks_once(5))
    monkeypatch.setattr("phinetune.training.recovery.write_rollback", refuse)
    run = _Run(tmp_path / "run", before=_breaks_once(5))
    assert [said.code for said in run.of(Warned)] == ["rolled_back", "rollback_not_noted"]
    assert _equal(run.weights, whole.weights)


def test_before_the_first_checkpoint_the_way_back_leads_to_the_beginning(tmp_path):
    run = _Run(tmp_path, before=_breaks_once(1))
    [back] = run.of(RolledBack)
    assert (back.step, back.to_step) == (4, 0)
    assert "to its beginning" in run.of(Warned)[0].message
    first, again = (s for s in run.of(StepDone) if s.step == 1)
    assert (again.train_loss, again.grad_norm) == (first.train_loss, first.grad_norm)
    assert again.learning_rate == first.learning_rate / 2
    assert run.checkpoints.state(12).progress.peak_learning_rate is not None  # what --lr auto found is not forgotten
    assert [row.step for row in run.log.rows] == list(range(13))


def test_a_held_out_loss_that_is_no_number_is_never_the_best_and_leads_back(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 8 and not run.of(RolledBack):
            run.break_weights()

    run = _Run(tmp_path, before=before)
    assert (run.of(RolledBack)[0].step, run.of(RolledBack)[0].to_step) == (8, 4)
    assert "held-out loss is no longer a number" in run.of(Warned)[0].message
    assert all(math.isfinite(v.eval_loss) for v in run.of(Validated))
    assert run.of(Finished)[0].stopped == "finished"


def test_an_adapter_that_is_no_number_is_never_saved(tmp_path):
    """Broken just before a checkpoint that no validation stands before."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == 6 and not run.of(RolledBack):
            run.break_weights(float("inf"))

    run = _Run(tmp_path, before=before, corpus=Corpus(_corpus().train, []), save_steps=3, keep_checkpoints=50)
    assert (run.of(RolledBack)[0].step, run.of(RolledBack)[0].to_step) == (6, 3)
    assert "weights are no longer numbers" in run.of(Warned)[0].message
    for step in run.checkpoints.folder.checkpoint_steps():
        weights = lora.read_weights(run.checkpoints.folder.checkpoint(step))
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert [s.step for s in run.of(Saved)] == [3, 6, 9, 12]


def test_damage_that_comes_again_ends_the_run_with_the_best_state_kept(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 9:
            run.break_weights()

    run = _Run(tmp_path, before=before, epochs=6)
    assert [r.learning_rate_factor for r in run.of(RolledBack)] == [0.5, 0.25]
    assert "after going back twice already" in run.error.message
    best = [v for v in run.of(Validated) if v.is_best][-1].step
    assert f"step {best}, is kept in checkpoints/checkpoint-{best}" in run.error.message
    assert damage(run.checkpoints.folder.checkpoint(best)) is None
    assert "--lr" in run.error.hint
    assert not run.of(Finished)


def test_the_second_way_back_leads_to_the_best_checkpoint_where_the_latest_is_not_sound(tmp_path):
    """Held-out loss rose after step 4, so the checkpoint of step 6 may be where the trouble began."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == 7:
            run.break_weights()
        elif isinstance(event, StepDone) and event.step == 5 and not run.of(RolledBack):
            with torch.no_grad():  # worse, and still a number
                lora.trainable(run.model)[-1][1].copy_(_noise(lora.trainable(run.model)[-1][1]))

    run = _Run(tmp_path, before=before, eval_steps=2, save_steps=2, epochs=6)
    first = {v.step: v.is_best for v in run.of(Validated)[:4]}
    assert first == {0: False, 2: True, 4: True, 6: False}
    assert [(r.step, r.to_step) for r in run.of(RolledBack)] == [(8, 6), (8, 4)]
    assert run.error is not None
    assert max(run.checkpoints.folder.checkpoint_steps()) == 6  # of the third try


def test_a_base_model_that_is_damaged_is_told_before_anything_is_learned(tmp_path):
    base = toys.phi()
    with torch.no_grad():
        base.lm_head.weight[0, 0] = float("nan")
    run = _Run(tmp_path, base=base)
    assert "before any training" in run.error.message
    assert not run.of(StepDone)
