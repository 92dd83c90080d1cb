"""Pages on settings -> the terminal: one at length, or all of them in a list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from phinetune.cli.terminal import open_console, safe

_AT_LENGTH = 3
_NAME_WIDTH = 28  # train.gradient_checkpointing
_DEFAULT_WIDTH = 15  # microsoft/phi-2


def show_pages(pages: Sequence[Any]) -> None:
    """A few pages at length; when a part of a name meets many, the list of them."""
    if len(pages) > _AT_LENGTH:
        show_list(pages)
        return
    console = open_console()
    for place, page in enumerate(pages):
        if place:
            console.print()
        more, less = ("Higher", "Lower") if page.is_amount else ("Changed", "Left as it is")
        console.print(f"[bold]{safe(page.name)}[/bold]  {safe(page.summary)}")
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("Default", safe(page.default))
        for by, value in page.presets.items():
            table.add_row("", f"{safe(value)} with {safe(by)}")
        table.add_row("Takes", safe(page.allowed))
        if page.also:
            table.add_row("Also", safe(", ".join(page.also)))
        assignment = f"--set {page.name}=…"
        table.add_row("Change it", safe(f"{page.flag} or {assignment}" if page.flag else assignment))
        for title, text in ((more, page.more), (less, page.less), ("When", page.when)):
            table.add_row(title, safe(text))
        console.print(table)


def show_list(pages: Sequence[Any]) -> None:
    """Name, default and one line of each, by group."""
    console = open_console()
    for group, settings in groupby(pages, key=lambda page: page.group):
        console.print(f"[bold]{safe(group)}[/bold]")
        table = Table.grid(padding=(0, 2))
        table.add_column(width=_NAME_WIDTH, no_wrap=True)
        table.add_column(width=_DEFAULT_WIDTH, no_wrap=True, overflow="ellipsis")
        table.add_column(overflow="fold")
        for page in settings:
            table.add_row(safe(page.name), safe(page.default), safe(page.summary))
        console.print(table)
    console.print("\nMore on one: [bold]phinetune explain lr[/bold]")
