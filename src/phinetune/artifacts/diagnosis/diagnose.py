"""All rules on one run, the worst findings first; from figures in memory, or from a run folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phinetune.artifacts.diagnosis import kept_rules, setup_rules, stability_rules, training_rules, validation_rules
from phinetune.artifacts.diagnosis.evidence import Diagnosis, Evidence, Facts, Severity
from phinetune.artifacts.metrics import MetricsRow, read_metrics
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder

_ORDER: tuple[Severity, ...] = ("warning", "note", "good")

# Within a severity, what spoils most stands first.
RULES: tuple[Callable[[Evidence], Diagnosis | None], ...] = (
    stability_rules.went_back,
    stability_rules.not_a_number,
    training_rules.learning_rate_too_high,
    training_rules.held_up,
    validation_rules.hardly_moved,
    validation_rules.no_better_than_before,
    setup_rules.leak,
    kept_rules.last_knows_more,
    validation_rules.overfitting,
    validation_rules.gap,
    setup_rules.learned_to_stop,
    setup_rules.answers_cut,
    setup_rules.warmup_too_long,
    training_rules.stuck,
    validation_rules.too_short,
    training_rules.spikes,
    stability_rules.overflows,
    validation_rules.nothing_held_out,
    setup_rules.too_few_pairs,
    setup_rules.few_held_out,
    kept_rules.not_by_heart,
    setup_rules.slow,
    kept_rules.by_heart,
    validation_rules.follows,
    training_rules.smooth_fall,
    validation_rules.levelled_off,
)
_SAME_NAME = ("kept_step", "own_asked", "own_right_kept", "own_right_last", "endings_asked", "endings_known")
_WITHOUT_STEPS = (stability_rules.went_back, stability_rules.not_a_number)


def diagnose(rows: Sequence[MetricsRow], facts: Facts | None = None) -> list[Diagnosis]:
    """What the rows of a run show, warnings first, then notes, then what went well.

    Without a single optimizer step there is nothing to say but why none was taken.
    """
    evidence = Evidence(rows, facts or Facts())
    took_a_step = any(row.learning_rate is not None for row in rows)
    found = [
        diagnosis for rule in (RULES if took_a_step else _WITHOUT_STEPS) if (diagnosis := rule(evidence)) is not None
    ]
    return sorted(found, key=lambda diagnosis: _ORDER.index(diagnosis.severity))


def diagnose_folder(
    folder: RunFolder, *, in_both_parts: int | None = None, asked: int | None = None, ended: int | None = None
) -> list[Diagnosis]:
    """The same from the files of a run; what they do not hold can be told by name (see `Facts`).

    Raises RunError when the metrics CSV is missing or damaged, or one of the JSON files is damaged.
    """
    facts = replace(read_facts(folder), in_both_parts=in_both_parts, asked=asked, ended=ended)
    return diagnose(read_metrics(folder.metrics_csv), facts)


def read_facts(folder: RunFolder) -> Facts:
    """What the run folder keeps besides the curves; a file that is not there yet leaves its facts unknown.

    Raises RunError when a file is damaged.
    """
    figures, config = _read(folder.metrics_json), _read(folder.config_json)
    settings = config.get("settings", {})
    data, lora, train = (settings.get(group, {}) for group in ("data", "lora", "train"))
    return Facts(
        train_pairs=figures.get("train_pairs"),
        validation_pairs=figures.get("validation_pairs"),
        answers_cut=figures.get("answers_cut"),
        planned_epochs=train.get("epochs"),
        learning_rate=rate if isinstance(rate := train.get("learning_rate"), float) else None,
        max_length=data.get("max_length"),
        lora_r=lora.get("r"),
        lora_dropout=lora.get("dropout"),
        rollbacks=figures.get("rollbacks"),
        stopped=figures.get("stopped"),
        device=config.get("device"),
        seconds=figures.get("seconds"),
        batch_size=train.get("batch_size"),
        grad_accum=train.get("grad_accum"),
        keep=train.get("keep"),
        **{name: figures.get(name) for name in _SAME_NAME},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        pass
    raise RunError(f"{path} is damaged.", "Move it away; the tuned model does not need it.")
