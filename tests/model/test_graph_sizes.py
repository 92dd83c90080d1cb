"""Rows of like length share a recorded graph, and none is recorded that is long or leaves no room."""

from __future__ import annotations

import pytest

from phinetune.model.graph_sizes import may_record, mostly_short, size_of


def test_rows_of_like_length_share_a_size():
    sizes = [size_of([30] * 15 + [tokens], 270 + tokens, is_training=True) for tokens in range(2, 129)]
    assert {(size.tokens, size.answers) for size in sizes} == {(512, 512), (768, 768)}
    assert {(size.documents, size.longest) for size in sizes} == {(32, 512)}


@pytest.mark.parametrize(("answers", "share"), [(4000, 4096), (2000, 2048), (600, 1024)])
def test_a_long_row_makes_logits_for_as_many_places_as_it_needs(answers, share):
    assert size_of([40] * 100, answers, is_training=True).answers == share


def test_long_rows_rows_without_room_and_recomputed_ones_are_not_recorded():
    assert may_record(6144, kept=10, room=100, recompute=False)
    assert not may_record(6145, kept=10, room=100, recompute=False)
    assert not may_record(6144, kept=20, room=100, recompute=False)
    assert not may_record(6144, kept=10, room=100, recompute=True)


def test_rows_with_few_long_documents_are_mostly_short():
    assert mostly_short([64, 2, 30])
    assert mostly_short([40] * 16 + [300])
    assert not mostly_short([40] * 16 + [513])
    assert not mostly_short([65] * 3)
    assert not mostly_short([512] * 4)
    assert mostly_short([400, 40, 20] + [34] * 22)
    assert not mostly_short([400, 40, 20] + [34] * 21)
