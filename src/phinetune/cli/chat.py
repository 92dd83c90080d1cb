"""phinetune chat"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import typer

import phinetune
from phinetune.cli.options import ALLOW_BIN, GREEDY
from phinetune.cli.render import print_json_line, print_line, prompt, say

Voice = Literal["tuned", "base", "both"]
_VOICES: dict[str, Voice] = {"/tuned": "tuned", "/base": "base", "/both": "both"}
_HELP = (
    "Ask a question. /base, /tuned or /both choose who answers, and a question may stand right behind. /greedy and "
    "/vary choose how. /remember sends what was said along with each question, /reset forgets it. /quit or Ctrl-D ends."
)


def command(
    model: str = typer.Argument(help="A run, a merged folder or a .gguf file."),
    base_model: str | None = typer.Option(None, "--model", help="Where the base model is now, if it has moved."),
    greedy: bool | None = GREEDY,
    max_new_tokens: int | None = typer.Option(None, help="Longest answer. [dim]\\[default: 256][/dim]"),
    device: str = typer.Option("auto", help="auto, cuda, mps or cpu."),
    allow_bin: bool = ALLOW_BIN,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line for every answer, for scripts."),
) -> None:
    """Ask a tuned model one question after the other, and the base model beside it.

    Every question stands alone, as the model was trained on single pairs; after /remember the earlier ones go along.
    """
    tuned = phinetune.open_model(model, model=base_model, device=device, allow_bin=allow_bin)
    voice: Voice = "tuned"
    said: list[tuple[str, str]] | None = None
    if sys.stdin.isatty():
        print_line(_HELP)
    while (question := prompt(f"{voice}> ")) is not None:
        text = question.strip()
        first, _, rest = text.partition(" ")
        if first in _VOICES:
            if first != "/tuned" and not tuned.has_base:
                print_line("This model is merged: there is no base model in it to ask.")
                continue
            voice, text = _VOICES[first], rest.strip()
        match text:
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/help":
                print_line(_HELP)
            case "/greedy" | "/vary" as wish:
                greedy = wish == "/greedy"
                print_line("Always the likeliest word." if greedy else "Answers vary.")
            case "/remember":
                said = []
                print_line("From here on earlier questions go along.")
            case "/reset":
                print_line("Forgotten." if said else "There is nothing to forget.")
                said = [] if said is not None else None
            case unknown if unknown.startswith("/"):
                print_line(f"There is no {unknown}. {_HELP}")
            case _:
                for base in {"tuned": (False,), "base": (True,), "both": (True, False)}[voice]:
                    asked = _Asked(text, base, greedy, max_new_tokens, tuple(said or ()))
                    answer = _print_answer(tuned, asked) if as_json else _say_answer(tuned, asked, voice == "both")
                if said is not None:  # of both, what the tuned model said
                    said.append((text, answer))


@dataclass(frozen=True)
class _Asked:
    question: str
    base: bool
    greedy: bool | None
    max_new_tokens: int | None
    history: tuple[tuple[str, str], ...]

    @property
    def model(self) -> str:
        return "base" if self.base else "tuned"

    def pieces(self, tuned: phinetune.TunedModel) -> Iterator[str]:
        return tuned.stream(
            self.question,
            base=self.base,
            greedy=self.greedy,
            history=self.history,
            max_new_tokens=self.max_new_tokens,
        )


def _say_answer(tuned: phinetune.TunedModel, asked: _Asked, named: bool) -> str:
    """The answer as it is written; Ctrl-C ends it and not the chat."""
    if named:
        say(f"{asked.model}: ")
    written = []
    try:
        for piece in asked.pieces(tuned):
            written.append(piece)
            say(piece)
    except KeyboardInterrupt:
        say(" …")
    answer = "".join(written)
    say("\n" if answer.strip() else "(no answer)\n")
    return answer


def _print_answer(tuned: phinetune.TunedModel, asked: _Asked) -> str:
    answer = "".join(asked.pieces(tuned))
    print_json_line({"question": asked.question, "answer": answer, "model": asked.model})
    return answer
