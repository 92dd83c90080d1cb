"""phinetune plan"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

import phinetune
from phinetune.cli.options import AS_JSON, DETAILS, setting
from phinetune.cli.plan_page import show_plan
from phinetune.cli.render import print_json

_DATA, _TRAINING, _ADAPTER = "The sheet", "Training", "The adapter"


def command(
    sheet: Path = typer.Argument(help="Table with questions and answers: .xlsx .xls .ods .csv .tsv .json .parquet …"),
    model: str | None = setting("model"),
    device: str = typer.Option(
        "auto", help="What to plan for: auto (what is here), cpu, t4, a100, a100-80gb, h100 or h200."
    ),
    measure: bool = typer.Option(
        False,
        "--measure",
        help="Take a few real steps here, for the time. Loads the model, and downloads what is missing.",
    ),
    download_config: bool = typer.Option(
        False, "--download-config", help="Fetch the model's config and tokenizer, a few MB, where they are not here."
    ),
    out: Path = typer.Option(Path(), "--out", help="Folder that the run would be written to, for the disk."),
    preset: str | None = typer.Option(None, help="fast, quality, small-data (<100 pairs) or large-data (>1000)."),
    question: str | None = setting("question", panel=_DATA),
    answer: str | None = setting("answer", panel=_DATA),
    sheet_name: str | None = setting("sheet_name", "--sheet-name", "--sheet", panel=_DATA),
    template: str | None = setting("template", panel=_DATA),
    max_length: int | None = setting("max_length", panel=_DATA),
    limit: int | None = setting("limit", panel=_DATA),
    epochs: float | None = setting("epochs", panel=_TRAINING),
    batch_size: int | None = setting("batch_size", panel=_TRAINING),
    grad_accum: int | None = setting("grad_accum", panel=_TRAINING),
    lr: str | None = setting("lr", panel=_TRAINING),
    seed: int | None = setting("seed", panel=_TRAINING),
    dtype: str | None = setting("dtype", panel=_TRAINING),
    lora_r: int | None = setting("lora_r", panel=_ADAPTER),
    target_modules: str | None = setting("target_modules", panel=_ADAPTER),
    config: Path | None = typer.Option(None, help="Settings from a YAML file."),
    set_: list[str] | None = typer.Option(None, "--set", help="Any setting: lora.r=32"),
    details: bool = DETAILS,
    as_json: bool = AS_JSON,
) -> None:
    """Will it fit, and how long will it take? Before anything is downloaded.

    Example: phinetune plan dataset.xlsx --model microsoft/phi-2 --device t4
    """
    options: dict[str, Any] = dict(locals())
    for name in ("device", "measure", "download_config", "out", "details", "as_json"):
        options.pop(name)
    options["assignments"] = options.pop("set_") or []
    sheet = options.pop("sheet")
    speed = phinetune.measure_speed(sheet, device=device, **options) if measure else None
    plan = phinetune.plan(
        sheet, out=out, device=device, download_config=download_config, measured_tokens_per_s=speed, **options
    )
    if as_json:
        print_json(plan.to_json())
    else:
        show_plan(plan, details=details)
