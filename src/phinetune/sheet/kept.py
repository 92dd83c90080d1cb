"""The pairs that a run was trained on and held out, kept in its folder: whoever looks at it later needs no sheet.

{"part": "validation", "row": 17, "question": "Who keeps the light?", "answer": "Old Maren Tibb."}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from phinetune.errors import RunError
from phinetune.run_folder import write_text
from phinetune.sheet.findings import Pair
from phinetune.sheet.split import Split

_PARTS = ("train", "validation")


def keep_pairs(path: Path, parts: Split) -> None:
    """Write both parts to `path`, one JSON object a line. Raises RunError when it cannot be written."""
    objects = [{"part": part} | asdict(pair) for part in _PARTS for pair in getattr(parts, part)]
    write_text(path, "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects))


def kept_pairs(path: Path) -> Split | None:
    """Both parts; None where the run kept none. Raises RunError when the file is damaged."""
    if not path.is_file():
        return None
    try:
        parts = list(_read(path))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged: {str(error)[:200]}.", "Remove it, or train again; the model is not touched."
        ) from None
    train, validation = (tuple(pair for part, pair in parts if part == wanted) for wanted in _PARTS)
    return Split(train, validation)


def _read(path: Path) -> Iterator[tuple[str, Pair]]:
    for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        values = json.loads(line)
        pair = Pair(str(values["question"]), str(values["answer"]), int(values["row"]), values.get("sheet"))
        yield values["part"], pair
