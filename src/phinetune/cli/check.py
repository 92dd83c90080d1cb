"""phinetune check"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import AS_JSON
from phinetune.cli.render import print_json, show_check


def command(
    sheet: Path = typer.Argument(help="Table with questions and answers: .xlsx .xls .ods .csv .tsv .json .parquet …"),
    question: str | None = typer.Option(None, help="Column with the questions; found by its name when left out."),
    answer: str | None = typer.Option(None, help="Column with the answers; found by its name when left out."),
    sheet_name: str | None = typer.Option(None, "--sheet", help="Sheet of the workbook to use."),
    as_json: bool = AS_JSON,
) -> None:
    """Look at a spreadsheet as training would, without loading a model: columns, pairs, and what is skipped and why."""
    table = phinetune.check(sheet, question=question, answer=answer, sheet_name=sheet_name)
    if as_json:
        print_json(table.to_json())
    else:
        show_check(table)
