"""phinetune compare"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.comparison_page import show_comparison
from phinetune.cli.options import ALLOW_BIN, AS_JSON
from phinetune.cli.render import Bar, print_json


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    sheet: Path | None = typer.Option(
        None, "--sheet", help="Questions with answers to compare on; those held out in training when left out."
    ),
    question: str | None = typer.Option(
        None, help="Column of --sheet with the questions; as in training, or found, when left out."
    ),
    answer: str | None = typer.Option(
        None, help="Column of --sheet with the answers; as in training, or found, when left out."
    ),
    sheet_name: str | None = typer.Option(None, help="Sheet of the workbook --sheet to use; found when left out."),
    limit: int = typer.Option(200, min=1, help="Ask at most so many of them."),
    judge: str = typer.Option(
        "contains", help="When an answer is right: contains (the expected text), exact, numeric, or llm-endpoint."
    ),
    judge_url: str | None = typer.Option(None, help="For llm-endpoint: address of an OpenAI-compatible interface."),
    judge_model: str = typer.Option("", help="For llm-endpoint: the model's name there."),
    judge_key: str | None = typer.Option(None, envvar="PHINETUNE_JUDGE_KEY", help="For llm-endpoint: its key."),
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [dim]\\[default: 256][/dim]"),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    device: str = typer.Option("auto", help="auto, cuda, mps or cpu."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """See how much better the tuned model answers than its base, with intervals that say how sure that is.

    Example: phinetune compare . --sheet test.xlsx
    """
    named = judge_url or judge_model
    endpoint = phinetune.Endpoint(judge_url or "", judge_model, judge_key) if named else None
    with Bar(silent=as_json) as bar:
        comparison = phinetune.compare(
            run,
            sheet,
            question=question,
            answer=answer,
            sheet_name=sheet_name,
            limit=limit,
            judge_by=judge,
            endpoint=endpoint,
            model=model,
            device=device,
            max_new_tokens=max_new_tokens,
            allow_bin=allow_bin,
            on_progress=bar.show,
        )
    if as_json:
        print_json(comparison.to_json())
    else:
        show_comparison(comparison)
