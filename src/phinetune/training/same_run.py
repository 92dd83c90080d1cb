"""Whether a resume is the same run: what is recorded of a run when it begins, compared with what is asked for now.

A record is flat, and its names tell what they decide:

    dtype, pairs, train.learning_rate, ...          the result: a resume must have the same
    model, model.config, model.weights, ...         the name of the base model, and what it is: that counts, where known
    data.question, data.limit, ...                  which pairs are found: the pairs themselves are what counts
    pairs.found                                     them all, before some are held out: another --seed holds out others
    machine.device, machine.torch, ...              rounding: a resume may differ, and says so
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phinetune.errors import RunError
from phinetune.settings.explain import pages

_MACHINE = "machine."
_OF_THE_MODEL = "model."
_FINDS_PAIRS = {f"data.{name}" for name in ("question", "answer", "sheet", "limit", "seed", "validation_share")}
_FINDS_PAIRS |= {"pairs.found"}
_DIVIDES_PAIRS = {"data.seed", "data.validation_share"}
_WORDS = {
    "model.config": "settings of the base model",
    "model.tokenizer": "tokenizer of the base model",
    "model.weights": "weights of the base model",
    "pairs": "contents of the sheet",
    "pairs.found": "pairs found in the sheet",
    "pairs.train": "pairs to learn from",
    "pairs.validation": "pairs held out",
    "train.examples_per_step": "pairs a step (--batch-size times --grad-accum)",
}


class AnotherRunError(RunError):
    """What is there was made from another sheet, or with other settings."""


def refuse_another_run(before: dict[str, Any], now: dict[str, Any], place: Path) -> None:
    """Raises AnotherRunError that lists every difference which would change the result, by the names a person types."""
    differing = [name for name in now if name in before and before[name] != now[name]]
    same_pairs = before.get("pairs") == now.get("pairs")
    if _is_same_model(before, now):
        differing = [name for name in differing if name != "model"]
    telling = [n for n in differing if not n.startswith(_MACHINE) and not (same_pairs and n in _FINDS_PAIRS)]
    if not telling:
        return
    if "pairs.found" in telling or ("pairs.found" in before and _DIVIDES_PAIRS & set(telling)):
        telling = [name for name in telling if name != "pairs"]  # said by the others, which tell why
    flags = {page.name: page.flag or f"--set {page.name}" for page in pages()}
    words = {n: _WORDS.get(n) or flags.get(n, n) for n in telling}
    if before.get("model") == now.get("model"):
        words = {n: f"{said} {now['model']}" if n.startswith(_OF_THE_MODEL) else said for n, said in words.items()}
    lines = [f"{said}: {_shown(before[n])} before, {_shown(now[n])} now" for n, said in words.items()]
    listed = "\n  ".join(dict.fromkeys(lines))  # --seed is two settings
    raise AnotherRunError(
        f"The run in {place} cannot go on, because it was started differently:\n  {listed}",
        "Use the same sheet and settings as before with --resume. To begin anew, use another --out, or --overwrite, "
        "and without --resume.",
    )


def other_machine(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What computes differently from when the run began, in words; "" when nothing does."""
    names = [n for n in now if n.startswith(_MACHINE) and n in before and before[n] != now[n]]
    return "; ".join(f"{n.removeprefix(_MACHINE)} was {before[n]} and is {now[n]}" for n in names)


def _is_same_model(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether it is known what both models are, and it is the same."""
    parts = [{n: value for n, value in run.items() if n.startswith(_OF_THE_MODEL)} for run in (before, now)]
    return bool(parts[0]) and parts[0] == parts[1]


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
