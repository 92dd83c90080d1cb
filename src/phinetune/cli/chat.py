"""phinetune chat"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import typer

import phinetune
from phinetune.cli.render import print_json_line, print_line, prompt, say

Voice = Literal["tuned", "base", "both"]
_HELP = "Ask a question. /base, /tuned or /both choose who answers, /greedy and /vary how; /quit or Ctrl-D ends."


def command(
    model: str = typer.Argument(help="A run, a merged folder or a .gguf file."),
    base_model: str | None = typer.Option(None, "--model", help="Where the base model is now, if it has moved."),
    greedy: bool = typer.Option(False, "--greedy", help="Always the likeliest word: the same answer every time."),
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [dim]\\[default: 256][/dim]"),
    device: str = typer.Option("auto", help="auto, cuda, mps or cpu."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line for every answer, for scripts."),
) -> None:
    """Ask a tuned model one question after the other, and the base model beside it.

    Every question stands alone: the model was trained on single pairs and knows of no earlier ones.
    """
    tuned = phinetune.open_model(model, model=base_model, device=device)
    voice: Voice = "tuned"
    if sys.stdin.isatty():
        print_line(_HELP)
    while (question := prompt(f"{voice}> ")) is not None:
        match question.strip():
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/help":
                print_line(_HELP)
            case "/greedy" | "/vary" as wish:
                greedy = wish == "/greedy"
                print_line("Always the likeliest word." if greedy else "Answers vary.")
            case "/tuned" | "/base" | "/both" as wish:
                if wish != "/tuned" and not tuned.has_base:
                    print_line("This model is merged: there is no base model in it to ask.")
                else:
                    voice = "base" if wish == "/base" else "both" if wish == "/both" else "tuned"
            case unknown if unknown.startswith("/"):
                print_line(f"There is no {unknown}. {_HELP}")
            case text:
                for base in {"tuned": (False,), "base": (True,), "both": (True, False)}[voice]:
                    asked = _Asked(text, base, greedy, max_new_tokens)
                    _print_answer(tuned, asked) if as_json else _say_answer(tuned, asked, named=voice == "both")


@dataclass(frozen=True)
class _Asked:
    question: str
    base: bool
    greedy: bool
    max_new_tokens: int | None

    @property
    def model(self) -> str:
        return "base" if self.base else "tuned"


def _say_answer(tuned: phinetune.TunedModel, asked: _Asked, *, named: bool) -> None:
    """The answer as it is written; Ctrl-C ends it and not the chat."""
    if named:
        say(f"{asked.model}: ")
    try:
        for piece in tuned.stream(
            asked.question, base=asked.base, greedy=asked.greedy, max_new_tokens=asked.max_new_tokens
        ):
            say(piece)
    except KeyboardInterrupt:
        say(" …")
    say("\n")


def _print_answer(tuned: phinetune.TunedModel, asked: _Asked) -> None:
    answer = tuned.ask(asked.question, base=asked.base, greedy=asked.greedy, max_new_tokens=asked.max_new_tokens)
    print_json_line({"question": asked.question, "answer": answer, "model": asked.model})
