"""What `check` found -> a page: the verdict and what to do, then what was read and every finding in a line; with
details how long the pairs are, and each finding whole, with all its rows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from phinetune.cli.terminal import open_console, safe, short

_FEW_ROWS = 5
_BAR_WIDTH = 24
_PARTS = {"questions": "questions, in the prompt", "answers": "answers"}
_COLORS = {"ready": "green", "look": "green", "few": "yellow", "mend": "red"}
_SHORT, _LONG = 100, 200  # characters of a text


def show_check(report: Any, file: Path, *, details: bool = False) -> None:
    """Print a `SheetReport` on the sheet that was called `file`."""
    console = open_console()
    sheets = [report.sheet] if isinstance(report.sheet, str) else report.sheet or []
    color = _COLORS[report.verdict.level]
    console.print(f"[bold {color}]{safe(report.verdict.text)}[/bold {color}]\n")
    console.print(_what_was_read(report, sheets))
    if details:
        _show_lengths(console, report.lengths)
        _show_example(console, report, sheets)
    else:
        console.print()
    # That pairs are few is the verdict.
    warnings = [warning for warning in report.warnings if details or warning.code != "few_pairs"]
    for warning in warnings:
        said = warning.message if details else _in_a_line(warning.message)
        console.print(f"[yellow]Note:[/yellow] {safe(said)}{_rows(warning, sheets, None if details else _FEW_ROWS)}")
    if details and report.skipped:
        console.print(f"\nSkipped rows ({len(report.skipped)}):")
        for skipped in report.skipped:
            place = f"{safe(skipped.sheet)}, row" if len(sheets) > 1 else "row"
            console.print(f"  {place} {skipped.row}: {safe(skipped.reason)}")
    if warnings and not details:
        console.print("[dim]What each means, with all rows: --details[/dim]")
    _show_next(console, report, shlex.quote(str(file)))


def _show_next(console: Console, report: Any, file: str) -> None:
    console.print()
    if report.fixed:
        again = sum(len(warning.rows) for warning in report.warnings if warning.code == "duplicate_pairs")
        once = f", {again:,} that came again left out" if again else ""
        pairs = f"{len(report.pairs) - again:,} pair{'s' * (len(report.pairs) - again != 1)}"
        fixed = safe(shlex.quote(str(report.fixed)))
        console.print(
            f"Written to {safe(report.fixed)}: {pairs}{once}, the other columns, and a list of the findings. "
            f"Your sheet is untouched.\nNext: [bold]phinetune train {fixed}[/bold]"
        )
        return
    mend = f"[bold]phinetune check {safe(file)} --fix cleaned.xlsx[/bold]"
    train = f"[bold]phinetune train {safe(file)}[/bold]"
    match report.verdict.level:
        case "mend":
            console.print(f"Next: correct these rows. For a copy with a list of them: {mend}")
        case "few":
            console.print("Next: add pairs, or ask the same in other words. To have just these learned by heart:")
            console.print(f"  {train} [bold]--keep last[/bold]")
        case "look":
            console.print(f"Next: {train}\nFor a copy with a list of the rows: {mend}")
        case _:
            console.print(f"Next: {train}")


def _in_a_line(message: str) -> str:
    """ "9 pairs are odd, such as "x" (row 2). They …" -> "9 pairs are odd."; "No names: a was taken. More." -> up to
    the first full stop."""
    before_examples = re.match(r"(.+?), such as (?=\")", message)
    if before_examples:
        return f"{before_examples[1]}."
    return re.split(r"(?<=[.?!]) (?=[A-Z])", message, maxsplit=1)[0]


def _what_was_read(report: Any, sheets: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    place = " › ".join(safe(part) for part in (report.file, ", ".join(sheets)) if part)
    table.add_row("Sheet", place + (f", names in row {report.header_row}" if report.header_row else ""))
    names = [f"[bold]{safe(name)}[/bold]" for name in (report.question_column, report.answer_column)]
    ignored = f" [dim](ignored: {safe(', '.join(report.ignored_columns))})[/dim]" if report.ignored_columns else ""
    table.add_row("Columns", f"question = {names[0]}, answer = {names[1]}{ignored}")
    skipped = f", {len(report.skipped):,} row{'s' * (len(report.skipped) != 1)} skipped" if report.skipped else ""
    table.add_row("Pairs", f"[bold]{len(report.pairs):,}[/bold]{skipped}")
    lengths = report.lengths
    about = "" if lengths.counted_by else "about "
    told = [f"{median(part):.0f}, at most {about}{max(part):,}" for part in (lengths.question, lengths.answer)]
    table.add_row(
        "Tokens", f"questions {about}{told[0]}; answers {about}{told[1]}; {lengths.max_length:,} fit together"
    )
    first = report.example
    where = f"{safe(first.sheet)}, row" if len(sheets) > 1 else "row"
    texts = " → ".join(short(text, _SHORT) for text in (first.question, first.answer))
    table.add_row("First", f"{safe(texts)} [dim]({where} {first.row})[/dim]")
    return table


def _show_lengths(console: Console, lengths: Any) -> None:
    """Both histograms below each other, with bars of one scale."""
    how = f"counted as {safe(lengths.counted_by)} does" if lengths.counted_by else "estimated"
    console.print(f"\nLength in tokens, {how} (both together may have {lengths.max_length:,}):")
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


def _show_example(console: Console, report: Any, sheets: Sequence[str]) -> None:
    example = Table.grid(padding=(0, 2))
    first = report.example
    for name, text in (("Question", first.question), ("Answer", first.answer)):
        example.add_row(name, safe(text if len(text) <= _LONG else text[: _LONG - 1] + "…"))
    title = f"The first pair, {f'{safe(first.sheet)}, ' if len(sheets) > 1 else ''}row {first.row}"
    console.print(Panel(example, title=title, title_align="left", expand=False))


def _rows(warning: Any, sheets: Sequence[str], most: int | None) -> str:
    """Rows 2, 3 and 2 of several sheets are "(One, rows 2, 3; Two, row 2)"; of more than `most` the first."""
    if not warning.rows:
        return ""
    if len(sheets) < 2:
        named = _named(warning.rows[:most])
    else:
        places = sorted(zip(warning.sheets, warning.rows, strict=True), key=lambda place: sheets.index(place[0]))
        by_sheet = groupby(places[:most], key=itemgetter(0))
        named = "; ".join(f"{safe(sheet)}, {_named([row for _, row in group])}" for sheet, group in by_sheet)
    return f" [dim]({named}{' …' if most is not None and len(warning.rows) > most else ''})[/dim]"


def _named(rows: Sequence[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"
