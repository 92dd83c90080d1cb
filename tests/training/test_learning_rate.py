"""The rule of `--lr auto`: what it gives for which model and sheet."""

from __future__ import annotations

import pytest

from phinetune.training.learning_rate import suited_rate, usual_rate


def test_the_usual_rate_falls_with_the_width():
    # Phi-2 and SmolLM2-135M, by the formula worked out by hand
    assert usual_rate(2560) == pytest.approx(4.12e-4, rel=0.01)
    assert usual_rate(576) == pytest.approx(1.32e-3, rel=0.01)


def test_answers_that_repeat_want_four_times_the_rate_of_others():
    assert suited_rate(2560, answers_repeat=False) == 2.1e-4
    assert suited_rate(2560, answers_repeat=True) == 8.2e-4
