"""Cells of workbooks and open documents are read as a person sees them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import openpyxl
import pytest
import xlsxwriter
from sheets import cells, only_table, put_sheet

from phinetune.sheet.number_formats import Formatted
from phinetune.sheet.open_document import find_shown
from phinetune.sheet.table import ErrorCell, OwnFormat, UnknownFormat, UnstoredFormula
from phinetune.sheet.workbook import _with_faults, workbook_tables

Write = Callable[..., Path]


@pytest.fixture
def formatted(tmp_path: Path) -> Write:
    """formatted([(0.15, "0%"), (3, "General")]) writes one row of values, each in a number format."""

    def write(values: Sequence[tuple[object, str]]) -> Path:
        book = xlsxwriter.Workbook(tmp_path / "formatted.xlsx")
        sheet = book.add_worksheet()
        for column, (value, code) in enumerate(values):
            sheet.write(0, column, value, book.add_format({"num_format": code}))
        book.close()
        return tmp_path / "formatted.xlsx"

    return write


class TestValues:
    def test_read_as_a_person_sees_them(self, workbook: Write) -> None:
        values = [3.0, 0.1 + 0.2, True, None, "003"]
        assert cells(workbook({"S": [values]})) == [("3", "0.3", "TRUE", "", "003")]

    def test_dates_are_iso(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active.append([datetime.date(2024, 3, 12), datetime.datetime(2024, 3, 12, 9, 30)])
        book.save(tmp_path / "dates.xlsx")
        assert cells(tmp_path / "dates.xlsx") == [("2024-03-12", "2024-03-12 09:30:00")]

    @pytest.mark.parametrize(
        ("value", "text"),
        [(4915112345678901, "4915112345678901"), (1e20, "1" + 20 * "0"), (1e21, "1e+21")],
    )
    def test_whole_numbers_have_all_their_digits(self, workbook: Write, value: float, text: str) -> None:
        assert cells(workbook({"S": [[value]]})) == [(text,)]

    def test_numbers_are_read_as_the_sheet_shows_them_where_that_is_simple(self, formatted: Write) -> None:
        shown = [(0.15, "0%"), (0.1234, "0.0%"), (1067, "00000"), (2.5, "0.00"), ("003", "0%"), (0.5, "General")]
        assert cells(formatted(shown)) == [("15%", "12.3%", "01067", "2.50", "003", "0.5")]

    def test_others_are_known_to_have_a_format_of_their_own(self, formatted: Write) -> None:
        values = [
            (1234.5, '#,##0.00 "€"'),
            (45413, "dd.mm.yyyy"),
            (1.5, "[h]:mm"),
            (45413, "yyyy-mm-dd"),
            (3, "General"),
        ]
        (row,) = cells(formatted(values))
        assert row == ("1234.5", "2024-05-01", "36:00:00", "2024-05-01", "3")
        assert [isinstance(cell, OwnFormat) for cell in row] == [True, True, True, False, False]

    def test_an_open_document_tells_how_it_shows_its_numbers_and_days(self, open_document: Write) -> None:
        as_stored = {
            "percentage": 'office:value="0.15"',
            "float": 'office:value="7"',
            "currency": 'office:value="1234.5"',
        }
        shown = {"percentage": "15 %", "float": "007", "currency": "1.234,50 €"}
        numbers = [
            f'<table:table-cell office:value-type="{kind}" {stored}><text:p>{shown[kind]}</text:p>'
            "<office:annotation><text:p>a note</text:p></office:annotation></table:table-cell>"
            for kind, stored in as_stored.items()
        ]
        day = '<table:table-cell office:value-type="date" office:date-value="2024-03-12"><text:p>12.3.24</text:p>'
        wide = '<table:table-cell office:value-type="float" office:value="5"><text:p>###</text:p></table:table-cell>'
        twice = numbers[1].replace("<table:table-cell", '<table:table-cell table:number-columns-repeated="2"')
        file = open_document(
            [["question", "answer"]],
            extra=[
                '<table:table-row table:number-rows-repeated="3"><table:table-cell/></table:table-row>',
                f"<table:table-row>{''.join(numbers)}{day}</table:table-cell>{wide}{twice}</table:table-row>",
            ],
        )
        (_, row) = only_table(file).rows
        assert row.number == 5
        assert row.cells == ("15 %", "007", "1.234,50 €", "12.3.24", "5", "007", "007")

    def test_an_open_document_that_claims_endless_numbers_is_read_all_the_same(self, open_document: Write) -> None:
        cell = '<table:table-cell office:value-type="float" office:value="7" {}><text:p>7,0</text:p></table:table-cell>'
        far = f'<table:table-cell table:number-columns-repeated="2000000000"/>{cell.format("")}'
        row = '<table:table-row table:number-rows-repeated="{}">{}</table:table-row>'
        many = cell.format('table:number-columns-repeated="100"')
        shown = find_shown(ZipFile(open_document([["a", "b"]], extra=[row.format(100, many * 200)] * 300)))
        assert len(shown["FAQ"]) < 4_000_000
        assert [key[1] for key in find_shown(ZipFile(open_document([], extra=[row.format(1, far)])))["FAQ"]] == [
            2 * 10**9 + 1
        ]
        bare = ((1, ["a", 7.0]),)
        faults = {(1, 2 * 10**9): Formatted(7.0, "7,0"), (9, 1): Formatted(7.0, "7,0"), (1, 2): Formatted(7.0, "7,0")}
        assert _with_faults(bare, faults) == [(1, ["a", "7,0"])]

    def test_where_formats_are_not_told_numbers_are_known_to_be_bare(self, formatted: Write) -> None:
        data = formatted([(0.15, "0%"), ("15%", "0%"), (7, "000")]).read_bytes()
        (table,) = workbook_tables(data, "old.xls", {}, tells_formats=False)
        assert table.rows[0].cells == ("0.15", "15%", "7")
        assert [isinstance(cell, UnknownFormat) for cell in table.rows[0].cells] == [True, False, True]

    def test_a_formula_has_a_format_too(self, workbook: Write) -> None:
        path = workbook({"S": [["text"]]})
        styles = '<styleSheet><cellXfs><xf numFmtId="0"/><xf numFmtId="9"/></cellXfs><dxfs/></styleSheet>'
        put_sheet(path, '<c r="A1" s="1"><f>B1*2</f><v>0.3</v></c><c r="B1" s="1"><v>0.15</v></c>', styles=styles)
        assert cells(path) == [("30%", "15%")]

    @pytest.mark.parametrize(
        "styles",
        [
            '<styleSheet><cellXfs><xf numFmtId="0"/><xf numFmtId="many"/></cellXfs></styleSheet>',
            '<!DOCTYPE a><styleSheet><cellXfs><xf numFmtId="0"/><xf numFmtId="9"/></cellXfs></styleSheet>',
        ],
    )
    def test_without_readable_styles_numbers_are_bare(self, workbook: Write, styles: str) -> None:
        path = workbook({"S": [["text"]]})
        put_sheet(path, '<c r="A1" s="1"><v>0.15</v></c>', styles=styles)
        assert cells(path) == [("0.15",)]

    def test_an_empty_cell_never_becomes_a_word(self, text_file: Write) -> None:
        (row,) = cells(text_file('[{"q": NaN, "a": null, "n": "nan"}]'))
        assert row == ("", "", "nan")

    def test_error_values_are_told_from_text(self, workbook: Write, text_file: Write) -> None:
        book = workbook({"S": [["=NA()", "#hashtag"]]})
        assert cells(text_file("question,answer\nWho?,#N/A\nWhy?,#BEZUG!\n#hashtag,yes\n"))[1:] == [
            ("Who?", ErrorCell("#N/A")),
            ("Why?", ErrorCell("#BEZUG!")),
            ("#hashtag", "yes"),
        ]
        assert cells(book)[0][1] == "#hashtag"

    def test_error_cells_of_a_workbook_keep_their_name(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active.append(["Who?", "#REF!"])
        book.active["B1"].data_type = "e"
        book.save(tmp_path / "errors.xlsx")
        assert cells(tmp_path / "errors.xlsx") == [("Who?", ErrorCell("#REF!"))]

    def test_formulas_never_calculated_are_told_from_empty_cells(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        book.active.append(["Who?", "=A1&A1", None])
        book.save(tmp_path / "formulas.xlsx")
        assert cells(tmp_path / "formulas.xlsx") == [("Who?", UnstoredFormula())]

    def test_formulas_of_a_program_that_stores_0_for_all_are_not_believed(self, workbook: Write) -> None:
        assert cells(workbook({"S": [["Who?", '="We"&"."']]})) == [("Who?", UnstoredFormula())]

    def test_a_stored_result_is_used(self, tmp_path: Path) -> None:
        book = xlsxwriter.Workbook(tmp_path / "stored.xlsx")
        sheet = book.add_worksheet()
        sheet.write_formula("A1", '="We"&"."', None, "We.")
        sheet.write_formula("B1", "=1-1", None, 0)
        book.close()
        assert cells(tmp_path / "stored.xlsx") == [("We.", "0")]

    def test_a_stored_empty_text_is_no_missing_result(self, workbook: Write) -> None:
        path = workbook({"S": [["text"]]})
        formula = '<c r="{}1"{}><f>""</f><v></v></c>'
        put_sheet(path, formula.format("A", ' t="str"') + formula.format("B", ""))
        assert cells(path) == [("", UnstoredFormula())]
