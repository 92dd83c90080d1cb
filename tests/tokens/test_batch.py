from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from phinetune.tokens.batch import in_rows, lay_out, micro_batches, validation_batches
from phinetune.tokens.encode import Example

examples = st.lists(
    st.tuples(st.lists(st.integers(0, 99), min_size=2, max_size=9), st.integers(1, 8)).map(
        lambda drawn: Example(tuple(drawn[0]), min(drawn[1], len(drawn[0]) - 1), row=1)
    ),
    min_size=1,
    max_size=9,
)


def test_a_row_is_documents_end_to_end():
    batch = lay_out([Example((5, 6, 7, 8), 2, 1), Example((9, 10, 11), 1, 2)])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.lengths == (4, 3)
    assert batch.targets.tolist() == [7, 8, 10, 11]
    assert batch.predictors.tolist() == [1, 2, 4, 5]


@given(examples)
def test_nothing_is_padding_and_every_answer_token_is_predicted_by_its_neighbour(drawn):
    batch = lay_out(drawn)
    assert batch.tokens == sum(len(e.ids) for e in drawn) == sum(batch.lengths)
    assert batch.answer_tokens == sum(e.answer_tokens for e in drawn)
    assert torch.equal(batch.ids[0][batch.predictors + 1], batch.targets)
    labels = [label for e in drawn for label in e.labels]
    assert batch.targets.tolist() == [label for label in labels if label >= 0]


@given(examples, st.integers(1, 20))
def test_rows_in_order_hold_every_example_once_and_as_many_as_fit(drawn, room):
    rows = in_rows(drawn, room)
    assert [example for row in rows for example in row] == drawn
    sizes = [sum(len(example.ids) for example in row) for row in rows]
    assert all(size <= room or len(row) == 1 for size, row in zip(sizes, rows, strict=True))
    assert all(size + len(after[0].ids) > room for size, after in zip(sizes, rows[1:], strict=False))


@given(examples, st.integers(1, 20))
def test_validation_rows_hold_every_example_once_and_like_lengths_together(drawn, room):
    rows = validation_batches(drawn, room)
    lengths = [length for row in rows for length in row.lengths]
    assert lengths == sorted(len(e.ids) for e in drawn)
    assert all(row.tokens <= max(room, row.lengths[-1]) for row in rows)


def test_micro_batches_hold_at_most_so_many_documents():
    drawn = [Example((1, 2, 3), 1, row) for row in range(9)]
    assert [len(b.lengths) for b in micro_batches(drawn, 4)] == [4, 4, 1]
