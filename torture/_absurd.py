"""Values that nobody expects, and JSON with one of them in it."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = [0, -1, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**9, -(10**9), 10**400]
NUMBERS += [0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
TEXTS = [
    "",
    " ",
    "\0",
    "\x1b[31m",
    "\u202e",
    "\ud800",
    "a" * 100_000,
    "../../../../etc/passwd",
    "/dev/zero",
    "https://127.0.0.1:9/",
]
TEXTS += [
    "(a+)+$",
    ".*",
    "(" * 1000,
    "{question.__class__}",
    "{question}",
    "{answer}{question}{answer}",
    "{{7*7}}",
    "{% for x in [1] %}",
]
TEXTS += [
    "__import__('os').abort()",
    "$(reboot)",
    "`reboot`",
    "'; reboot; '",
    '"""',
    "<script>",
    "$x^{2}$",
    "\\frac{",
    "nan",
    "1e999",
    "null",
]


def value(dice: random.Random) -> Any:
    match dice.randrange(8):
        case 0 | 1 | 2:
            return dice.choice(NUMBERS)
        case 3 | 4:
            return dice.choice(TEXTS)
        case 5:
            return dice.choice([None, True, False, [], {}, [None], [[]], {"": None}, [{}], {"a": {"b": 1}}])
        case 6:
            return [dice.choice(NUMBERS)] * dice.choice((1, 3, 1000))
        case _:
            deep: Any = 1
            for _ in range(dice.choice((5, 100, 300))):
                deep = [deep] if dice.random() < 0.5 else {"a": deep}
            return deep


def changed(record: Any, dice: random.Random) -> Any:
    """A copy with one to three of its values absurd, doubled, renamed or gone."""
    record = json.loads(json.dumps(record))
    for _ in range(dice.choice((1, 1, 2, 3))):
        places = list(_places(record))
        if not places:
            return value(dice)
        holder, key = dice.choice(places)
        match dice.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[dice.choice(("unknown", "", "__class__", key + " "))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder[key:key] = [holder[key]] * dice.choice((1, 50))
            case _:
                holder[key] = value(dice)
    return value(dice) if dice.random() < 0.03 else record


def _places(record: Any) -> Any:
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, inner in list(items)[:200]:
        yield record, key
        yield from _places(inner)


def text_of(record: Any, dice: random.Random) -> bytes:
    """The record as a file, which may itself be broken."""
    data = json.dumps(record, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    match dice.randrange(16):
        case 0:
            return data[: dice.randrange(len(data) + 1)]
        case 1:
            place = dice.randrange(len(data) + 1)
            return data[:place] + dice.choice((b"\0", b"\xff", b"{", b"]", b'"', b"NaN", b"[" * 100_000)) + data[place:]
        case 2:
            return dice.choice(
                (b"", b"\xef\xbb\xbf" + data, data.decode("utf-8", "replace").encode("utf-16"), b"[" * 200_000)
            )
    return data
