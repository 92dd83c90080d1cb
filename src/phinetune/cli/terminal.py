"""Text from a sheet, a model or a file name on its way to a terminal: shown, never obeyed.

    "\\x1b]8;;http://…"  ->  "␛]8;;http://…"         "\\u202egnp.exe"  ->  "\\\\u202egnp.exe"

A terminal takes some characters for commands: move, recolour, set the title, put a link below other words, turn the
order of letters. Every console that we print to is a `ShownConsole`, so none gets through whoever forgets it.
"""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment

# C0 has pictures of its own. C1 are commands like ESC; marks of direction turn what follows them; half letters
# (surrogates) come from file names that are no UTF-8, and cannot be written at all.
_COMMANDS = [*range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_HALVES = range(0xD800, 0xE000)
_ESCAPES = {code: f"\\u{code:04x}" for code in (*_COMMANDS, *_HALVES)}
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_SHOWN = _ESCAPES | _PICTURES


def shown(text: str) -> str:
    """The text with a visible sign for each character that a terminal would obey."""
    return text if text.isascii() and text.isprintable() else text.translate(_SHOWN)


def safe(text: object) -> str:
    """Text from outside within rich's markup: neither markup nor command."""
    return escape(shown(str(text)))


def short(text: str, most: int) -> str:
    """On one line of so many characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON that a terminal shows as well; the same characters are escaped as JSON escapes them."""
    writable = (sys.stdout.encoding or "").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=not writable, indent=indent).translate(_ESCAPES)


class ShownConsole(Console):
    """A console that lets its own colours through and no command that came with a text."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            part if part.control else Segment(shown(part.text), part.style) for part in buffer
        )


def open_console(*, errors: bool = False) -> Console:
    """Where to print: as wide as the terminal, or without folding where there is none."""
    stream = sys.stderr if errors else sys.stdout
    return ShownConsole(file=stream, highlight=False, soft_wrap=not stream.isatty())


def open_page(page: Path) -> None:
    """Show an HTML file in the browser, where there is one."""
    webbrowser.open(page.resolve().as_uri())
