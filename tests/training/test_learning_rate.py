"""The search for a learning rate: what it tries, what it chooses, and that it leaves no trace."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import toys

from phinetune.events import RateChosen, RateTried
from phinetune.model import lora
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training import learning_rate, step
from phinetune.training.learning_rate import Search, usual_rate


def _search(held_out: int = 6, copies: int = 4, **options) -> Search:
    pairs = [toys.Pair(f"{q} ({i})", a, i) for i, (q, a) in enumerate(toys.PAIRS * copies)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    settings = TrainSettings(**{"epochs": 3, "batch_size": 2, "grad_accum": 1} | options)
    model = lora.attach(toys.phi(), LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
    return Search(model, examples[held_out:], examples[:held_out], settings, pairs_per_row=2)


def _run(search: Search) -> tuple[dict[float, float], RateChosen]:
    *tried, chosen = search.run()
    assert all(isinstance(event, RateTried) for event in tried)
    return {event.learning_rate: event.eval_loss for event in tried}, chosen


def test_the_usual_rate_falls_with_the_width():
    # Phi-2 and SmolLM2-135M, by the formula worked out by hand
    assert usual_rate(2560) == pytest.approx(4.12e-4, rel=0.01)
    assert usual_rate(576) == pytest.approx(1.32e-3, rel=0.01)


def test_it_chooses_the_rate_with_the_lowest_held_out_loss():
    losses, chosen = _run(_search())
    assert 3 <= len(losses) <= 5
    best = min(losses, key=losses.get)
    assert chosen.learning_rate == (best if losses[best] < 0.98 * losses[chosen.usual] else chosen.usual)
    assert all(math.isfinite(loss) for loss in losses.values())
    ladder = sorted(losses)
    assert all(high == pytest.approx(2 * low) for low, high in itertools.pairwise(ladder))


def test_a_toy_that_learns_slowly_wants_more_than_the_usual_rate(monkeypatch):
    monkeypatch.setattr(learning_rate, "usual_rate", lambda _: 1e-3)
    losses, chosen = _run(_search(epochs=5))
    assert list(losses)[:3] == [1e-3, 2e-3, 4e-3]  # on in the better direction
    assert chosen.learning_rate > 1e-3


def test_a_rate_at_which_the_numbers_go_wrong_is_never_chosen(monkeypatch):
    def break_above(optimizer, rate):
        step.move_weights(optimizer, rate if rate < 3e-3 else math.nan)

    monkeypatch.setattr(learning_rate, "usual_rate", lambda _: 8e-3)
    monkeypatch.setattr(learning_rate, "move_weights", break_above)
    losses, chosen = _run(_search())
    assert losses[8e-3] == losses[1.6e-2] == math.inf
    assert math.isfinite(losses[chosen.learning_rate])
    assert chosen.learning_rate <= 4e-3


def test_a_rate_that_is_hardly_better_is_not_worth_leaving_the_usual_one():
    assert learning_rate._best({1e-3: 1.00, 2e-3: 0.99, 5e-4: 1.2}, 1e-3) == 1e-3
    assert learning_rate._best({1e-3: 1.00, 2e-3: 0.97, 5e-4: 1.2}, 1e-3) == 2e-3
    assert learning_rate._next({1e-3: 1.00, 2e-3: 0.97}, 1e-3) == 4e-3
    assert learning_rate._next({1e-3: 1.00, 2e-3: 0.99}, 1e-3) == 5e-4
    assert learning_rate._next({1e-3: 1.00, 2e-3: 0.99, 5e-4: 0.995}, 1e-3) is None


def test_it_leaves_the_adapter_untrained_and_gives_the_same_again():
    search = _search()
    before = {name: value.clone() for name, value in lora.copy_weights(search.model).items()}
    first = _run(search)[0]
    assert all(torch.equal(value, before[name]) for name, value in lora.copy_weights(search.model).items())
    assert all(parameter.grad is None for _, parameter in lora.trainable(search.model))
    assert _run(search)[0] == first


def test_with_nothing_held_out_the_usual_rate_is_taken():
    losses, chosen = _run(_search(held_out=0))
    assert not losses
    assert chosen.learning_rate == chosen.usual


def test_short_runs_take_an_eighth_of_the_pairs_but_enough_to_tell():
    assert len(_search().part()) == 18  # all there are
    assert len(_search(copies=20).part()) == 32
    assert len(_search(copies=80).part()) == 59
    assert len(_search(copies=200).part()) == 64
