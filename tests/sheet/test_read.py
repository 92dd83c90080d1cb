"""Any table file is read alike, by what it is and not by what it is called."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from phinetune.errors import SheetError
from phinetune.sheet.number_formats import Formatted
from phinetune.sheet.open_document import find_shown
from phinetune.sheet.read import read_tables
from phinetune.sheet.table import Cell, ErrorCell, OwnFormat, Table, UnknownFormat, UnstoredFormula
from phinetune.sheet.workbook import _with_faults, workbook_tables

Write = Callable[..., Path]


def only_table(path: Path) -> Table:
    (table,) = read_tables(path)
    return table


def cells(path: Path) -> list[tuple[Cell, ...]]:
    return [row.cells for row in only_table(path).rows]


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


def put_sheet(path: Path, cells: str, prologue: str = "", styles: str | None = None) -> None:
    """Replace the only sheet of a workbook by one row of cells, written in its XML, and its styles."""
    with ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    xml = f'{prologue}<worksheet {names}><sheetData><row r="1">{cells}</row></sheetData></worksheet>'
    replaced = {"xl/worksheets/sheet1.xml": xml} | ({"xl/styles.xml": styles} if styles is not None else {})
    with ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, replaced.get(name, data))


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
        path = workbook({"FAQ": PAIRS})
        formula = '<c r="{}1"{}><f>""</f><v></v></c>'
        put_sheet(path, formula.format("A", ' t="str"') + formula.format("B", ""))
        assert cells(path) == [("", UnstoredFormula())]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
    def test_of_german(self, text_file: Write, encoding: str) -> None:
        text = "Frage;Antwort\nWie heißt die größte Tür?;Überhaupt nicht „schön“ – für 5 €.\n"
        if encoding.startswith("utf-16-"):
            text = text.replace("„", '"').replace("“", '"').replace("–", "-").replace("€", "EUR")
        rows = cells(text_file(text, encoding=encoding))
        assert rows[1] == tuple(text.splitlines()[1].split(";"))

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("cp1252", "Frage;Antwort\nWo?;Köln\n"),
            ("cp1252", "question;réponse\nOù êtes-vous né ?;À Besançon, près de la forêt.\n"),
            ("cp1250", "pytanie;odpowiedź\nGdzie mieszkasz?;W Łodzi, to piękne miasto, żółte ściany.\n"),
            ("cp1251", "вопрос;ответ\nКак дела?;Спасибо, всё хорошо. А у вас?\n"),
            ("cp1254", "soru;cevap\nNasılsın?;İyiyim, teşekkür ederim. Şimdi çalışıyorum.\n"),
            ("cp932", "質問,回答\n日本の首都はどこですか,東京です。\n元気ですか,はい、元気です。\n"),
            ("gb18030", "问题,答案\n中国的首都是哪里？,北京是中国的首都。\n"),
            ("big5", "問題,答案\n台灣的首都是哪裡？,台北是台灣的首都。\n"),
            ("cp949", "질문,답변\n한국의 수도는 어디입니까?,서울입니다.\n"),
        ],
    )
    def test_without_a_mark_are_recognized_and_the_guess_is_told(
        self, text_file: Write, encoding: str, text: str
    ) -> None:
        table = only_table(text_file(text, encoding=encoding))
        separator = ";" if ";" in text else ","
        assert [row.cells for row in table.rows] == [tuple(line.split(separator)) for line in text.splitlines()]
        assert [warning.code for warning in table.warnings] == ["guessed_encoding"]


class TestSeparatedText:
    def test_commas_in_sentences_do_not_hide_the_semicolon(self, text_file: Write) -> None:
        text = "question;answer\nWho, me?;Yes, you, of course\nWhy?;No reason, really\n"
        assert cells(text_file(text))[1] == ("Who, me?", "Yes, you, of course")

    def test_literal_quotation_marks_are_kept_when_the_columns_come_out_even(self, text_file: Write) -> None:
        assert cells(text_file('question\tanswer\nHow tall?\t"5 feet\nWhy?\tSo.\n'))[1] == ("How tall?", '"5 feet')

    def test_a_quotation_mark_never_closed_is_named_by_its_row(self, text_file: Write) -> None:
        text = 'question,answer\nWho?,"We,\nall\nof us\nWhy?,So.\n'
        with pytest.raises(SheetError, match="row 2: a quotation mark is opened and never closed"):
            read_tables(text_file(text))

    def test_text_cut_at_a_separator_is_told(self, text_file: Write) -> None:
        table = only_table(text_file("question,answer\nWho?,We, all of us\nWhy?,So.\nHow?,Thus.\n"))
        assert [(warning.code, warning.rows) for warning in table.warnings] == [("overlong_rows", (2,))]


class TestChat:
    def test_both_forms_give_one_question_and_one_answer(self, text_file: Write) -> None:
        roles = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
        shares = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
        for chat, key in ((roles, "messages"), (shares, "conversations")):
            table = only_table(text_file(json.dumps(chat)))
            assert table.columns == (f"{key}[user]", f"{key}[assistant]")
            assert table.rows[0].cells == ("Hi", "Hello")

    def test_later_turns_and_system_turns_are_left_out_and_told(self, text_file: Write) -> None:
        def turn(role: str, content: object) -> dict[str, object]:
            return {"role": role, "content": content}

        first = [turn("user", [{"type": "text", "text": "Hi"}]), turn("assistant", "Hello")]
        lines = [first, [turn("system", "Be kind."), *first], [*first, turn("user", "Why?"), turn("assistant", "So.")]]
        table = only_table(text_file("\n".join(json.dumps({"messages": line}) for line in lines)))
        assert {row.cells for row in table.rows} == {("Hi", "Hello")}
        assert {warning.code: warning.rows for warning in table.warnings} == {"multi_turn": (3,), "system_turns": (2,)}


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
