"""phinetune verify"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, AS_JSON
from phinetune.cli.render import Bar, print_json, show_broken, show_forms


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    files: list[Path] = typer.Argument(None, help="Merged folders, .gguf files and .gguf adapters to hold against it."),
    sheet: Path | None = typer.Option(
        None, "--sheet", help="Questions and answers to try them with; those held out in training when left out."
    ),
    question: str | None = typer.Option(None, help="Column of --sheet with the questions; found when left out."),
    answer: str | None = typer.Option(None, help="Column of --sheet with the answers; found when left out."),
    sheet_name: str | None = typer.Option(None, help="Sheet of the workbook --sheet to use; found when left out."),
    limit: int = typer.Option(20, min=1, help="So many questions."),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    base_file: Path | None = typer.Option(
        None, "--base-file", help="The .gguf base model that a .gguf adapter belongs to, if it was not trained on one."
    ),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """Ask every form of a tuned model the same questions, and see whether all say the same.

    Promised of a merged folder and of f32, f16 and bf16 is the adapter's loss within 0.001 (f32), 0.002 (f16) or 0.005
    (bf16) nats per answer token, of these three packings also 95 % of its greedy answers, and of q8_0 its loss within
    1 %, or 0.005 where that is more. Where memory is so short that the loss is measured in bf16, 0.01 is added, and of
    fewer than 500 answer tokens, whose loss rounding moves more, the bounds in nats are wider. The command ends with 1
    where a promise is not kept.

    Example: phinetune verify . merged my-model.q8_0.gguf --sheet held_out.xlsx
    """
    with Bar(silent=as_json) as bar:
        forms = phinetune.verify(
            run,
            files or (),
            sheet=sheet,
            question=question,
            answer=answer,
            sheet_name=sheet_name,
            limit=limit,
            model=model,
            allow_bin=allow_bin,
            base_file=base_file,
            on_progress=bar.show,
        )
    if as_json:
        print_json([asdict(form) for form in forms])
    else:
        show_forms(forms)
    if any(form.kept is False for form in forms):
        show_broken(forms)
        raise typer.Exit(1)
