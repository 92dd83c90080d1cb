"""A comparison as a terminal page: what it means, the figures, and the worst answers."""

from __future__ import annotations

from rich.table import Table

import phinetune
from phinetune.cli.render import print_line
from phinetune.cli.terminal import open_console

_NAMES = {
    "right": "answers right",
    "exact": "word for word",
    "f1": "shared words (F1)",
    "rouge_l": "same order (ROUGE-L)",
    "chrf": "shared letters (chrF)",
    "loss": "loss, nats per token",
}
_WORST = 3
_SHOWN = 160  # characters of an answer


def show_comparison(comparison: phinetune.Comparison) -> None:
    """Print it."""
    for sentence in comparison.verdict():
        print_line(sentence)
    few = comparison.are_too_few
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("")
    for title in ("base", "tuned", *(("difference",) if few else ("difference (95 %)", "by chance"))):
        table.add_column(title, justify="right", no_wrap=True)
    for name, title in _NAMES.items():
        contrast = comparison.scores[name]
        gain = contrast.difference
        cells = [title, f"{contrast.base.mean:.3f}", f"{contrast.tuned.mean:.3f}", f"{gain.mean:+.3f}"]
        if not few:
            cells[-1] += f" ({gain.low:+.3f} to {gain.high:+.3f})"
            cells.append("p < 0.001" if contrast.p_value < 0.001 else f"p = {contrast.p_value:.3f}")
        table.add_row(*cells)
    open_console().print(table)
    if few:
        print_line("No intervals: these are too few questions to say how sure this is.")
    worst = sorted(comparison.pairs, key=lambda each: (each.tuned.f1, -each.tuned.loss))[:_WORST]
    if worst and worst[0].tuned.f1 < 1:
        print_line("Furthest from what you expect:")
    for each in worst:
        if each.tuned.f1 < 1:
            print_line(f"  {_short(each.question)}")
            print_line(f"    expected: {_short(each.expected)}")
            print_line(f"    answered: {_short(each.tuned.answer)}")
    print_line("All answers: comparison.xlsx, and a picture: comparison.png, in training_visuals.")
    if comparison.report is not None:
        print_line(f"The report shows them too: {comparison.report}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
