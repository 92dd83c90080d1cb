"""Files made to do damage: each is read, or refused in words, and none ends the process that reads it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phinetune.errors import SheetError
from phinetune.sheet import Pair, find_pairs, normalize_question, read_tables
from phinetune.sheet.apart import rows_apart
from phinetune.sheet.near_duplicates import near_duplicates
from phinetune.sheet.personal_data import find_personal, hide_personal

TORTURE = Path(__file__).parents[2] / "torture"
sys.path.insert(0, str(TORTURE))

import _crafted as crafted  # noqa: E402
import _seeds as seeds  # noqa: E402

ANSWER = "An answer that is long enough."


def refusal(path: Path) -> str:
    with pytest.raises(SheetError) as caught:
        find_pairs(path)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("name", seeds.all_seeds())
def test_honest_files_of_every_kind_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(seeds.all_seeds()[name])
    first, *_ = found = find_pairs(tmp_path / name).pairs
    assert len(found) >= 5
    assert (first.question, first.answer) == ("Who keeps the lighthouse?", "Old Maren Tibb keeps the lighthouse.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        # Read in the process itself, each of these ended it or took all its memory.
        ("stray cell XFD20000 r = '{}'", "is too large"),
        ("stray cell A99999999999 r=\"{}\"", "is too large"),
        ("row far down, no references", "is too large"),
        ("shared count", "is too large"),
        ("ods many repeats", "is too large"),
        ("xls directory cycle", "is too large"),
        ("xls allocation cycle", "is "),
        ("xls stray cell", "is too large"),
        ("xls only a head", "is "),
        ("xlsb stray cell inside", "is too large"),
        ("parquet absurd length", "is damaged"),
        ("understated by 64 MiB", "is "),
        ("hundred thousand sheets", "is too large: it has 100,000 sheets"),
        ("bomb of blanks", "is too large: it unpacks to 100 MiB"),
        ("billion laughs in the strings", "is "),
        ("external entity", "is damaged"),
        ("a million columns", "a spreadsheet has 16,384 at most"),
        # It takes next to no room in the file, and would be looked through for many seconds.
        ("ods a million rows", "it has more than 100,000 rows in only 712 bytes"),
    ],
)  # fmt: skip
def test_what_would_end_the_process_is_refused(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.xlsx"
    path.write_bytes(crafted.GALLERY[name]())
    assert message in refusal(path)


@pytest.mark.parametrize("text", ["[", "<a b=", "eyJ-", "[a](http://b", "**a ", "a@", "&aaaaaa", "-----BEGIN A "])
def test_a_long_text_of_the_same_sign_is_looked_through_once(text: str, tmp_path: Path) -> None:
    pairs = [{"question": "Who keeps it?", "answer": text * (1_000_000 // len(text))}]
    (tmp_path / "long.json").write_text(json.dumps(pairs))
    start = time.process_time()
    assert len(find_pairs(tmp_path / "long.json").pairs) == 1
    assert time.process_time() - start < 10  # minutes and hours where the work grows with the square


def test_a_question_of_one_endless_word_or_of_one_word_again_and_again() -> None:
    start = time.process_time()
    assert near_duplicates([Pair("a" * 300_000, ANSWER, 2), Pair("ha " * 100_000, ANSWER, 3)]) == []
    assert time.process_time() - start < 10


def test_every_address_of_a_long_list_is_hidden() -> None:
    text = " ".join(f"person{number}@firm{number}.org" for number in range(20_000))
    assert len(find_personal(text)) == 20_000
    assert "firm7.org" not in hide_personal(text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\\ud800 who keeps it?", "\ufffd who keeps it?"),
        ("\\ud83d\\ude00 who keeps it?", "😀 who keeps it?"),
        ("what is \\\\ud800 for?", "what is \\ud800 for?"),
    ],
)
def test_half_a_letter_in_json_is_a_letter_that_is_lost(written: str, read: str, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text(f'[{{"question": "{written}", "answer": "{ANSWER}"}}]')
    assert find_pairs(tmp_path / "half.json").pairs[0].question == read


def test_records_that_span_an_endless_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wide.json").write_text(json.dumps([{f"name {number}": "a b"} for number in range(5_000)]))
    assert "5,000 records have 5,000 different names" in refusal(tmp_path / "wide.json")


def test_few_repeated_rows_are_read_however_little_room_they_take(tmp_path: Path) -> None:
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    row = "<table:table-row{}>" + cell * 2 + "</table:table-row>"
    again = ' table:number-rows-repeated="50000"'
    rows = row.format("", "Question", "Answer") + row.format(again, "Who keeps it?", ANSWER)
    (tmp_path / "again.ods").write_bytes(seeds.ods(rows))
    assert len(read_tables(tmp_path / "again.ods")[0].rows) == 50_001


def test_parquet_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    rows = pyarrow.table({"question": ["Who keeps it?"] * 150_000, "answer": [ANSWER] * 150_000})
    pyarrow.parquet.write_table(rows, tmp_path / "again.parquet")
    assert "it has more than 100,000 rows in only" in refusal(tmp_path / "again.parquet")


def test_a_letter_that_becomes_eighteen_does_so_in_the_beginning_of_a_text_only() -> None:
    endless = "\ufdfa" * 1_000_000
    assert len(normalize_question(endless)) < 3 * len(endless)
    assert normalize_question(endless + "a") != normalize_question(endless + "b")
    assert normalize_question("WHO? " + endless) == normalize_question("who: " + endless)


def test_a_cell_longer_than_all_that_is_read_is_named_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(f'question,answer\nWho?,"{"a" * 200_000}"\n')
    assert "row 2: a cell is longer than 131,072 characters" in refusal(tmp_path / "long.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_pipes_devices_and_loops_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert "is no file but a device or pipe" in refusal(tmp_path / "pipe.csv")
    assert "is no file but a device or pipe" in refusal(Path("/dev/zero"))
    assert "cannot be read" in refusal(tmp_path / "loop.csv")
    assert "cannot be read" in refusal(tmp_path / ("a" * 300))


def test_a_part_in_letters_that_nobody_knows_is_damage(tmp_path: Path) -> None:
    parts = seeds.xlsx_parts("<row/>")
    parts["xl/workbook.xml"] = f'<?xml version="1.0" encoding="NaN"?>{parts["xl/workbook.xml"]!s}'
    (tmp_path / "unknown.xlsx").write_bytes(seeds.zipped(parts))
    assert "is damaged" in refusal(tmp_path / "unknown.xlsx")


def test_pictures_in_a_workbook_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "pictures.xlsx").write_bytes(crafted.GALLERY["bomb beside the sheet"]())
    assert len(find_pairs(tmp_path / "pictures.xlsx").pairs) == 5


def test_a_reader_that_never_comes_to_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass")
    monkeypatch.setattr("phinetune.sheet.apart._PROGRAM", endless)
    monkeypatch.setattr("phinetune.sheet.apart._SECONDS", 0.1)
    with pytest.raises(SheetError, match="reading it takes more than"):
        rows_apart("workbook", b"", "endless.xlsx")


def test_the_reader_needs_nothing_of_ours(tmp_path: Path) -> None:
    """It starts for every workbook: an import of the package would double its time."""
    program = Path(find_pairs.__code__.co_filename).with_name("reader_process.py")
    assert "phinetune" not in program.read_text()
    limits = [str(1 << 30), "5"]
    done = subprocess.run(
        [sys.executable, str(program), "workbook", *limits], input=seeds.xlsx_inline(), capture_output=True, check=True
    )
    first, second, *_, last = map(json.loads, done.stdout.splitlines())
    assert first == {"sheet": "FAQ", "hidden": False}
    assert second[0] == [1, ["Question", "Answer", "Date"]]
    assert last == {"end": True}


def test_midnight_is_a_day_and_other_times_are_kept(tmp_path: Path) -> None:
    (tmp_path / "dates.xlsx").write_bytes(seeds.xlsx())
    assert read_tables(tmp_path / "dates.xlsx")[0].rows[1].cells[2] == "2024-01-05"


ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ANY_TEXT, inner, max_size=5),
    max_leaves=30,
)


def read_or_refused(data: bytes) -> None:
    """Through a file, as everything comes; any other exception than SheetError fails."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(SheetError):
            found = find_pairs(Path(file.name))
            json.dumps(found.to_json(), ensure_ascii=False).encode("utf-8")
            assert all(pair.question and pair.answer for pair in found.pairs)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
@example(b"\xff\xfe" + "a,b".encode("utf-16-le") + b"x")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refused(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANY_JSON, st.booleans())
def test_any_json_is_read_or_refused(value: object, in_lines: bool) -> None:
    lines = value if in_lines and isinstance(value, list) else [value]
    read_or_refused("\n".join(json.dumps(line) for line in lines).encode())


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(ANY_TEXT, min_size=1, max_size=4), max_size=12), st.sampled_from(",;\t|"))
def test_any_table_is_read_or_refused(rows: list[list[str]], separator: str) -> None:
    lines = [("question", "answer"), *rows]
    text = "\n".join(separator.join(f'"{cell}"' for cell in row) for row in lines)
    read_or_refused(text.encode("utf-8", "replace"))
