"""A comparison as a terminal page: what it means, the figures, and the worst answers."""

from __future__ import annotations

from rich.table import Table

import phinetune
from phinetune.cli.render import print_line
from phinetune.cli.terminal import open_console, short

_WORST = 3
_SHOWN = 160  # characters of an answer


def show_comparison(comparison: phinetune.Comparison) -> None:
    """Print it."""
    for sentence in comparison.verdict():
        print_line(sentence)
    scores = comparison.score_table()
    titles = ("base", "tuned", *(("difference (95 %)", "by chance") if scores.has_intervals else ("difference",)))
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in scores.rows:
        cells = (row.base, row.tuned, row.difference, row.by_chance)
        table.add_row(row.name, *cells[: len(titles)])
    open_console().print(table)
    if scores.note is not None:
        print_line(scores.note)
    worst = sorted(comparison.pairs, key=lambda each: (each.tuned.f1, -each.tuned.loss))[:_WORST]
    if worst and worst[0].tuned.f1 < 1:
        print_line("Furthest from what you expect:")
    for each in worst:
        if each.tuned.f1 < 1:
            print_line(f"  {short(each.question, _SHOWN)}")
            print_line(f"    expected: {short(each.expected, _SHOWN)}")
            print_line(f"    answered: {short(each.tuned.answer, _SHOWN)}")
    print_line("All answers: comparison.xlsx, and a picture: comparison.png, in training_visuals.")
    if comparison.report is not None:
        print_line(f"The report shows them too: {comparison.report}")
