"""phinetune merge"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, AS_JSON
from phinetune.cli.render import Bar, print_json, print_line


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    to: Path = typer.Option(Path("merged"), "--to", help="The folder to write."),
    dtype: str = typer.Option(
        "auto", help="Number format: bf16, fp16, fp32; auto keeps that of the base model's folder."
    ),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """Write the tuned model as an ordinary folder, which plain transformers loads without an adapter.

    Example: phinetune merge . --to merged
    """
    with Bar(silent=as_json) as bar:
        merged = phinetune.merge(run, to, model=model, dtype=dtype, allow_bin=allow_bin, on_progress=bar.show)
    if as_json:
        print_json(vars(merged) | {"path": str(merged.path)})
        return
    print_line(f"Merged into {merged.path} ({merged.kind}, {merged.megabytes:.0f} MB).")
    print_line(
        f"Read back and compared: loss {merged.loss:.3f} on {merged.measured_on}, {merged.adapter_loss:.3f} with "
        "the adapter. It says the same."
    )
