from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phinetune.tokens.order import StepOrder


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_every_epoch_shows_every_example_once_in_an_order_of_its_own(count, per_step, seed):
    order = StepOrder(count, per_step, seed)
    steps = order.steps_per_epoch
    first, second = ([i for s in range(e * steps, (e + 1) * steps) for i in order.indices(s)] for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(count))
    assert all(len(order.indices(s)) <= per_step for s in range(steps))
    if count > 20:
        assert first != second


def test_a_step_knows_its_examples_without_the_steps_before_it():
    assert StepOrder(100, 16, 3).indices(11) == StepOrder(100, 16, 3).indices(11)
    assert StepOrder(100, 16, 3).indices(11) != StepOrder(100, 16, 4).indices(11)
