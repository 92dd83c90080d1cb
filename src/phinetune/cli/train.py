"""phinetune train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

import phinetune
from phinetune.cli.interrupt import Interrupt
from phinetune.cli.options import AS_JSON, OPEN, setting
from phinetune.cli.output import go_on_without_output
from phinetune.cli.render import TrainingPage, print_json
from phinetune.cli.terminal import open_page
from phinetune.events import Event

_OF_THE_RUN = ("sheet", "out", "preset", "config", "resume", "overwrite", "mirror")
_DATA, _TRAINING, _ADAPTER, _RUN = "The sheet", "Training", "The adapter", "The run"


def command(
    sheet: Path = typer.Argument(help="Table with questions and answers: .xlsx .xls .ods .csv .tsv .json .parquet …"),
    out: Path = typer.Option(Path(), "--out", help="Folder for model, checkpoints and pictures."),
    model: str | None = setting("model"),
    preset: str | None = typer.Option(None, help="fast, quality, small-data (<100 pairs) or large-data (>1000)."),
    question: str | None = setting("question", panel=_DATA),
    answer: str | None = setting("answer", panel=_DATA),
    sheet_name: str | None = setting("sheet_name", "--sheet-name", "--sheet", panel=_DATA),
    template: str | None = setting("template", panel=_DATA),
    max_length: int | None = setting("max_length", panel=_DATA),
    limit: int | None = setting("limit", panel=_DATA),
    epochs: float | None = setting("epochs", panel=_TRAINING),
    lr: str | None = setting("lr", panel=_TRAINING),
    batch_size: int | None = setting("batch_size", panel=_TRAINING),
    grad_accum: int | None = setting("grad_accum", panel=_TRAINING),
    warmup_steps: int | None = setting("warmup_steps", panel=_TRAINING),
    patience: int | None = setting("patience", panel=_TRAINING),
    keep: str | None = setting("keep", panel=_TRAINING),
    seed: int | None = setting("seed", panel=_TRAINING),
    device: str | None = setting("device", panel=_TRAINING),
    dtype: str | None = setting("dtype", panel=_TRAINING),
    lora_r: int | None = setting("lora_r", panel=_ADAPTER),
    lora_alpha: float | None = setting("lora_alpha", panel=_ADAPTER),
    lora_dropout: float | None = setting("lora_dropout", panel=_ADAPTER),
    target_modules: str | None = setting("target_modules", panel=_ADAPTER),
    adapter_format: str | None = setting("adapter_format", panel=_ADAPTER),
    config: Path | None = typer.Option(None, help="Settings from a YAML file.", rich_help_panel=_RUN),
    set_: list[str] | None = typer.Option(None, "--set", help="Any setting: lora.r=32", rich_help_panel=_RUN),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint.", rich_help_panel=_RUN),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is in the folder.", rich_help_panel=_RUN),
    mirror: Path | None = typer.Option(
        None,
        "--mirror",
        help="A second folder, on a mounted drive for one, that gets a verified copy of the last checkpoint and of the "
        "finished model. --resume goes on from it when --out has nothing newer.",
        rich_help_panel=_RUN,
    ),
    open_it: bool = OPEN,
    as_json: bool = AS_JSON,
) -> None:
    """Fine-tune a model on a spreadsheet of questions and answers.

    Leaves the tuned model in ./model, checkpoints in ./checkpoints, and pictures and figures in ./training_visuals.
    """
    given: dict[str, Any] = dict(locals())
    runs_with = {name: given.pop(name) for name in _OF_THE_RUN}
    assignments = given.pop("set_") or []
    for name in ("open_it", "as_json"):
        given.pop(name)
    go_on_without_output()
    with TrainingPage(silent=as_json) as page, Interrupt(page.tell) as interrupt:

        def on_event(event: Event) -> None:
            interrupt.watch(event)
            page.show(event)

        run = phinetune.train(
            runs_with.pop("sheet"),
            **runs_with,
            assignments=assignments,
            on_event=on_event,
            stop_requested=interrupt.requested,
            **given,
        )
    if as_json:
        print_json(run.to_json())
    else:
        page.close(run)
        if open_it and run.stopped != "interrupted" and run.folder.report_html.exists():
            open_page(run.folder.report_html)
    if run.stopped == "interrupted":
        raise typer.Exit(130)
