"""phinetune check"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.check_page import show_check
from phinetune.cli.options import AS_JSON, DETAILS, setting
from phinetune.cli.render import print_json


def command(
    sheet: Path = typer.Argument(help="Table with questions and answers: .xlsx .xls .ods .csv .tsv .json .parquet …"),
    question: str | None = typer.Option(None, help="Column with the questions; found by its name when left out."),
    answer: str | None = typer.Option(None, help="Column with the answers; found by its name when left out."),
    sheet_name: str | None = typer.Option(None, "--sheet-name", "--sheet", help="Sheet of the workbook to use."),
    model: str | None = typer.Option(
        None, help="Count tokens as this model does, if it is on this machine; estimated when left out."
    ),
    max_length: int | None = setting("max_length"),
    limit: int | None = setting("limit"),
    fix: Path | None = typer.Option(
        None,
        help="Write a new workbook (.xlsx): every pair once, the other columns too, and the findings.",
    ),
    details: bool = DETAILS,
    as_json: bool = AS_JSON,
) -> None:
    """Look at a spreadsheet as training would: columns, pairs, what is skipped, what is wrong, and a verdict.

    Loads no model and changes nothing.
    """
    report = phinetune.check(
        sheet,
        question=question,
        answer=answer,
        sheet_name=sheet_name,
        model=model,
        max_length=max_length,
        limit=limit,
        fix=fix,
    )
    if as_json:
        print_json(report.to_json())
    else:
        show_check(report, sheet, details=details)
