"""Command line options made from the settings, so that name, help and default are declared once."""

from __future__ import annotations

from typing import Any

import typer

from phinetune.settings import SHORT_NAMES, Settings

ALLOW_BIN = typer.Option(
    False, "--allow-bin", help="Read an adapter in pickle form (.bin) too, as numbers alone, never as code."
)
GREEDY = typer.Option(
    None,
    "--greedy/--sample",
    help="Always the likeliest word, so the same answer each time; or words drawn by chance. "
    "[dim]\\[default: greedy][/dim]",
    show_default=False,
)
OPEN = typer.Option(False, "--open", help="Show the report in the browser.")
DETAILS = typer.Option(False, "--details", help="Show everything behind it too.")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of a page, for scripts.")


def setting(short: str, *flags: str, panel: str | None = None) -> Any:
    """The option for a setting: not given means None, so that presets and files can tell."""
    group_name, _, leaf = SHORT_NAMES[short][0].rpartition(".")
    group = Settings.model_fields[group_name].annotation if group_name else Settings
    field = group.model_fields[leaf]  # type: ignore[union-attr]
    default = "" if field.default is None else f" [dim]\\[default: {_shown(field.default)}][/dim]"
    return typer.Option(
        None,
        *(flags or (f"--{short.replace('_', '-')}",)),
        help=f"{field.description}{default}",
        rich_help_panel=panel,
        show_default=False,
    )


def _shown(value: Any) -> str:
    return value.replace("\n", "\\n") if isinstance(value, str) else f"{value:g}"
