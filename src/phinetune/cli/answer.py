"""phinetune answer"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, AS_JSON
from phinetune.cli.render import Bar, counted, duration, print_json, print_line


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    sheet: Path = typer.Option(..., "--sheet", help="The file with the questions: .xlsx, .csv, …"),
    to: Path = typer.Option(Path("answers.xlsx"), "--to", help="The file to write, .xlsx or .csv."),
    question: str | None = typer.Option(None, help="Column with the questions; found by its name when left out."),
    sheet_name: str | None = typer.Option(None, help="Sheet of the workbook to use."),
    base: bool = typer.Option(False, "--base", help="Ask the base model, without what it has learned."),
    sample: bool = typer.Option(False, "--sample", help="Vary the answers; otherwise always the likeliest word."),
    temperature: float | None = typer.Option(
        None, help="With --sample: higher is more varied. [dim]\\[default: 0.7][/dim]"
    ),
    top_p: float | None = typer.Option(None, help="With --sample: share of likely words to choose from."),
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [dim]\\[default: 256][/dim]"),
    seed: int | None = typer.Option(None, help="Repeat sampled answers."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file --to if it is there."),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """Answer every question of a sheet: its rows come back with the answers in a column.

    From .xlsx to .xlsx all else stays as it was. Any other file is written anew, with that table alone: no colours,
    no formulas, no other sheets. Numbers and dates of a workbook stay such; all other cells are texts.

    Example: phinetune answer . --sheet new_questions.xlsx --to answers.xlsx
    """
    with Bar(silent=as_json) as bar:
        done = phinetune.answer_sheet(
            run,
            sheet,
            to,
            question=question,
            sheet_name=sheet_name,
            base=base,
            greedy=not sample,
            overwrite=overwrite,
            model=model,
            allow_bin=allow_bin,
            on_progress=bar.show,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
    if as_json:
        print_json(vars(done) | {"path": str(done.path)})
        return
    answered = counted(done.answers, "question")
    without = done.rows_without_question
    left_out = f" {counted(without, 'row')} {'has' if without == 1 else 'have'} no question." if without else ""
    new = not done.kept and done.path.suffix.lower() == ".xlsx"
    anew = " Numbers and dates of a workbook stay such; all else is text." if new else ""
    print_line(
        f'Answered {answered} of the column "{done.question_column}" in {duration(done.seconds)}: '
        f'{done.path}, column "{done.column}".{left_out}{anew}'
    )
