"""The pairs of a run, kept and found again."""

from __future__ import annotations

import pytest

from phinetune.errors import RunError
from phinetune.sheet.findings import Pair
from phinetune.sheet.kept import keep_pairs, kept_pairs
from phinetune.sheet.split import split

PAIRS = [Pair(f"Who is {i}?\u2028\n", f"{{answer}} {i} «é» 🙂", row=i + 2, sheet="FAQ") for i in range(20)]


def test_both_parts_come_back_as_they_were(tmp_path):
    parts = split(PAIRS, 0.2, seed=1)
    keep_pairs(tmp_path / "pairs.jsonl", parts)
    assert kept_pairs(tmp_path / "pairs.jsonl") == parts


def test_a_run_that_kept_none_has_none(tmp_path):
    assert kept_pairs(tmp_path / "pairs.jsonl") is None


@pytest.mark.parametrize("text", ["{", "[]\n", '{"part": "train"}\n', '{"question":"a","answer":"b","row":"x"}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "pairs.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"pairs\.jsonl is damaged"):
        kept_pairs(tmp_path / "pairs.jsonl")
