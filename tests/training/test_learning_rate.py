"""`--lr auto` is a rule: what it gives for which model."""

from __future__ import annotations

import pytest
import toys
from transformers import Gemma3Config

from phinetune.settings import TrainSettings
from phinetune.training.learning_rate import usual_rate, with_learning_rate


def test_the_usual_rate_falls_with_the_width():
    # Phi-2 and SmolLM2-135M, by the formula worked out by hand
    assert usual_rate(2560) == pytest.approx(4.12e-4, rel=0.01)
    assert usual_rate(576) == pytest.approx(1.32e-3, rel=0.02)


def test_auto_becomes_the_rate_of_the_model_and_a_number_stays():
    config = toys.phi().config
    auto = TrainSettings(learning_rate="auto", epochs=7)
    assert with_learning_rate(auto, config) == auto.model_copy(update={"learning_rate": usual_rate(config.hidden_size)})
    given = TrainSettings(learning_rate=3e-4)
    assert with_learning_rate(given, config) is given


def test_of_a_model_that_also_sees_the_width_of_its_text_counts():
    config = Gemma3Config(text_config={"hidden_size": 640})
    assert with_learning_rate(TrainSettings(learning_rate="auto"), config).learning_rate == usual_rate(640)
