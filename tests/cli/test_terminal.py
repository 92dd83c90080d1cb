"""Nothing that comes with a text reaches the terminal as a command, whoever prints it."""

from __future__ import annotations

import io
import json

import pytest
import xlsxwriter

from phinetune.cli import main
from phinetune.cli.terminal import ShownConsole, json_text, safe, shown

LINK = "\x1b]8;;http://example.org\x07click\x1b]8;;\x07"
EVIL = f"[red]a[/red] [link=http://example.org]b[/link] {LINK} \x9b31m \u202egnp.exe\u2066 \x07\x08\r\x7f \ud800"
COMMANDS = [
    *range(9),
    *range(11, 32),
    *range(0x7F, 0xA0),
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]


def no_command(text: str) -> None:
    assert not {ord(letter) for letter in text} & set(COMMANDS)
    text.encode("utf-8")


def test_every_command_has_a_sign():
    text = "".join(map(chr, COMMANDS))
    no_command(shown(text))
    assert shown("\x1b[31m \u202e \x9b") == "␛[31m \\u202e \\u009b"
    assert shown("Grüße, 你好 👩‍👧\tتمام\n") == "Grüße, 你好 👩‍👧\tتمام\n"


def test_a_console_shows_what_was_not_made_safe_and_keeps_its_own_colours():
    stream = io.StringIO()
    console = ShownConsole(file=stream, force_terminal=True, color_system="standard", highlight=False)
    console.print(f"[bold]{LINK}[/bold]")
    assert "\x1b[1m" in stream.getvalue()
    assert "\x1b]8" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_markup_in_a_text_is_text():
    stream = io.StringIO()
    ShownConsole(file=stream, force_terminal=True, width=500, highlight=False).print(
        safe("[red]a[/red] [link=http://x]b[/link] [/]")
    )
    assert stream.getvalue() == "[red]a[/red] [link=http://x]b[/link] [/]\n"


def test_json_stays_json_and_says_the_same():
    text = json_text({"a": EVIL})
    no_command(text)
    assert json.loads(text) == {"a": EVIL}


@pytest.fixture
def evil_sheet(tmp_path):
    """The text in cells, column names, the sheet's and the file's name."""
    text = EVIL.replace("\ud800", "")
    path = tmp_path / "a\x1b[31m[red]\u202e.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("x\u202e\x9b red")
        for row, cells in enumerate(
            [(f"Question {text}", f"Answer {text}", f"Notes {text}"), *[(text, text + "a", text)] * 9]
        ):
            for column, cell in enumerate(cells):
                sheet.write_string(row, column, cell)
    return path


@pytest.mark.parametrize(
    "flags", [[], ["--details"], ["--json"], ["--sheet", "no \x1b[31m such"], ["--question", "[red]\x9b", "--json"]]
)
def test_a_hostile_sheet_is_shown(evil_sheet, flags, capsys):
    with pytest.raises(SystemExit):
        main(["check", str(evil_sheet), *flags])
    for text in capsys.readouterr():
        no_command(text)


def test_a_file_name_that_is_no_text_is_told_too(tmp_path, capsys):
    name = b"\xff\x1b[31m.xlsx".decode("utf-8", "surrogateescape")
    for flags in ([], ["--json"]):
        with pytest.raises(SystemExit) as done:
            main(["check", str(tmp_path / name), *flags])
        assert done.value.code == 1
        for text in capsys.readouterr():
            no_command(text)
