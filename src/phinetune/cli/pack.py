"""phinetune pack"""

from __future__ import annotations

from pathlib import Path

import typer

import phinetune
from phinetune.cli.options import AS_JSON
from phinetune.cli.render import print_json, print_line


def command(
    run: Path = typer.Argument(Path(), help="Folder that `phinetune train` wrote to."),
    to: Path = typer.Option(Path("fine_tuned_model.zip"), "--to", help="The zip file to write."),
    as_json: bool = AS_JSON,
) -> None:
    """Pack a tuned model and its pictures into one zip file.

    What quotes your sheet stays out: the report, the comparison and the findings.
    """
    path = phinetune.pack(run, to)
    size_mb = path.stat().st_size / 1e6
    if as_json:
        print_json({"file": str(path), "megabytes": round(size_mb, 1)})
    else:
        print_line(f"Packed model and pictures into {path} ({size_mb:.1f} MB).")
        print_line("Left out, as it quotes your sheet: report.html, the comparison and the findings.")
        print_line("The model is an adapter: whoever receives it needs the base model too; model/README.md names it.")
