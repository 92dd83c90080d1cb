"""What a run shows -> a few lines, worst first: what is wrong and what to change, or that all is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from phinetune.cli.terminal import safe

_MOST = 4
_SIGNS = {"warning": "[bold red]![/bold red]", "note": "[yellow]•[/yellow]", "good": "[green]✓[/green]"}


def print_diagnosis(console: Console, diagnosis: Sequence[Any]) -> None:
    """Print the first few of `Diagnosis`es that are sorted by severity, each with its advice."""
    for found in diagnosis[:_MOST]:
        console.print(f"{_SIGNS[found.severity]} {safe(found.sentence)}")
        if found.advice:
            console.print(f"  [dim]{safe(found.advice)}[/dim]")
    if (rest := len(diagnosis) - _MOST) > 0:
        console.print(f"  [dim]{rest} more in training_visuals/report.html[/dim]")
