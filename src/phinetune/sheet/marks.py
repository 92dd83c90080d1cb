"""A text -> the first mark in it that a web page or a Markdown text left, and where it is.

"Ring <b>us</b>&nbsp;soon"  ->  HTML "</b>"          "# Hours\\nWe open at nine."  ->  Markdown "# Hours"
"def f(x):\\n    # Hours"    ->  none: a program      "- one\\n- two"               ->  none: as people write

Programs use many of the same signs, so a mark counts only as programs seldom write it, or not within a program at all.
These patterns stop at the sign that opens them: a million brackets are looked through once, not a million times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

_CLOSED = (
    "p|div|span|b|i|u|strong|em|a|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th|h[1-6]|font|center|pre|code|small|sup|sub"
    "|blockquote|iframe|form|button|label|section|article|script|style|head|body|html"
)
# Those that are no word of a program between angle brackets.
_OPENED = "p|div|span|strong|em|ul|ol|li|tr|td|th|h[1-6]|center|blockquote|script"
# A lone "<p>" may be what the text is about; a closing tag, an attribute or an entity seldom is, nor one that touches
# the text or begins a line of it.
_HTML = re.compile(
    rf"</(?:{_CLOSED})>|<br ?/?>|<!doctype html|<!--(?:(?!<!--|-->)(?s:.))*-->"
    rf"|<(?:{_CLOSED}|img|input) [a-z-]{{1,30}}=[^<>]{{0,2000}}>"
    rf"|(?<!\w)<(?:{_OPENED})>(?=\w)|(?<=[\w.,!?] )<(?:{_OPENED})>(?=\w)|(?<=[.!?])<(?:{_OPENED})>"
    rf"|^\s{{0,20}}<(?:{_OPENED})>(?=\s{{0,20}}(?-i:[A-ZÀ-Þ]))"
    r"|&(?:nbsp|amp|lt|gt|quot|apos|[a-z]{4,6}|#\d+|#x[\da-f]+);",
    re.IGNORECASE | re.MULTILINE,
)
_LINK_TARGET = (
    r"(?:https?://|www\.|/|mailto:)[^()\s]*|#[\w-]+|[\w%./-]+\.(?:html?|php|aspx?|md|pdf|png|jpe?g|gif|svg|docx?|xlsx?|pptx?)"
    r"(?:[?#][^()\s]*)?"
)
_MARKDOWN_ANYWHERE = re.compile(
    # **bold**, not 2**3, **options or "**" + text + "**"
    r"(?<![\w*/])(?!(?<=[\"'])\*+[\"'])(?P<stars>\*{2,3})(?=[^\s*])[^*\n]+(?<=[^\s*])(?P=stars)(?![\w*/])"
    rf"|\[[^\[\]\n]+\]\((?:{_LINK_TARGET})(?: \"[^\"\n]*\")?\)"
    r"|^```"
    r"|^[^\n|]*\|[^\n]*\n(?=[^\n]*--)(?=[^\n]*\|)[-:| \t]+$",  # | a table |
    re.MULTILINE,
)
_MARKDOWN_IN_PROSE = re.compile(
    r"^#{2,6} \S[^\n]*"
    r"|(?<![\w~])~~(?=[^\s~])[^~\n]+(?<=[^\s~])~~(?=[\s.,;:!?)]|$)"
    r"|(?<![\w_.])__(?=[^\s_])(?=[^_\n]*[ :.!?,]|[A-ZÀ-Þ][a-zß-ÿ]+__)[^_\n]+(?<=[^\s_])__(?![\w_])",  # not __init__
    re.MULTILINE,
)
_CODE = re.compile(r"(?<![\w`\\])`(?=[^\s`$])[^`\n]{1,80}(?<=[^\s`])`(?![\w`])")
_HEADING = re.compile(r"^# [^\W_a-zß-ÿ][^\n]*", re.MULTILINE)
_QUOTED = re.compile(r"^> ?(?=[^\s>])[^\n]+[.!?…]$", re.MULTILINE)
# A line that reads as one of a program.
_PROGRAM = re.compile(
    r"^[ \t]*(?:(?:def|class|function|fn|func|struct|public|private|static|const|let|var|import|package|using"
    r"|namespace) \w|from [\w.]+ import|return\b|elif |else:|try:|SELECT |INSERT |UPDATE |CREATE |FROM |#include"
    r"|#!|@\w+$|\$ |>>> )|[;{}][ \t]*$|^[ \t]*(?:if|for|while|with)\b[^\n]*:[ \t]*$"
    r"|^[ \t]*[\w.\[\]]+ ?(?:[-+*/|&:]?=|<-|->) ?\S|^[ \t]*[\w.]+\([^\n]*\)[ \t]*$",
    re.MULTILINE,
)
_STARTS = re.compile(r"[^\W\d_a-z]|\d+\. [^\W\d_a-z]|[-*] [^\W\d_a-z]")  # "We …", "- We …"
_ENDS = (".", "!", "?", ":", "…", "。", "！", "？")


def find_html(text: str) -> Span | None:
    """Where the first mark of a web page is."""
    found = _HTML.search(text) if "<" in text or "&" in text else None
    return found.span() if found else None


def find_markdown(text: str) -> Span | None:
    """Where the first mark of Markdown is."""
    return next(_markdown(text), None) if any(sign in text for sign in "*[#`|~_>") else None


def _markdown(text: str) -> Iterator[Span]:
    if found := _MARKDOWN_ANYWHERE.search(text):
        yield found.span()
    in_prose = [*filter(None, (_MARKDOWN_IN_PROSE.search(text), _HEADING.search(text), _QUOTED.search(text)))]
    code = _CODE.search(text) if text[:1].isupper() else None
    if (in_prose or code) and not _PROGRAM.search(text):
        for found in in_prose:
            if found.re is _MARKDOWN_IN_PROSE or _has_prose(text):
                yield found.span()
        if code:
            yield code.span()


def _has_prose(text: str) -> bool:
    """Whether a line is a sentence: "# Note" above it is a title then, and above a command a comment."""
    lines = (line.removeprefix("> ").strip() for line in text.splitlines() if not line.startswith("#"))
    return any(_STARTS.match(line) and line.endswith(_ENDS) and (" " in line or not line.isascii()) for line in lines)
