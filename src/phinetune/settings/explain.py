"""Settings in words, from their declarations: pages for `phinetune explain`, for docs/settings.md, and by name.

"lr", "learning rate", "train.learning_rate"   ->  one page
"seed"                                         ->  three: data.seed, train.seed, generate.seed
"early stopping"                               ->  train.patience, which is also called so
"dropuot"                                      ->  SettingsError: did you mean lora.dropout?
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from phinetune.errors import SettingsError
from phinetune.settings.declared import MODEL_RECIPES, PRESETS, SHORT_NAMES, Settings

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list of texts"}


@dataclass(frozen=True)
class Page:
    """One setting. `flag` is "" where only --set and --config reach it; `presets` are other values, by preset or model;
    `also` are other names for it.

    `more` and `less` say what raising and lowering it does; for one that is no amount (`is_amount`), what
    changing it does, and leaving it as it is.
    """

    name: str
    group: str
    summary: str
    default: str
    allowed: str
    flag: str
    presets: dict[str, str]
    is_amount: bool
    more: str
    less: str
    when: str
    also: tuple[str, ...]


def pages() -> list[Page]:
    """Every setting, in order of declaration."""
    return [_page(name, group, field) for name, group, field in _declared()]


def find(name: str) -> list[Page]:
    """The pages that a name means: dotted, short as on the command line, another name of it, partial, or a word of its
    help line.

    The closest way to match wins alone. Raises SettingsError, with the nearest names, when none matches.
    """
    known = pages()
    wanted = _as_name(name)
    by_flag = SHORT_NAMES.get(wanted, ())
    ways: tuple[Callable[[Page], bool], ...] = (
        lambda page: page.name == wanted,
        lambda page: page.name.rpartition(".")[2] == wanted or page.name in by_flag,
        lambda page: wanted in map(_as_name, page.also),
        lambda page: page.name.startswith(f"{wanted.rstrip('.')}."),
        lambda page: len(wanted) > 1 and wanted in page.name,
        lambda page: wanted in re.findall(r"\w+", page.summary.lower()),
    )
    for way in ways:
        if found := [page for page in known if way(page)]:
            return found
    raise _unknown(name, wanted, known)


def _as_name(words: str) -> str:
    """ "--lora-r", "Mixed precision (FP16)"  ->  "lora_r", "mixed_precision"."""
    return re.sub(r"[^\w.]+", "_", re.sub(r"\(.*?\)", "", words.lower())).strip("_")


def _unknown(name: str, wanted: str, known: list[Page]) -> SettingsError:
    ends = {page.name.rpartition(".")[2]: page.name for page in known}
    others = {_as_name(other): page.name for page in known for other in page.also}
    spellings = others | {page.name: page.name for page in known} | ends | {k: v[0] for k, v in SHORT_NAMES.items()}
    near = difflib.get_close_matches(wanted, spellings, n=3, cutoff=0.6)
    meant = " or ".join(dict.fromkeys(spellings[spelling] for spelling in near))
    return SettingsError(
        f"There is no setting {name}" + (f"; did you mean {meant}?" if meant else "."),
        "phinetune explain lists all of them.",
    )


def _declared() -> Iterator[tuple[str, str, FieldInfo]]:
    """Dotted name, what its group is about, and declaration."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            about = (kind.__doc__ or "").rstrip(".")
            yield from ((f"{name}.{leaf}", about, declared) for leaf, declared in kind.model_fields.items())
        else:
            yield name, "The base model", field


def _page(name: str, group: str, field: FieldInfo) -> Page:
    words: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    short = next((short for short, targets in SHORT_NAMES.items() if name in targets), "")
    others = {f"--preset {preset}": values for preset, values in PRESETS.items()}
    others |= {f"--model {model}": values for model, values in MODEL_RECIPES.items()}
    first, _, leaf = name.partition(".")
    kinds = _kinds(field.annotation)
    return Page(
        name=name,
        group=group,
        summary=field.description or "",
        default="left out" if field.default is None else _shown(field.default),
        allowed=_allowed(field.annotation, field.metadata),
        flag=short and f"--{short.replace('_', '-')}",
        presets={by: _shown(values[first][leaf]) for by, values in others.items() if leaf in values.get(first, {})},
        is_amount=bool({int, float} & set(kinds)) and leaf != "seed",
        more=words["more"],
        less=words["less"],
        when=words["when"],
        also=tuple(words["also"]),
    )


def _kinds(annotation: Any) -> list[Any]:
    """The members of a union, without None: classes and literal values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for member in get_args(annotation) if member is not type(None) for kind in _kinds(member)]
    if origin is Literal:
        return list(get_args(annotation))
    return [origin or annotation]


def _allowed(annotation: Any, limits: Sequence[Any]) -> str:
    """ "a whole number from 1 to 1024", "auto, cpu, cuda or mps", "a number above 0 or auto"."""
    words = _words(annotation)
    return _within(words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}", limits)


def _words(annotation: Any) -> list[str]:
    """Each member of a union in words; one that has bounds of its own with those."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [word for member in get_args(annotation) if member is not type(None) for word in _words(member)]
    if origin is Annotated:
        kind, *notes = get_args(annotation)
        return [_allowed(kind, [limit for note in notes for limit in getattr(note, "metadata", [note])])]
    return [_KINDS.get(kind, str(kind)) if isinstance(kind, type) else str(kind) for kind in _kinds(annotation)]


def _within(text: str, limits: Sequence[Any]) -> str:
    bounds = {key: value for limit in limits for key, value in _bound(limit)}
    if "ge" in bounds and "le" in bounds:
        return f"{text} from {_shown(bounds['ge'])} to {_shown(bounds['le'])}"
    said = {"ge": "from {} on", "gt": "above {}", "le": "up to {}", "lt": "below {}"}
    told = " and ".join(said[key].format(_shown(bounds[key])) for key in said if key in bounds)
    return f"{text} {told}" if told else text


def _bound(limit: Any) -> Iterator[tuple[str, Any]]:
    yield from ((key, getattr(limit, key)) for key in ("ge", "gt", "le", "lt") if hasattr(limit, key))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("\n", "\\n")
    if isinstance(value, int):
        return str(value)
    return f"{value:g}"
