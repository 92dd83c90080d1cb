"""What is too much for one sheet is said in one way, and the first pairs of it can be used all the same."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest
import xlsxwriter

from phinetune.errors import SheetError
from phinetune.sheet import find_pairs
from phinetune.sheet import limits as limits_module

ROW = "Who keeps the lighthouse of {0}?,Old Maren Tibb keeps the one of {0}.\n"


def _csv(rows: int) -> str:
    return "question,answer\n" + "".join(ROW.format(number) for number in range(rows))


def _records(rows: int) -> list[dict[str, str]]:
    return [{"question": f"Who keeps the lighthouse of {n}?", "answer": f"Maren keeps {n}."} for n in range(rows)]


def _write(path: Path, rows: int) -> Path:
    """A table of so many pairs, of the kind that the name says."""
    match path.suffix:
        case ".csv":
            path.write_text(_csv(rows))
        case ".json":
            path.write_text(json.dumps(_records(rows)))
        case ".jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in _records(rows)))
        case _:
            with xlsxwriter.Workbook(path) as book:
                sheet = book.add_worksheet()
                for row, texts in enumerate([("question", "answer"), *(r.values() for r in _records(rows))]):
                    sheet.write_row(row, 0, list(texts))
    return path


def _refusal(path: Path) -> SheetError:
    with pytest.raises(SheetError) as refused:
        find_pairs(path)
    return refused.value


KINDS = ["many.csv", "many.json", "many.jsonl", "many.xlsx"]


@pytest.mark.parametrize("name", KINDS)
def test_more_rows_than_can_be_looked_through_are_refused_and_the_first_are_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / name, 1500)
    for room in ("limits", "apart"):
        monkeypatch.setattr(f"phinetune.sheet.{room}.MOST_ROWS", 1600)
    assert len(find_pairs(path).pairs) == 1500
    for room in ("limits", "apart"):
        monkeypatch.setattr(f"phinetune.sheet.{room}.MOST_ROWS", 1400)
    refused = _refusal(path)
    assert refused.message == f"{name} is too large: it has more than 1,400 rows."
    assert "--limit" in refused.hint
    assert len(find_pairs(path, limit=10).pairs) == 10


@pytest.mark.parametrize("name", KINDS)
def test_rows_that_are_no_pairs_do_not_count_towards_the_limit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading brings too few: more is read."""
    monkeypatch.setattr("phinetune.sheet.pairs._BESIDES", 40)
    path = _write(tmp_path / name, 700)
    if name.endswith(("csv", "jsonl")):
        lines = path.read_text().splitlines()
        kept = [
            line if n < 20 or n > 400 else line.replace("lighthouse", "x").replace("Maren", "")
            for n, line in enumerate(lines)
        ]
        path.write_text("\n".join(kept))
    found = find_pairs(path, limit=600)
    assert len(found.pairs) == 600
    assert found.pairs[-1].question.startswith("Who keeps")


def test_what_follows_the_last_wanted_pair_is_not_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(_csv(30) + ",\n" + "No answer?,\n" + ROW.format(1) * 2)
    found = find_pairs(tmp_path / "a.csv", limit=30)
    assert not {"duplicate_pairs", "questions_without_answer", "empty_rows"} & {w.code for w in found.warnings}
    whole = {warning.code for warning in find_pairs(tmp_path / "a.csv").warnings}
    assert {"duplicate_pairs", "questions_without_answer"} <= whole


def test_a_few_pairs_of_a_large_file_cost_little(tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_text(_csv(200_000))
    start = time.process_time()
    tracemalloc.start()
    assert len(find_pairs(tmp_path / "large.csv", limit=20).pairs) == 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - start < 5  # 0.3 s are usual; all of it would take 20
    assert peak < 4 * (tmp_path / "large.csv").stat().st_size


def test_empty_cells_take_neither_time_nor_memory(tmp_path: Path) -> None:
    (tmp_path / "commas.csv").write_text("question,answer" + ("," * 16_000 + "\n") * 1000)
    assert "more than 10,000,000 cells" in _refusal(tmp_path / "commas.csv").message
    tail = "," * 5000 + "\n"
    (tmp_path / "tails.csv").write_text(_csv(1000).replace("\n", tail))
    tracemalloc.start()
    assert len(find_pairs(tmp_path / "tails.csv").pairs) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # 60 MB and more where empty cells are held


def test_long_texts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MOST_PAIR_BYTES", 1000)
    (tmp_path / "long.csv").write_text(_csv(20))
    assert "MB of text, and 0 MB are the most" in _refusal(tmp_path / "long.csv").message
    assert len(find_pairs(tmp_path / "long.csv", limit=5).pairs) == 5


def test_a_text_of_too_many_bytes_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phinetune.sheet.read.MOST_TEXT_BYTES", 1 << 20)
    monkeypatch.setattr("phinetune.sheet.read.decode", lambda _: pytest.fail("it was decoded"))
    (tmp_path / "text.csv").write_text(_csv(30_000))
    assert "it is a text of 2 MiB, and 1 are read" in _refusal(tmp_path / "text.csv").message


@pytest.mark.parametrize("text", ["[" + "[]," * 3_000_000 + "[]]", "[" + "0," * 10_000_001 + "0]"])
def test_json_values_are_counted_before_they_are_made(text: str, tmp_path: Path) -> None:
    (tmp_path / "many.json").write_text(text)
    start = time.process_time()
    assert "more than" in _refusal(tmp_path / "many.json").message
    assert time.process_time() - start < 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_kept_apart_where_the_text_is_cut(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phinetune.sheet.delimited._BLOCK", 7)
    text = f"question,answer{end}" + "".join(f'"Who,{end}{n}?",It is {n}.{end}' for n in range(50))
    (tmp_path / "cut.csv").write_bytes(text.encode())
    assert [pair.answer for pair in find_pairs(tmp_path / "cut.csv").pairs] == [f"It is {n}." for n in range(50)]
