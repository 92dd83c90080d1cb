"""The whole product in one go: teach the embedded model a handbook that no model can know, and ask before and after.

    python examples/demo.py [--out demo]

It trains on examples/handbook.xlsx (98 facts about an invented observatory, each asked in five ways) and then asks
the 98 sixth wordings of handbook_test.xlsx, which it never saw. An answer is right when the fact is in it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from python_calamine import CalamineWorkbook
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import phinetune
from phinetune.cli.render import TrainingPage, duration

HERE = Path(__file__).parent
SHOWN = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on the handbook and ask held-out questions before and after.")
    parser.add_argument("--out", default="demo", type=Path, help="folder for the run")
    out: Path = parser.parse_args().out
    console = Console()
    start = time.perf_counter()

    with TrainingPage() as page:
        run = phinetune.train(HERE / "handbook.xlsx", model="smollm2-135m", out=out, overwrite=True, on_event=page.show)
    page.close(run)

    console.print("\nAsking 98 held-out questions, before and after …")
    questions, facts = held_out()
    model = phinetune.open_model(run)
    before = model.answer_all(questions, base=True, max_new_tokens=40)
    after = model.answer_all(questions, max_new_tokens=40)

    table = Table("Question", "Before", "After", "Fact", show_lines=True)
    for i in range(0, len(questions), len(questions) // SHOWN):
        mark = "[green]✓[/green]" if phinetune.contains_fact(after[i], facts[i]) else "[red]✗[/red]"
        table.add_row(
            *(escape(shorten(text)) for text in (questions[i], before[i], after[i])), f"{escape(facts[i])} {mark}"
        )
    console.print(table)
    shares = {"before": phinetune.share_right(before, facts), "after": phinetune.share_right(after, facts)}
    seconds = time.perf_counter() - start
    console.print(
        f"Held-out questions answered right: [bold]{shares['before']:.1%}[/bold] before, "
        f"[bold green]{shares['after']:.1%}[/bold green] after. The whole demo took {duration(seconds)}."
    )
    result = run.to_json() | {"right_before": shares["before"], "right_after": shares["after"], "demo_seconds": seconds}
    (out / "demo.json").write_text(json.dumps(result, indent=2) + "\n")


def held_out() -> tuple[list[str], list[str]]:
    """The questions of the test sheet and the fact that each answer must contain."""
    rows = CalamineWorkbook.from_path(HERE / "handbook_test.xlsx").get_sheet_by_index(0).to_python()[1:]
    return [str(row[0]) for row in rows], [str(row[2]) for row in rows]


def shorten(text: str, most: int = 90) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    main()
