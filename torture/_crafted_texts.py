"""Texts made to do damage, each by a name: broken encodings, endless cells, and what makes a pattern run for hours."""

from __future__ import annotations

import json
import struct

from _crafted_workbooks import Maker, cell, sheet


def _long(text: str, length: int = 1_000_000) -> str:
    return (text * (length // len(text) + 1))[:length]


def _csv(question: str, answer: str = "An answer that is long enough.") -> bytes:
    rows = [("question", "answer"), (question, answer), ("Who keeps the light?", "Old Maren keeps it.")]
    return "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows).encode()


def _many_rows(rows: int, letters: int) -> bytes:
    words = "the keeper of each light has a lamp and two keys to it "
    text = words * (letters // len(words) + 1)
    return b"question,answer\n" + b"".join(
        b"who is %d?,%s\n" % (n, text[n % 50 :][:letters].encode()) for n in range(rows)
    )


def _json(question: str, answer: str = "An answer that is long enough.") -> bytes:
    rows = [{"question": question, "answer": answer}, {"question": "Who keeps the light?", "answer": "Old Maren."}]
    return json.dumps(rows).encode()


# What makes a careless pattern or a loop over all places of a text run for hours.
_LONG = {
    "letters": _long("abcdefgh"),
    "one letter": _long("a"),
    "digits": _long("1") + "x",
    "digits apart": _long("1 ", 999_999) + "x",
    "words": _long("same "),
    "light words": _long("the "),
    "brackets": _long("["),
    "open tags": _long("<a b="),
    "stars": _long("**a "),
    "ampersands": _long("&aaaaaa"),
    "at signs": _long("a@"),
    "dots": "a@" + _long("a."),
    "tokens": _long("eyJ-"),
    "token dots": _long("eyJaaaaaaaaaaaa.eyJ-"),
    "keys": _long("-----BEGIN A "),
    "plus": _long("+1-"),
    "zeros": _long("0 1"),
    "hashes": _long("## "),
    "fences": _long("```\n"),
    "line ends": "a" + _long("\r\n") + "b",
    "quotes": _long('"'),
    "accents": _long("Ã©"),
    "garbled": _long("â€™s "),
    "lost": _long("\ufffd "),
    "marks": "e" + _long("\u0301"),
    "ligature": _long("\ufdfa"),  # eighteen letters when normalized
    "joiners": _long("\u200d"),
    "blanks": "a" + _long(" ") + "b",
    "urls": _long("http://a.b/"),
    "links": _long("[a](http://b"),
    "iban": _long("DE89 3704 "),
    "brackets round": _long("("),
    "underscores": _long("_x000D_"),
    "apostrophes": _long("don't "),
    "emoji": _long("👩‍👩‍👧 "),
}

_SHORT: dict[str, Maker] = {
    "empty": lambda: b"",
    "one byte": lambda: b"P",
    "zip without entries": lambda: b"PK\x05\x06" + bytes(18),
    "nul": lambda: b"question,answer\nwho\0?,we\0\n",
    "nul late": lambda: b"question,answer\n" + b"who?,we.\n" * 30_000 + b"\0,\0\n",
    "utf-8 broken": lambda: b"question,answer\nwho\xff\xfe\xc3?,we\x80\n",
    "utf-16 mark, odd bytes": lambda: b"\xff\xfe" + "question,answer\nwho?,we".encode("utf-16-le") + b"x",
    "utf-16 surrogate": lambda: b"\xff\xfe" + "question,answer\n".encode("utf-16-le") + b"\x00\xd8\x2c\x00a\x00",
    "utf-32 beyond": lambda: b"\xff\xfe\0\0" + struct.pack("<4I", 0x110000, 44, 97, 10),
    "utf-8 mark lies": lambda: b"\xef\xbb\xbf" + "question,answer\nwho?,we".encode("utf-16-le"),
    "cell of a million letters": lambda: _csv(_long("Who keeps the light? ")),
    "16,384 columns of text": lambda: b",".join(b"a%d" % i for i in range(16_384)) + b"\n" + b"b," * 16_384,
    "a million columns": lambda: b"a," * 1_000_000,
    "50,000 rows": lambda: b"question,answer\n" + b"a b,c d\n" * 50_000,
    "csv 30,000 rows of 300 letters": lambda: _many_rows(30_000, 300),
    "csv a million rows": lambda: _many_rows(1_000_000, 20),
    "csv 60 MB in long cells": lambda: _many_rows(600, 100_000),
    "csv 30 MB in long cells": lambda: _many_rows(300, 100_000),
    "csv 64 MB of commas": lambda: b"question,answer\n" + (b"," * 16_000 + b"\n") * 4000,
    "csv 64 MB of line ends": lambda: b"question,answer\nwho?,we\n" + b"\n" * (63 << 20) + b"a,b",
    "csv 80 MB": lambda: _many_rows(40_000, 2000),
    "json 60 MB of lists": lambda: b"[" + b"[]," * 20_000_000 + b"[]]",
    "json 60 MB of numbers": lambda: b"[" + b"0," * 30_000_000 + b"0]",
    "json 40 MB of records": lambda: b"[" + b'{"question":"a","answer":"b"},' * 1_300_000 + b"{}]",
    "a million line ends": lambda: b"question,answer\nwho?,we\n" + b"\r" * 1_000_000,
    "a million quotes": lambda: b'question,answer\n"' + b'""' * 1_000_000,
    "sep lies": lambda: b'sep="\nquestion"answer\n',
    "sep blank": lambda: b"sep= \nquestion answer\nwho we\n",
    "sep line end": lambda: b"sep=\r\nquestion\ranswer\n",
    "json deep": lambda: b'{"a":' * 100_000,
    "json deep but whole": lambda: b'[{"question": ' + b"[" * 900 + b"]" * 900 + b', "answer": "a b"}]',
    "json lines deep but whole": lambda: (
        b'{"question": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b', "answer": "b"}\n' * 2
    ),
    "json surrogates": lambda: (
        b'[{"question": "\\ud800 who?", "answer": "\\udfff we"}, {"question": "\\ud83d\\ude00", "answer": "b"}]'
    ),
    "json surrogate columns": lambda: b'[{"\\ud800": "who keeps it?", "b\\udfff": "we keep it"}]',
    "json huge number": lambda: b'[{"question": ' + b"9" * 100_000 + b', "answer": 1e999}]',
    "json constants": lambda: b'[{"question": NaN, "answer": Infinity}, {"question": "a b", "answer": -Infinity}]',
    "json keys": lambda: b'[{"a' + b'": 1, "a'.join(str(i).encode() for i in range(50_000)) + b'": 1}]',
    "json columns each new": lambda: json.dumps([{f"k{i}": "a"} for i in range(5000)]).encode(),
    "json data": lambda: b'{"columns": [1, [2], {"a": 3}], "data": [[1], 2, {"a": 4}, null]}',
    "json columns of records": lambda: b'{"question": {"0": "a b", "1": "c d"}, "answer": ["x y"]}',
    "json chat of lies": lambda: (
        b'{"messages": [{"role": {"a": 1}, "content": [[[]], {"text": {"a": []}}]}, {"role": "assistant"}]}'
    ),
    "escape": lambda: _csv(
        "\x1b]8;;http://127.0.0.1/\x07link\x1b]8;;\x07 \x9b31m \u202egnp.exe", "[red]b[/red] [link=x]y"
    ),
    "markup in names": lambda: b'[link=http://a],"[/bold]\x1b[31m\xe2\x80\xae"\nwho keeps it?,we keep it\n',
}

_LONG_ONES: dict[str, Maker] = {f"csv {name}": (lambda text=text: _csv(text)) for name, text in _LONG.items()}
_LONG_ONES |= {f"json {name}": (lambda text=text: _json("Who?", text)) for name, text in _LONG.items()}
_LONG_ONES |= {
    f"column of {name}": (lambda text=text: b"a,b\n" + (text[:131_000].encode() + b",x\n") * 3)
    for name, text in _LONG.items()
    if '"' not in text and "\r" not in text and "\n" not in text
}
_LONG_ONES |= {
    f"workbook {name}": (
        lambda text=text: sheet(
            f"<row>{cell('A1', 'question')}{cell('B1', 'answer')}</row><row>"
            f"{cell('A2', text[:32767].replace('&', '&amp;').replace('<', '&lt;'))}{cell('B2', 'it is')}</row>"
        )
    )
    for name, text in _LONG.items()
}

TEXTS = _SHORT | _LONG_ONES
