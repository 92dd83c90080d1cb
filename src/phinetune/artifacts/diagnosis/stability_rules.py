"""Rules on numbers that went wrong: steps that were left out, and returns to an earlier state. Each is silent when it
does not apply.
"""

from __future__ import annotations

import math

from phinetune.artifacts.diagnosis.evidence import Diagnosis, Evidence

# One or two steps left out of a run are an odd batch; more are the number format or the learning rate.
MANY_LEFT_OUT = 3
# Gradients that overflow now and then are fp16's way to find its scale.
OVERFLOWS = 0.05


def not_a_number(evidence: Evidence) -> Diagnosis | None:
    """Steps without numbers are left out. Runs of earlier versions took them; there the rate stands beside no loss."""
    taken = [row.step for row in evidence.rows if row.learning_rate is not None and row.train_loss is None]
    if taken:
        return Diagnosis(
            "not_a_number",
            "warning",
            f"The training loss was no longer a number in {steps(len(taken))}, first in step {taken[0]}: what the "
            "model learned after it is worthless.",
            len(taken),
            _lower(evidence),
        )
    skipped = [row for row in evidence.rows if row.was_skipped]
    lost = [row.step for row in skipped if row.train_loss is None or row.grad_norm is None]
    if not lost:
        return None
    many = len(lost) >= MANY_LEFT_OUT or evidence.facts.rollbacks
    return Diagnosis(
        "not_a_number",
        "warning" if many else "note",
        f"{steps(len(lost)).capitalize()} gave no numbers, first step {lost[0]}, and "
        f"{'was' if len(lost) == 1 else 'were'} left out: the model is sound, but learned nothing from "
        f"{'its' if len(lost) == 1 else 'their'} pairs.",
        len(lost),
        _lower(evidence) if many else "",
    )


def went_back(evidence: Evidence) -> Diagnosis | None:
    """The learning rate was halved with every return."""
    times = evidence.facts.rollbacks
    if not times:
        return None
    how_often = {1: "once", 2: "twice"}.get(times, f"{times} times")
    if evidence.facts.stopped == "failed":
        return Diagnosis(
            "unstable",
            "warning",
            f"Training became unstable, went back to an earlier state {how_often}, at half the learning rate each "
            "time, and became unstable again: it was stopped.",
            times,
            _lower(evidence),
        )
    rate = math.ldexp(evidence.facts.learning_rate or evidence.peak_rate, -times)  # a damaged count is no matter to it
    return Diagnosis(
        "went_back",
        "note",
        f"Training became unstable and went back to an earlier state {how_often}; at half the learning rate"
        f"{'' if times == 1 else ' each time'} it held.",
        times,
        f"Another run may do without the detour: --lr {rate:.2g}.",
    )


def overflows(evidence: Evidence) -> Diagnosis | None:
    """Runs of earlier versions: a rate and a loss, and no gradient norm."""
    taken = [row for row in evidence.rows if row.train_loss is not None and row.learning_rate is not None]
    lost = sum(row.grad_norm is None for row in taken)
    if not taken or lost <= OVERFLOWS * len(taken):
        return None
    return Diagnosis(
        "overflows",
        "note",
        f"Gradients overflowed in {lost} of {steps(len(taken))}, and those steps taught nothing.",
        lost,
        "Compute in --dtype bf16 or fp32 where the device can.",
    )


def was_unstable(evidence: Evidence) -> bool:
    """Whether the run went back, or left out so many steps that nobody would call it smooth."""
    lost = sum(row.was_skipped and (row.train_loss is None or row.grad_norm is None) for row in evidence.rows)
    return bool(evidence.facts.rollbacks) or lost >= MANY_LEFT_OUT


def steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"


def _lower(evidence: Evidence) -> str:
    """Half the rate, or what the run came down to by itself; half of that too where it did not hold there either.

    The curve of a run that went back to its beginning shows the last rate alone: the first is told by the settings.
    """
    facts = evidence.facts
    halved = max(1, (facts.rollbacks or 0) + (facts.stopped == "failed")) if facts.learning_rate else 1
    rate = math.ldexp(facts.learning_rate or evidence.peak_rate, -halved)
    by_half = "Halve" if halved == 1 else "Lower"
    lower = f"{by_half} the learning rate (--lr {rate:.2g})" if rate else "Lower the learning rate"
    return f"{lower}, or compute in --dtype fp32; and look for odd answers with phinetune check."
