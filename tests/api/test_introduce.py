"""What a run says before its first step."""

from __future__ import annotations

import pytest
import torch
import toys

from phinetune.api.introduce import introduce
from phinetune.model import lora
from phinetune.settings import load
from phinetune.sheet.findings import Pair
from phinetune.training.learning_rate import suited_rate


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "4 epochs, learning rate 0.001, 8 pairs a step"),
        ({"epochs": 3}, "learning rate 0.001, 8 pairs a step"),
        ({"batch_size": 4}, "4 epochs, learning rate 0.001"),
        ({"epochs": 3, "lr": 1e-4, "grad_accum": 2}, None),
        ({"model": "microsoft/phi-2"}, None),
    ],
)
def test_of_a_recipe_what_applies_is_named(given, said):
    settings = load(flags={"model": "smollm2-135m"} | given)
    model = lora.attach(toys.phi(), settings.lora, "toy", seed=0)
    notes = introduce(model, settings, [], False, torch.device("cpu"), torch.float32).notes
    told = (f"smollm2-135m is small and learns by a recipe of its own: {said}.",) if said else ()
    assert notes == told


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([("Who?", "We."), ("Where?", "Here.")], "answers under one question each."),
        ([("Who?", "We."), ("Which of us?", "We.")], "answers under several questions each."),
    ],
)
def test_the_rate_of_lr_auto_is_named_with_its_reason(pairs, why):
    settings = load(flags={"model": "smollm2-135m", "lr": "auto"})
    model = lora.attach(toys.phi(), settings.lora, "toy", seed=0)
    pairs = [Pair(question, answer, row) for row, (question, answer) in enumerate(pairs)]
    recipe, rate = introduce(model, settings, pairs, False, torch.device("cpu"), torch.float32).notes
    assert recipe.endswith("of its own: 4 epochs, 8 pairs a step.")
    suited = suited_rate(model.get_base_model().config.hidden_size, answers_repeat="several" in why)
    assert rate == f"Learning rate {suited}: it suits a model of this width, and {why}"
