"""Marks of web pages and of Markdown are found where they are left over, and not in programs, formulas or lists."""

from __future__ import annotations

import time

import pytest

from phinetune.sheet.marks import find_html, find_markdown


@pytest.mark.parametrize(
    "text",
    [
        "It is <b>bold</b>",
        "one<br/>two",
        '<a href="x.html">',
        "Tom &amp; Jerry",
        "a&#39;s",
        "<script>alert(1)</script>",
        "<script>alert(1)",
        "Hi <!-- note --> there",
        "<center>Hello there",
        "<center>\nHello",
        "<p>Ring us soon",
        "Ring us.<p>Then wait",
        "<strong>Note: ring us",
        "Say <strong>never again",
        "<p> Ring us",
        "Ring <center> us</center>",
        "one\n<li>two",
    ],
)
def test_html(text: str) -> None:
    assert find_html(text)


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "List<String> list",
        "What does the <p> tag do?",
        "R&D; AT&T",
        "a && b",
        "The <strong> tag",
        "if q<p>r",
        "vector<p>x",
        "<p> is a paragraph",
        "<!-- opens a comment",
        "Dictionary<string,int> <T>",
        "x <y>z",
        "<table>",
        "a <em> b",
    ],
)
def test_no_html(text: str) -> None:
    assert find_html(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "It is **bold**.",
        "[here](https://x.org/a)",
        "## Steps\n1.",
        "```python\nx\n```",
        "# Opening hours\nWe open at nine.",
        "# Title\n\nSome text here is fine.\n",
        "# Fees\n- One is free.\n- Two",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "a | b\n--- | ---\n1 | 2",
        "Run `npm install` first.",
        "It is __bold text__.",
        "__Note:__ ring us",
        "__Important__ ring us",
        "It is ***very*** so",
        "Price ~~10~~ 5",
        "> He said so twice.\n\nThen he left.",
        "see [the page](page.html)",
        "![map](img/map.png)",
        '[x](../a.pdf "t")',
        "[top](#top)",
        "[x](docs/a.md#b)",
        "Use `x` or `y`",
    ],
)
def test_markdown(text: str) -> None:
    assert find_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        "x**2 + y**2",
        "f(*a, **options)",
        "# a comment",
        "a[0](1)",
        "- one\n- two",
        "2 * 3 * 4",
        "__init__",
        "1. One\n2. Two",
        "# Compute the sum\ndef f(x):\n    return x",
        "# Install it\nsudo apt install x",
        "# Say hello\nprint('Hello.')",
        "x = a | b | c",
        "a|b\nc|d",
        "cat f | grep x | wc",
        "`date`",
        "echo `date`",
        "x = `ls`",
        "SELECT `id` FROM `t`",
        "don`t and can`t",
        "``quoted''",
        "self.__x + self.__y",
        "__name__ == '__main__'",
        "__FILE__",
        "The capital is ____.",
        "__ is __",
        "/***x***/",
        "*** Note ***",
        "~~x + ~~y",
        "~~a*~~(b)",
        ">>> f(1)",
        "> dir",
        "5 > 3",
        "fns[name](arg)",
        "[this](foo.bar)",
        "[&](auto x) { }",
        "# 1 choice",
        "We are #1",
        "C# and F#",
        "# Dockerfile\nFROM python:3\nRUN pip install x",
        "## R comment\nx <- 3",
        '"""Doc."""\n# Step One\nx = 1',
        "snake_case_name and __x__",
        "Settings\n> General\n> Reset",
        "# This is a comment",
        "print('**'+x+'**')",
        'echo "**" + x + "**"',
    ],
)
def test_no_markdown(text: str) -> None:
    assert find_markdown(text) is None


def test_the_place_is_that_of_the_mark() -> None:
    text = "See ~~old~~ new."
    start, end = find_markdown(text) or (0, 0)
    assert text[start:end] == "~~old~~"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<!--" * 20_000,
            "<p" * 20_000,
            "<a x=" * 20_000,
            "[a](" * 20_000,
            "**a" * 20_000,
            "|" * 50_000,
            "|-" * 30_000,
        ),
        *("A`" * 30_000, "__a." * 20_000, "~~a" * 20_000, "# A\n" * 20_000, "> a.\n" * 20_000, "[a](a." * 10_000),
        *("a(" * 20_000, "a=" * 20_000, "## A " * 20_000 + ";" * 20_000, "|\n-" * 20_000, "## a\n" + " \t" * 40_000),
    ],
)
def test_a_hostile_cell_takes_no_minutes(text: str) -> None:
    start = time.perf_counter()
    find_html(text)
    find_markdown(text)
    assert time.perf_counter() - start < 5
