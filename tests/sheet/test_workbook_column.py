"""A column is put into a workbook between the bytes that are there, or not at all."""

from __future__ import annotations

import io
import zipfile

import openpyxl
import pytest
import xlsxwriter

from phinetune.sheet.workbook_column import NewColumn, with_column

SHEET = "xl/worksheets/sheet1.xml"
ADDED = NewColumn(2, 0, {1: "Answer", 2: "<At> nine & ten.", 3: ""})


def _book(rows=(("Question", "Note"), ("When?", 5), ("Who?", 6))) -> bytes:
    made = io.BytesIO()
    with xlsxwriter.Workbook(made) as book:
        sheet = book.add_worksheet("FAQ")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return made.getvalue()


def _changed(data: bytes, part: str, change) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as written:
        for name in archive.namelist():
            written.writestr(name, change(archive.read(name)) if name == part else archive.read(name))
    return made.getvalue()


def _values(data: bytes) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(io.BytesIO(data))["FAQ"].iter_rows(values_only=True))


def test_cells_are_put_behind_those_of_their_rows_and_every_other_part_is_untouched():
    before = _book()
    after = with_column(before, "FAQ", ADDED)
    assert after is not None
    assert _values(after) == [("Question", "Note", "Answer"), ("When?", 5, "<At> nine & ten."), ("Who?", 6, None)]
    with zipfile.ZipFile(io.BytesIO(before)) as old, zipfile.ZipFile(io.BytesIO(after)) as new:
        assert old.namelist() == new.namelist()
        assert all(old.read(name) == new.read(name) for name in old.namelist() if name != SHEET)


def test_a_cell_that_is_there_is_replaced_and_those_right_of_it_stay():
    after = with_column(
        _book([("Question", "Answer", "Due"), ("When?", " ", 5)]), "FAQ", NewColumn(1, 0, {2: "At nine."})
    )
    assert after is not None
    assert _values(after) == [("Question", "Answer", "Due"), ("When?", "At nine.", 5)]


def test_a_gap_is_filled():
    after = with_column(_book([("Question", None, "Due"), ("When?", None, 5)]), "FAQ", NewColumn(1, 0, {2: "At nine."}))
    assert after is not None
    assert _values(after)[1] == ("When?", "At nine.", 5)


def test_names_with_a_prefix_and_cells_without_a_place_are_understood():
    cells = b"<x:c><x:v>2</x:v></x:c><x:c><x:v>3</x:v></x:c>"
    rows = b'<x:row><x:c><x:v>1</x:v></x:c></x:row><x:row spans="1:1">%s</x:row>' % cells
    space = b'xmlns:x="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    xml = b"<x:worksheet %s><x:sheetData>%s</x:sheetData></x:worksheet>" % (space, rows)
    after = with_column(_changed(_book(), SHEET, lambda _: xml), "FAQ", ADDED)
    assert after is not None
    assert _values(after) == [(1, None, "Answer"), (2, 3, "<At> nine & ten.")]


def test_the_width_of_a_column_is_set_once_and_in_order():
    for cols, wanted in (
        (b'<cols><col min="1" max="2" width="9"/><col min="9" max="9" width="9"/></cols>', b'<col min="3" max="3"'),
        (b'<cols><col min="1" max="16384" width="9"/></cols>', None),
    ):
        book = _changed(_book(), SHEET, lambda xml, cols=cols: xml.replace(b"<sheetData>", cols + b"<sheetData>"))
        after = with_column(book, "FAQ", ADDED)
        assert after is not None
        xml = zipfile.ZipFile(io.BytesIO(after)).read(SHEET)
        assert xml.count(b"<cols>") == 1
        if wanted is None:
            assert xml.count(b"<col ") == 1
        else:
            assert xml.index(b'max="2"') < xml.index(wanted) < xml.index(b'min="9"')


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (
            "[Content_Types].xml",
            lambda xml: xml.replace(b"spreadsheetml.sheet.main", b"ms-excel.sheet.macroEnabled.main"),
        ),
        (SHEET, lambda xml: xml.decode().replace('encoding="UTF-8"', 'encoding="UTF-16"').encode("utf-16")),
        (SHEET, lambda xml: xml.replace(b"<sheetData>", b"<sheetData><row>")),
        (SHEET, lambda xml: b'<!DOCTYPE a [<!ENTITY b "c">]>' + xml.partition(b"?>")[2]),
        (SHEET, lambda xml: xml.replace(b'<c r="B2"', b'<c r="C2"><f>A1</f></c><c r="B2"')),
        (SHEET, lambda xml: xml.replace(b'r="2"', b'r="9"')),
        (SHEET, lambda xml: b""),
    ],
)
def test_what_cannot_take_it_is_left_alone(part, change):
    assert with_column(_changed(_book(), part, change), "FAQ", ADDED) is None


def test_no_archive_no_such_sheet_and_too_far_right_are_left_alone():
    assert with_column(b"PK no archive", "FAQ", ADDED) is None
    assert with_column(_book(), "Other", ADDED) is None
    assert with_column(_book(), "FAQ", NewColumn(16_384, 0, {1: "Answer"})) is None
