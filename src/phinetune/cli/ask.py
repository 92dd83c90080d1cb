"""phinetune ask"""

from __future__ import annotations

from typing import Any

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, AS_JSON, GREEDY
from phinetune.cli.render import on_terminal, print_aside, print_json, say


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    question: str = typer.Argument(help="The question, in quotes."),
    greedy: bool | None = GREEDY,
    base: bool = typer.Option(False, "--base", help="Ask the base model, without what it has learned."),
    temperature: float | None = typer.Option(
        None, help="0 is --greedy; higher is more varied. [dim]\\[default: 0][/dim]"
    ),
    top_p: float | None = typer.Option(
        None, help="Where words are drawn: share of likely ones to choose from. [dim]\\[default: 0.9][/dim]"
    ),
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [dim]\\[default: 256][/dim]"),
    seed: int | None = typer.Option(None, help="Where words are drawn: draw the same ones again."),
    model: str | None = typer.Option(None, help="Where the base model is now, if it has moved since training."),
    device: str = typer.Option("auto", help="auto, cuda, mps or cpu."),
    dtype: str = typer.Option("auto", help="auto, bf16, fp16 or fp32."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = AS_JSON,
) -> None:
    """Ask a tuned model a question: the same question gets the same answer, unless you ask for variety.

    Example: phinetune ask . "What is machine learning?"
    """
    options: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    tuned = phinetune.open_model(run, model=model, device=device, dtype=dtype, allow_bin=allow_bin)
    if as_json:
        answer = tuned.ask(question, base=base, greedy=greedy, **options)
        print_json({"question": question, "answer": answer, "model": "base" if base else "tuned"})
        return
    for piece in tuned.stream(question, base=base, greedy=greedy, **options):
        say(piece)
    say("\n")
    if on_terminal() and tuned.answers_vary(greedy, **options):
        print_aside("Drawn by chance; --greedy gives the same answer every time.")
