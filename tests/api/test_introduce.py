"""What a run says before its first step."""

from __future__ import annotations

import pytest
import torch
import toys
from transformers import Gemma3Config

from phinetune.api.introduce import introduce, settle_rate
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
    notes = introduce(model, settings, None, False, torch.device("cpu"), torch.float32).notes
    told = (f"smollm2-135m is small and learns by a recipe of its own: {said}.",) if said else ()
    assert notes == told


@pytest.mark.parametrize(
    ("texts", "repeat", "why"),
    [
        ([("Who?", "We."), ("Where?", "Here.")], False, "most answers belong to one question."),
        ([("Who?", "We."), ("Which of us?", "We.")], True, "most answers belong to several questions."),
    ],
)
def test_the_rate_of_lr_auto_is_named_with_its_reason(texts, repeat, why):
    asked = load(flags={"model": "smollm2-135m", "lr": "auto"})
    model = lora.attach(toys.phi(), asked.lora, "toy", seed=0)
    config = model.get_base_model().config
    pairs = [Pair(question, answer, row) for row, (question, answer) in enumerate(texts)]
    settled, said = settle_rate(asked, config, pairs)
    rate = suited_rate(config.hidden_size, answers_repeat=repeat)
    assert settled == load(flags={"model": "smollm2-135m", "lr": rate})
    recipe, note = introduce(model, asked, said, False, torch.device("cpu"), torch.float32).notes
    assert recipe.endswith("of its own: 4 epochs, 8 pairs a step.")
    assert note == said == f"Learning rate {rate}: it suits a model of this size, and a sheet in which {why}"


def test_a_rate_that_was_given_stays_without_a_word():
    given = load(flags={"lr": 3e-4})
    settled, said = settle_rate(given, toys.phi().config, [])
    assert settled is given
    assert said is None


def test_of_a_model_that_also_sees_the_width_of_its_text_counts():
    settled, _ = settle_rate(load(flags={"lr": "auto"}), Gemma3Config(text_config={"hidden_size": 640}), [])
    assert settled.train.learning_rate == suited_rate(640, answers_repeat=False)
