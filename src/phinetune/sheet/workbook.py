"""A spreadsheet's bytes -> its tables, whatever office wrote them: .xlsx, .xlsm, .xls, .xlsb or .ods."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

from phinetune.errors import SheetError
from phinetune.sheet.table import Table, UnstoredFormula, make_rows
from phinetune.sheet.workbook_xml import CellFaults


def workbook_tables(data: bytes, file: str, faults: Mapping[str, CellFaults]) -> list[Table]:
    """One table per worksheet. `faults` (see workbook_xml) are put where the reader leaves a cell empty.

    Raises SheetError when the workbook is protected or damaged.
    """
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as workbook:
            return [
                Table(
                    name=sheet.name,
                    rows=make_rows(
                        enumerate(
                            _with_faults(
                                workbook.get_sheet_by_name(sheet.name).to_python(skip_empty_area=False),
                                faults.get(sheet.name, {}),
                            ),
                            start=1,
                        )
                    ),
                    hidden=sheet.visible is not SheetVisibleEnum.Visible,
                )
                for sheet in workbook.sheets_metadata
                if sheet.typ is SheetTypeEnum.WorkSheet
            ]
    except PasswordError:
        raise password_protected(file) from None
    except CalamineError:
        raise damaged(file) from None
    except BaseException as error:
        # The Rust reader panics on some damaged .xls files, and a panic is not an Exception.
        if type(error).__name__ == "PanicException":
            raise damaged(file) from None
        raise


def password_protected(file: str) -> SheetError:
    return SheetError(
        f"{file} is protected by a password.",
        "Open it in Excel, remove the password (File > Info > Protect Workbook), save it and try again.",
    )


def damaged(file: str) -> SheetError:
    return SheetError(
        f"{file} is damaged: it ends too early or parts of it cannot be read.",
        "Copy or download it again, or open it in Excel, let Excel repair it and save it as .xlsx.",
    )


def _with_faults(values: Sequence[Sequence[object]], faults: CellFaults) -> list[list[object]]:
    rows = [list(row) for row in values]
    for (row, column), fault in faults.items():
        # A fault right of or below the last stored value lies outside what the reader returned.
        rows += [[] for _ in range(row - len(rows))]
        cells = rows[row - 1]
        cells += [""] * (column - len(cells))
        if cells[column - 1] == "" or isinstance(fault, UnstoredFormula):
            cells[column - 1] = fault
    return rows
