"""`--lr auto` is a rule: what it gives for which model and sheet."""

from __future__ import annotations

import pytest
import toys
from transformers import Gemma3Config

from phinetune.settings import load
from phinetune.training.learning_rate import suited_rate, usual_rate, with_learning_rate


def test_the_usual_rate_falls_with_the_width():
    # Phi-2 and SmolLM2-135M, by the formula worked out by hand
    assert usual_rate(2560) == pytest.approx(4.12e-4, rel=0.01)
    assert usual_rate(576) == pytest.approx(1.32e-3, rel=0.01)


def test_answers_that_repeat_want_four_times_the_rate_of_others():
    assert suited_rate(2560, answers_repeat=False) == 2.1e-4
    assert suited_rate(2560, answers_repeat=True) == 8.2e-4


@pytest.mark.parametrize("repeat", [False, True])
def test_auto_becomes_the_rate_of_the_model_and_a_number_stays(repeat):
    config = toys.phi().config
    auto, given = load(flags={"lr": "auto", "epochs": 7}), load(flags={"lr": 3e-4})
    suited = load(flags={"lr": suited_rate(config.hidden_size, answers_repeat=repeat), "epochs": 7})
    assert with_learning_rate(auto, config, answers_repeat=repeat) == suited
    assert with_learning_rate(given, config, answers_repeat=repeat) is given


def test_of_a_model_that_also_sees_the_width_of_its_text_counts():
    config = Gemma3Config(text_config={"hidden_size": 640})
    found = with_learning_rate(load(flags={"lr": "auto"}), config, answers_repeat=True)
    assert found.train.learning_rate == suited_rate(640, answers_repeat=True)
