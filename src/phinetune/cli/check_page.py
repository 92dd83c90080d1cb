"""What `check` found -> a page: what was read, the verdict, how long the pairs are, and every finding with its rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from phinetune.cli.terminal import open_console, safe

_MOST_SKIPPED = 20
_MOST_ROWS = 10
_BAR_WIDTH = 24
_PARTS = {"questions": "questions, in the prompt", "answers": "answers"}
_COLORS = {"ready": "green", "look": "green", "few": "yellow", "mend": "red"}


def show_check(report: Any) -> None:
    """Print a `SheetReport`."""
    console = open_console()
    sheets = [report.sheet] if isinstance(report.sheet, str) else report.sheet or []
    console.print(_what_was_read(report, sheets))
    color = _COLORS[report.verdict.level]
    console.print(f"\n[bold {color}]{safe(report.verdict.text)}[/bold {color}]\n")
    _show_lengths(console, report.lengths)
    for warning in report.warnings:
        console.print(f"[yellow]Note:[/yellow] {safe(warning.message)}{_rows(warning, sheets)}")
    if report.skipped:
        console.print(f"\nSkipped rows ({len(report.skipped)}):")
        for skipped in report.skipped[:_MOST_SKIPPED]:
            place = f"{safe(skipped.sheet)}, row" if len(sheets) > 1 else "row"
            console.print(f"  {place} {skipped.row}: {safe(skipped.reason)}")
        if len(report.skipped) > _MOST_SKIPPED:
            console.print(f"  … and {len(report.skipped) - _MOST_SKIPPED} more; --json lists all")
    example = Table.grid(padding=(0, 2))
    first = report.example
    example.add_row("Question", safe(_short(first.question)))
    example.add_row("Answer", safe(_short(first.answer)))
    title = f"The first pair, {f'{safe(first.sheet)}, ' if len(sheets) > 1 else ''}row {first.row}"
    console.print(Panel(example, title=title, title_align="left", expand=False))
    if report.fixed:
        pairs = f"the {len(report.pairs):,} pairs that training would use" if len(report.pairs) > 1 else "the one pair"
        console.print(f"Written to {safe(report.fixed)}: {pairs}, and a list of the findings. Your sheet is untouched.")


def _what_was_read(report: Any, sheets: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("Sheet", " › ".join(safe(part) for part in (report.file, ", ".join(sheets)) if part))
    if report.header_row:
        table.add_row("Header", f"row {report.header_row}")
    names = [f"[bold]{safe(name)}[/bold]" for name in (report.question_column, report.answer_column)]
    table.add_row("Columns", f"question = {names[0]}, answer = {names[1]}")
    if report.ignored_columns:
        table.add_row("Ignored", safe(", ".join(report.ignored_columns)))
    table.add_row("Pairs", f"[bold]{len(report.pairs):,}[/bold]")
    return table


def _show_lengths(console: Console, lengths: Any) -> None:
    """Both histograms below each other, with bars of one scale."""
    how = f"counted as {safe(lengths.counted_by)} does" if lengths.counted_by else "estimated"
    console.print(f"Length in tokens, {how} (both together may have {lengths.max_length:,}):")
    most = max(bar.count for bars in lengths.histograms.values() for bar in bars)
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for name, bars in lengths.histograms.items():
        for place, bar in enumerate(bars):
            drawn = "█" * max(round(_BAR_WIDTH * bar.count / most), bar.count > 0)
            table.add_row("" if place else f"  {_PARTS[name]}", f"{bar.low:,} to {bar.high:,}", f"{bar.count:,}", drawn)
    console.print(table)
    console.print()


def _rows(warning: Any, sheets: Sequence[str]) -> str:
    """Rows 2, 3 and 2 of several sheets are "(One, rows 2, 3; Two, row 2)"."""
    if not warning.rows:
        return ""
    if len(sheets) < 2:
        named = _named(warning.rows[:_MOST_ROWS])
    else:
        places = sorted(zip(warning.sheets, warning.rows, strict=True), key=lambda place: sheets.index(place[0]))
        by_sheet = groupby(places[:_MOST_ROWS], key=itemgetter(0))
        named = "; ".join(f"{safe(sheet)}, {_named([row for _, row in group])}" for sheet, group in by_sheet)
    return f" [dim]({named}{' …' if len(warning.rows) > _MOST_ROWS else ''})[/dim]"


def _named(rows: Sequence[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"
