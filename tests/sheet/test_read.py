"""Any table file is read alike, by what it is and not by what it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sheets import cells, only_table, put_sheet

from phinetune.errors import SheetError
from phinetune.sheet.read import read_tables

Write = Callable[..., Path]
PAIRS = [["question", "answer"], ["Wo ist Köln?", "Am Rhein,\nsagt man."]]


class TestKinds:
    def test_workbook(self, workbook: Write) -> None:
        table = only_table(workbook({"FAQ": PAIRS}))
        assert table.name == "FAQ"
        assert [row.cells for row in table.rows] == [tuple(row) for row in PAIRS]

    def test_open_document(self, open_document: Write) -> None:
        table = only_table(open_document([["question", "answer"], ["Who?", "We."]]))
        assert table.name == "FAQ"
        assert [row.cells for row in table.rows] == [("question", "answer"), ("Who?", "We.")]

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    def test_separated_text(self, text_file: Write, separator: str) -> None:
        text = f'question{separator}answer\r\nWo ist Köln?{separator}"Am Rhein,\nsagt man."\r\n'
        assert cells(text_file(text)) == [tuple(row) for row in PAIRS]

    @pytest.mark.parametrize(
        "value",
        [
            [{"question": "Who?", "answer": "We."}, {"question": "Why?", "answer": None}],
            {"version": 1, "data": [{"question": "Who?", "answer": "We."}, {"question": "Why?"}]},
            {"question": ["Who?", "Why?"], "answer": ["We.", None]},
            {"question": {"0": "Who?", "1": "Why?"}, "answer": {"0": "We.", "1": None}},
        ],
        ids=["records", "data", "columns", "columns with row labels"],
    )
    def test_json(self, text_file: Write, value: object) -> None:
        table = only_table(text_file(json.dumps(value), "table.json"))
        assert table.columns == ("question", "answer")
        assert [(row.number, *row.cells) for row in table.rows] == [(1, "Who?", "We."), (2, "Why?", "")]

    def test_json_rows_without_names(self, text_file: Write) -> None:
        table = only_table(text_file(json.dumps(PAIRS)))
        assert table.columns is None
        assert [row.cells for row in table.rows] == [tuple(row) for row in PAIRS]

    def test_several_lists_of_one_json_file_are_several_tables(self, text_file: Write) -> None:
        parts = {"train": [{"q": "a", "a": "b"}], "test": [{"q": "c", "a": "d"}]}
        assert [table.name for table in read_tables(text_file(json.dumps(parts)))] == ["train", "test"]

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "table.bin"
        pq.write_table(pa.table({"question": ["Who?", None], "answer": ["We.", "Why not."]}), path)
        table = only_table(path)
        assert table.columns == ("question", "answer")
        assert [row.cells for row in table.rows] == [("Who?", "We."), ("", "Why not.")]

    def test_the_ending_of_the_name_is_not_believed(self, workbook: Write, text_file: Write) -> None:
        assert cells(workbook({"FAQ": PAIRS}, "really_excel.csv"))[0] == ("question", "answer")
        assert cells(text_file("question,answer\nWho?,We.\n", "really_text.xlsx"))[1] == ("Who?", "We.")


class TestRowNumbers:
    def test_are_those_excel_shows_even_when_the_table_starts_lower(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active["C7"], book.active["D7"], book.active["C10"] = "question", "answer", "Who?"
        book.save(tmp_path / "low.xlsx")
        rows = only_table(tmp_path / "low.xlsx").rows
        assert [(row.number, row.cell(2), row.cell(3)) for row in rows] == [(7, "question", "answer"), (10, "Who?", "")]

    def test_of_text_count_records_as_a_spreadsheet_does(self, text_file: Write) -> None:
        text = 'question,answer\n"Who\nis it?",We.\n\nWhy?,Because.\n'
        assert [row.number for row in only_table(text_file(text)).rows] == [1, 2, 4]

    def test_of_json_lines_are_lines(self, text_file: Write) -> None:
        text = '{"q": "Who?", "a": "We."}\n\n{"q": "Why?", "a": "Because."}\n'
        assert [row.number for row in only_table(text_file(text, "table.jsonl")).rows] == [1, 3]

    def test_of_a_line_that_only_names_the_separator_are_not_counted(self, text_file: Write) -> None:
        table = only_table(text_file("\ufeffsep=;\nquestion;answer\nWho?;We, all.\n"))
        assert [(row.number, row.cells) for row in table.rows] == [
            (1, ("question", "answer")),
            (2, ("Who?", "We, all.")),
        ]


class TestRefusals:
    """Each names what is wrong; the hint says what to do."""

    def refusal(self, path: Path) -> SheetError:
        with pytest.raises(SheetError) as caught:
            read_tables(path)
        assert caught.value.hint
        return caught.value

    def test_missing_file_names_its_neighbour(self, text_file: Write) -> None:
        path = text_file("question,answer", "dataset.csv")
        error = self.refusal(path.with_name("datset.csv"))
        assert "There is no file" in error.message
        assert "dataset.csv" in error.hint
        assert "dataset.csv" in self.refusal(path.with_name("dataset.xlsx")).hint
        assert "Did you mean" not in self.refusal(path.with_name("nope.csv")).hint

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in self.refusal(tmp_path).message

    def test_no_permission(self, text_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert "permission denied" in self.refusal(text_file("question,answer")).message

    @pytest.mark.parametrize("text", ["", " \n\t\n", "[]"])
    def test_nothing_in_it(self, text_file: Write, text: str) -> None:
        message = self.refusal(text_file(text)).message
        assert "has no rows" in message or "is empty" in message

    @pytest.mark.parametrize(
        ("start", "kind"),
        [
            (b"%PDF-1.7\n", "PDF"),
            (b"\x89PNG\r\n", "picture"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"<html><table>", "web page"),
            (bytes(range(256)) * 4, "neither text nor a spreadsheet"),
        ],
    )
    def test_other_files(self, tmp_path: Path, start: bytes, kind: str) -> None:
        (tmp_path / "table.xlsx").write_bytes(start)
        assert kind in self.refusal(tmp_path / "table.xlsx").message

    @pytest.mark.parametrize(
        ("member", "kind"), [("word/document.xml", "Word document"), ("a.txt", "zip archive without a spreadsheet")]
    )
    def test_other_archives(self, tmp_path: Path, member: str, kind: str) -> None:
        with ZipFile(tmp_path / "table.xlsx", "w") as archive:
            archive.writestr(member, "text")
        assert kind in self.refusal(tmp_path / "table.xlsx").message

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_cut_off_workbook(self, workbook: Write, share: float) -> None:
        path = workbook({"FAQ": PAIRS})
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert "is damaged" in self.refusal(path).message

    def test_document_type_in_a_sheet(self, workbook: Write) -> None:
        path = workbook({"FAQ": PAIRS})
        put_sheet(path, '<c t="e"><v>&a;</v></c>', '<!DOCTYPE worksheet [<!ENTITY a "aaaa">]>')
        assert "is damaged" in self.refusal(path).message

    @pytest.mark.parametrize("reference", ["A9999999", "ZZZZZZ1"])
    def test_cell_beyond_the_sheet(self, workbook: Write, reference: str) -> None:
        path = workbook({"FAQ": PAIRS})
        put_sheet(path, f'</row><row r="9999999"><c r="{reference}" t="e"><v>#N/A</v></c>')
        assert "is damaged" in self.refusal(path).message

    def test_zip_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("phinetune.sheet.read._SUSPICIOUS_BYTES", 1 << 20)
        with ZipFile(tmp_path / "bomb.xlsx", "w", ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", bytes(3 << 20))
        assert "is too large: it unpacks to 3 MiB" in self.refusal(tmp_path / "bomb.xlsx").message

    def test_stray_cell_far_away(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active["A1"], book.active["XFD20000"] = "question", "stray"
        book.save(tmp_path / "stray.xlsx")
        assert "column XFD, row 20000" in self.refusal(tmp_path / "stray.xlsx").message

    def test_damaged_parquet(self, tmp_path: Path) -> None:
        (tmp_path / "table.parquet").write_bytes(b"PAR1 and nothing more")
        assert "is damaged" in self.refusal(tmp_path / "table.parquet").message

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ('{"q": "a", "a": "b"}\n{"q": "c",\n', 2),
            ('[{"q": "a",\n"a" "b"}]', 2),
            ("[" * 100_000, 1),
        ],
    )
    def test_damaged_json_names_the_line(self, text_file: Write, text: str, line: int) -> None:
        assert f"line {line}: this is not valid JSON" in self.refusal(text_file(text)).message


def test_importing_the_reader_is_light() -> None:
    code = "import sys, phinetune.sheet; print({'pyarrow', 'charset_normalizer', 'numpy', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
